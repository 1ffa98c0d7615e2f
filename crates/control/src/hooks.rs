//! Hooks: addresses that other programs call. A call becomes an event, or starts a run.
//!
//! Owns who may create and change hooks, whose calls are trusted, and what becomes of each: filtered, mapped, acted upon
//! once, noted in a ledger. Never knows HTTP: a call is headers and bytes.

mod call;
mod change;
mod decide;
mod define;
mod delivery;
mod receive;
mod redeliver;
mod refusals;
mod rules;
mod sealing;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use gathering_auth::{AuditEvent, AuditKind, Caller, KeyRing};
use gathering_domain::{DeliveryId, HookId, ProjectId};
use gathering_tools::WebhookScheme;
use serde_json::json;

use crate::access::right::Right;
use crate::access::{OfProject, Scoped, right, visible_to};
use crate::projects::ProjectControl;
use crate::{ControlError, ControlStore};

pub use change::{HookChange, HookChangeRule, SecretChange};
pub use define::{DefineHook, HookSpec, NewHook, SubmittedHook};
pub use delivery::{
    Delivered, DeliveryOutcome, FilterReason, HookDelivery, PlannedAct, PlannedDelivery, Refusal,
    RefusalReason, StoredCall,
};
pub use receive::{CallRefused, CalledHook, HookAnswer, ReceivedCall};
pub use refusals::{RefusalLog, RefusalLogService};
pub use rules::HookTarget;
pub use sealing::{HookSealRule, HookSecret, HookSecrets, ResealedHooks};

/// The largest body that a hook may accept, in bytes.
pub const MAX_HOOK_BODY_BYTES: u32 = 1024 * 1024;
/// The largest body of a hook that names no limit, in bytes.
pub const DEFAULT_HOOK_BODY_BYTES: u32 = 256 * 1024;
/// The most calls of a hook in a minute.
pub const MAX_HOOK_CALLS: u32 = 60_000;
/// The most calls in a minute of a hook that names no limit.
pub const DEFAULT_HOOK_CALLS: u32 = 600;
/// How many refused calls of a hook have an entry of their own in an hour. Those beyond are counted.
pub const REFUSALS_PER_HOUR: i32 = 100;

/// How calls of a hook are verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookVerification {
    /// How the sender proves that a call is theirs.
    pub scheme: WebhookScheme,
    /// The header of [`WebhookScheme::Token`], in lower case; of no meaning for the others.
    pub header: String,
}

/// A hook as it stands, without its token and its secrets.
#[derive(Debug, Clone, PartialEq)]
pub struct Hook {
    /// Its id.
    pub id: HookId,
    /// The project that it belongs to.
    pub project: ProjectId,
    /// What people write of it.
    pub spec: HookSpec,
    /// How many secrets are accepted: two while one is replaced.
    pub n_secrets: usize,
    /// When it was created, in UTC.
    pub created_at: DateTime<Utc>,
    /// When it was last changed, in UTC.
    pub updated_at: DateTime<Utc>,
}

impl OfProject for Hook {
    fn project(&self) -> ProjectId {
        self.project
    }
}

/// A hook with the secrets by which calls are verified, the latest first. For the server itself.
#[derive(Debug, Clone)]
pub struct KnownHook {
    /// The hook.
    pub hook: Hook,
    /// Its secrets, as they are stored.
    pub secrets: Vec<HookSecret>,
}

/// What may be done with hooks. Cloning is cheap and shares the store.
#[derive(Clone)]
pub struct HookControl {
    store: Arc<dyn ControlStore>,
    projects: ProjectControl,
    refusals: Arc<RefusalLog>,
    keys: Arc<KeyRing>,
}

impl HookControl {
    /// The hooks of this store, whose secrets are encrypted with `keys`.
    pub fn new(store: Arc<dyn ControlStore>, keys: Arc<KeyRing>) -> Self {
        let projects = ProjectControl::new(Arc::clone(&store));
        Self { projects, refusals: Arc::new(RefusalLog::default()), keys, store }
    }

    /// What writes refused calls into the ledger. Its owner has it run.
    pub fn refusal_log(&self) -> RefusalLogService {
        RefusalLogService::new(Arc::clone(&self.store), Arc::clone(&self.refusals))
    }

    /// The hook, if the caller may do `R` with it.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`], or the store's.
    pub async fn find<R: Right>(
        &self,
        caller: &Caller,
        hook: HookId,
    ) -> Result<Scoped<Hook, R>, ControlError> {
        Scoped::check(caller, self.store.find_hook(caller, hook).await?)
    }

    /// At most `limit` of the hooks that the caller may see, the newest first; those of one project if it is given.
    /// `before` is the last of the previous page.
    ///
    /// # Errors
    /// [`ControlError::Forbidden`] for an API key without the scope to read, or the store's.
    pub async fn list(
        &self,
        caller: &Caller,
        project: Option<ProjectId>,
        before: Option<HookId>,
        limit: usize,
    ) -> Result<Vec<Hook>, ControlError> {
        self.store.list_hooks(visible_to(caller)?, project, before, limit).await
    }

    /// At most `limit` entries of the hook's ledger, the latest first. `before` is the last of the previous page.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`], or the store's.
    pub async fn list_deliveries(
        &self,
        caller: &Caller,
        hook: HookId,
        before: Option<DeliveryId>,
        limit: usize,
    ) -> Result<Vec<HookDelivery>, ControlError> {
        let hook = self.find::<right::Read>(caller, hook).await?;
        self.store.list_deliveries(&hook, before, limit).await
    }

    /// Deletes the hook with its ledger: from the answer on its address is unknown. Its runs and events stay. The event
    /// is recorded.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`], or the store's.
    pub async fn delete(&self, caller: &Caller, hook: HookId) -> Result<(), ControlError> {
        let hook = self.find::<right::Write>(caller, hook).await?;
        let audit = audit(AuditKind::HookDeleted, caller, &hook, hook.project);
        self.store.delete_hook(&hook, &audit).await
    }
}

fn audit(kind: AuditKind, caller: &Caller, hook: &Hook, project: ProjectId) -> AuditEvent {
    let scheme = hook.spec.verification.scheme.as_str();
    let detail = json!({ "hook": hook.id, "project": project, "scheme": scheme, "by": caller.user });
    AuditEvent::new(kind, Some(caller.user), caller.origin).with_detail(detail)
}
