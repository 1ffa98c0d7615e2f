//! Changing a hook, and replacing its secret.

use gathering_auth::{AuditEvent, AuditKind, Caller, SealedValue};
use gathering_domain::{HookId, Secret};
use gathering_tools::WebhookScheme;

use super::define::secret_problems;
use super::sealing::seal;
use super::{Hook, HookControl, HookSecret, HookSpec, KnownHook, SubmittedHook, audit};
use crate::ControlError;
use crate::access::right;

/// How often a change is made of a hook that somebody else changed meanwhile.
const ATTEMPTS: usize = 5;

/// What becomes of the secrets of a hook.
#[derive(Debug, Clone, Default)]
pub struct SecretChange {
    /// The new secret. The one before is accepted, too, until it is retired or another one comes.
    pub new: Option<Secret>,
    /// From now on only the latest secret is accepted.
    pub retire: bool,
}

/// What a change makes of a hook.
#[derive(Debug, Clone)]
pub struct HookChange {
    /// The hook afterwards.
    pub hook: Hook,
    /// Its secrets, the latest first.
    pub secrets: Vec<SealedValue>,
    /// The event that is recorded with it.
    pub audit: Option<AuditEvent>,
}

/// A rule that changes a locked hook.
pub type HookChangeRule<'a> = dyn Fn(KnownHook) -> Result<HookChange, ControlError> + Send + Sync + 'a;

impl HookControl {
    /// Changes a hook to what `change` makes of it. Its address stays. Another scheme needs another secret, and forgets
    /// the earlier ones. The event is recorded if another scheme or secret is accepted from now on.
    ///
    /// Of two changes at once, one sees what the other has made: `change` may be called again.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`]; [`ControlError::Invalid`] with everything that is wrong.
    /// After [`ControlError::Unavailable`] it is unknown whether the hook is changed.
    pub async fn change(
        &self,
        caller: &Caller,
        hook: HookId,
        secret: &SecretChange,
        change: impl Fn(&Hook) -> SubmittedHook + Send + Sync,
    ) -> Result<Hook, ControlError> {
        let mut attempts = ATTEMPTS;
        loop {
            let found = self.find::<right::Write>(caller, hook).await?;
            let submitted = change(&found);
            let scheme = submitted.scheme.unwrap_or(WebhookScheme::None);
            let is_same = scheme == found.spec.verification.scheme;
            let new: Vec<Secret> = secret.new.iter().cloned().collect();
            let problems = if is_same && new.is_empty() {
                gathering_domain::Problems::new()
            } else {
                secret_problems(scheme, &new)
            };
            let spec = self.check(caller, found.project, submitted, scheme, problems).await?;
            let rule = |known: KnownHook| {
                let (changed, secrets) = changed(known, &found, &spec, secret)?;
                let secrets = seal(&self.keys, (found.project, found.id), secrets)?;
                let audit = changed
                    .is_recorded
                    .then(|| audit(AuditKind::HookVerificationChanged, caller, &changed.hook, found.project));
                Ok(HookChange { hook: changed.hook, secrets, audit })
            };
            attempts -= 1;
            match self.store.change_hook(&found, &rule).await {
                Err(ControlError::Outdated) if attempts > 0 => {}
                changed => return changed,
            }
        }
    }
}

/// A changed hook, and whether the change is recorded.
struct Changed {
    hook: Hook,
    is_recorded: bool,
}

/// The hook as `spec` makes it, which was made of the hook as it was `seen`, and its secrets.
fn changed(
    known: KnownHook,
    seen: &Hook,
    spec: &HookSpec,
    secret: &SecretChange,
) -> Result<(Changed, Vec<HookSecret>), ControlError> {
    let KnownHook { mut hook, mut secrets } = known;
    if hook != *seen {
        return Err(ControlError::Outdated);
    }
    let is_verified_otherwise = spec.verification != hook.spec.verification;
    if spec.verification.scheme != hook.spec.verification.scheme {
        secrets.clear();
    }
    let n_before = secrets.len();
    if let Some(new) = &secret.new {
        secrets.insert(0, HookSecret::Open(new.clone()));
    }
    secrets.truncate(if secret.retire { 1 } else { 2 });
    hook.spec = spec.clone();
    hook.n_secrets = secrets.len();
    let is_recorded = is_verified_otherwise || secret.new.is_some() || secrets.len() < n_before;
    Ok((Changed { hook, is_recorded }, secrets))
}
