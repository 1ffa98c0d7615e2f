//! Defining a hook: what it accepts and what it does, and what is refused.

use chrono::{DateTime, Utc};
use gathering_auth::{AuditEvent, AuditKind, Caller, HookToken, SealedValue};
use gathering_domain::{Digest, HookId, KeyedBody, Once, Pointer, Problems, ProjectId, Secret};
use gathering_tools::{HOOK_TOKEN_HEADER, WebhookScheme};
use serde_json::{Value, json};

use super::rules::Rules;
use super::sealing::seal;
use super::{
    DEFAULT_HOOK_BODY_BYTES, DEFAULT_HOOK_CALLS, Hook, HookControl, HookSecret, HookTarget, HookVerification,
    MAX_HOOK_BODY_BYTES, MAX_HOOK_CALLS, audit,
};
use crate::access::right;
use crate::runs::Startable;
use crate::{Conflict, ControlError, Creation, Scoped};

/// The longest name of a header.
const MAX_HEADER_BYTES: usize = 64;

/// A hook in a request, not checked yet.
#[derive(Debug, Clone, PartialEq)]
pub struct SubmittedHook {
    /// What people call it.
    pub name: String,
    /// The target, as [`HookTarget::read`] reads it.
    pub target: Value,
    /// How calls are verified; absent: by Standard Webhooks if there is a secret, else not at all.
    pub scheme: Option<WebhookScheme>,
    /// The header of the scheme `token`.
    pub header: Option<String>,
    /// The filter: an expression over `headers`, `body` and `delivery`.
    pub when: Option<String>,
    /// The run's input, or the event's data, with `${{ }}`; the body if absent.
    pub map: Option<Value>,
    /// The largest body in bytes.
    pub max_body_bytes: Option<u32>,
    /// The most calls in a minute.
    pub max_per_minute: Option<u32>,
    /// Whether it accepts calls.
    pub enabled: bool,
}

impl SubmittedHook {
    /// An enabled hook without verification, filter and mapping.
    pub fn new(name: impl Into<String>, target: Value) -> Self {
        Self {
            name: name.into(),
            target,
            scheme: None,
            header: None,
            when: None,
            map: None,
            max_body_bytes: None,
            max_per_minute: None,
            enabled: true,
        }
    }

    /// What people wrote of a hook that exists.
    pub fn of(hook: &Hook) -> Self {
        let HookSpec { name, target, verification, when, map, max_body_bytes, max_per_minute, enabled } =
            hook.spec.clone();
        let HookVerification { scheme, header } = verification;
        Self {
            name,
            target: target.to_json(),
            scheme: Some(scheme),
            header: (scheme == WebhookScheme::Token).then_some(header),
            when,
            map,
            max_body_bytes: Some(max_body_bytes),
            max_per_minute: Some(max_per_minute),
            enabled,
        }
    }
}

/// What a hook is created with.
#[derive(Debug, Clone)]
pub struct DefineHook {
    /// The project that it belongs to; the caller's default project if absent.
    pub project: Option<ProjectId>,
    /// The hook.
    pub hook: SubmittedHook,
    /// The secret that the sender signs with.
    pub secret: Option<Secret>,
    /// The client's idempotency key, with the body that it came with.
    pub once: Option<KeyedBody>,
}

/// What people write of a hook, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct HookSpec {
    /// What people call it.
    pub name: String,
    /// What a call becomes.
    pub target: HookTarget,
    /// How calls are verified.
    pub verification: HookVerification,
    /// The filter: an expression over `headers`, `body` and `delivery`.
    pub when: Option<String>,
    /// The run's input, or the event's data, with `${{ }}`; the body if absent.
    pub map: Option<Value>,
    /// The largest body in bytes.
    pub max_body_bytes: u32,
    /// The most calls in a minute.
    pub max_per_minute: u32,
    /// Whether it accepts calls.
    pub enabled: bool,
}

/// A hook that is to be created. Only this crate makes one.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewHook {
    /// The hook, with the time of this process.
    pub hook: Hook,
    /// The digest of its token; the token itself is not stored.
    pub token: Digest,
    /// Its secrets, encrypted.
    pub secrets: Vec<SealedValue>,
    /// The event that is recorded with it.
    pub audit: AuditEvent,
    /// What makes a repeated request the same.
    pub once: Option<Once>,
}

impl NewHook {
    /// The hook as it stands when it is created `now` by the store's clock.
    pub fn at(&self, now: DateTime<Utc>) -> Hook {
        Hook { created_at: now, updated_at: now, ..self.hook.clone() }
    }
}

impl HookControl {
    /// Creates a hook, and answers with its token, which is shown only now. The event is recorded.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] or [`ControlError::Forbidden`] for the project, also for who may not run things in it;
    /// [`ControlError::Invalid`] with everything that is wrong; [`Conflict::KeyReused`], or
    /// [`Conflict::HookCreatedBefore`] for a repeated request. After [`ControlError::Unavailable`] it is unknown whether
    /// the hook was created.
    pub async fn define(
        &self,
        caller: &Caller,
        define: DefineHook,
    ) -> Result<(Hook, HookToken), ControlError> {
        let DefineHook { project, hook, secret, once } = define;
        let project = self.projects.find_or_default::<right::Write>(caller, project).await?;
        let default = if secret.is_some() { WebhookScheme::Standard } else { WebhookScheme::None };
        let scheme = hook.scheme.unwrap_or(default);
        let secrets: Vec<Secret> = secret.into_iter().collect();
        let problems = secret_problems(scheme, &secrets);
        let spec = self.check(caller, *project.thing(), hook, scheme, problems).await?;
        let token = HookToken::generate()
            .ok_or_else(|| ControlError::Broken("the system's random number generator failed".into()))?;
        let now = Utc::now();
        let (id, n_secrets) = (HookId::new(), secrets.len());
        let hook = Hook { id, project: *project.thing(), spec, n_secrets, created_at: now, updated_at: now };
        let audit = audit(AuditKind::HookCreated, caller, &hook, hook.project);
        let once = once.map(|body| body.about(&json!("hook")));
        let secrets = seal(&self.keys, (hook.project, id), secrets.into_iter().map(HookSecret::Open))?;
        let new = NewHook { hook, token: token.digest(), secrets, audit, once };
        match self.store.create_hook(&project, &new).await? {
            Creation::Created(hook) => {
                tracing::info!(hook.id = %id, project.id = %hook.project, "hook {id} created");
                Ok((hook, token))
            }
            Creation::Repeated(hook) => Err(Conflict::HookCreatedBefore(hook.id).into()),
            Creation::Deleted => Err(Conflict::CreatedAndDeleted.into()),
            Creation::OtherRequest => Err(Conflict::KeyReused.into()),
        }
    }

    /// Checks a hook of the project. `problems` are those that were found before.
    pub(super) async fn check(
        &self,
        caller: &Caller,
        project: ProjectId,
        submitted: SubmittedHook,
        scheme: WebhookScheme,
        mut problems: Problems,
    ) -> Result<HookSpec, ControlError> {
        let root = Pointer::root();
        // Callers of the hook run things in the project, so its author must be allowed to.
        self.projects.find::<right::Run>(caller, project).await?;
        let target = HookTarget::read(&submitted.target, &root.join("target"));
        let target = target.map_err(|wrong| problems.extend(wrong)).ok();
        if let Some(target) = &target {
            self.check_target(caller, project, target, &mut problems).await?;
        }
        let header = check_header(scheme, submitted.header, &mut problems);
        Rules::compile(submitted.when.as_deref(), submitted.map.as_ref(), &mut problems);
        let mut bounded = |name: &str, value: Option<u32>, default: u32, most: u32| {
            let value = value.unwrap_or(default);
            if !(1..=most).contains(&value) {
                problems.add(root.join(name), format!("must be 1 to {most}"));
            }
            value
        };
        let max_body_bytes =
            bounded("max_body_bytes", submitted.max_body_bytes, DEFAULT_HOOK_BODY_BYTES, MAX_HOOK_BODY_BYTES);
        let max_per_minute =
            bounded("max_per_minute", submitted.max_per_minute, DEFAULT_HOOK_CALLS, MAX_HOOK_CALLS);
        let (Some(target), true) = (target, problems.is_empty()) else {
            return Err(ControlError::Invalid(problems));
        };
        Ok(HookSpec {
            name: submitted.name,
            target,
            verification: HookVerification { scheme, header },
            when: submitted.when,
            map: submitted.map,
            max_body_bytes,
            max_per_minute,
            enabled: submitted.enabled,
        })
    }

    async fn check_target(
        &self,
        caller: &Caller,
        project: ProjectId,
        target: &HookTarget,
        problems: &mut Problems,
    ) -> Result<(), ControlError> {
        let HookTarget::Pipeline { pipeline, version } = target else { return Ok(()) };
        let at = Pointer::root().join("target");
        let found = self.store.find_pipeline(caller, *pipeline).await?;
        let found = found.filter(|found| found.thing.pipeline.project == project);
        let head = match Scoped::<_, right::Run>::check(caller, found) {
            Ok(head) => head,
            Err(ControlError::NotFound) => {
                problems.add(at.join("pipeline_id"), "no such pipeline in this project");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        match Startable::choose(&*self.store, &head, *version).await {
            Ok(_) | Err(ControlError::Conflict(_)) => Ok(()),
            Err(ControlError::Invalid(_)) => {
                problems.add(at.join("version"), "no such version of the pipeline");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// What is wrong with the secrets of a hook with this scheme.
pub(super) fn secret_problems(scheme: WebhookScheme, secrets: &[Secret]) -> Problems {
    let at = Pointer::root().join("secret");
    let mut problems = Problems::new();
    if scheme == WebhookScheme::None {
        if !secrets.is_empty() {
            problems.add(at, "is of no use with the scheme `none`: choose another scheme");
        }
        return problems;
    }
    if secrets.is_empty() {
        problems.add(at.clone(), format!("is missing: the scheme `{scheme}` needs it"));
    }
    for secret in secrets {
        if let Err(message) = scheme.check_secret(secret) {
            problems.add(at.clone(), message);
        }
    }
    problems
}

/// The header of the token, in lower case.
fn check_header(scheme: WebhookScheme, header: Option<String>, problems: &mut Problems) -> String {
    let at = Pointer::root().join("verification").join("header");
    let Some(header) = header else { return HOOK_TOKEN_HEADER.to_owned() };
    let header = header.to_ascii_lowercase();
    let is_name = header.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if scheme != WebhookScheme::Token {
        problems.add(at, "is for the scheme `token` only");
    } else if !is_name || !(1..=MAX_HEADER_BYTES).contains(&header.len()) {
        problems.add(
            at,
            format!("must be the name of a header: 1 to {MAX_HEADER_BYTES} of `a-z`, `0-9`, `-`, `_`"),
        );
    }
    header
}
