//! Hooks: created, changed, deleted, and by whom. What becomes of their calls is in the file beside this one.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the cases are tests")]

use std::sync::Arc;

use chrono::Utc;
use gathering_auth::{AuditKind, Caller, HookToken, ProjectRole, Role, Scope};
use gathering_domain::{HookId, KeyedBody, PipelineId, Secret};
use gathering_tools::{ReceivedHeaders, WebhookKey, WebhookScheme, sign_webhook};
use serde_json::{Value, json};

use super::secrets::ring;
use super::{World, conflict};
use crate::testing::{ControlFixture, with_scopes};
use crate::{
    CallRefused, Conflict, ControlError, DefineHook, Hook, HookAnswer, HookControl, HookDelivery,
    ReceivedCall, RefusalReason, SecretChange, SubmittedHook, right,
};

pub(super) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub(super) const OTHER_SECRET: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

pub(super) struct Place {
    pub(super) world: World,
    pub(super) hooks: HookControl,
}

impl Place {
    pub(super) async fn new<F: ControlFixture>(fixture: &F) -> Self {
        Self { world: World::new(fixture).await, hooks: HookControl::new(fixture.store(), Arc::new(ring())) }
    }

    /// A hook that starts the pipeline.
    pub(super) fn to_pipeline(&self) -> SubmittedHook {
        SubmittedHook::new("calls", json!({ "pipeline_id": self.world.pipeline }))
    }

    pub(super) fn defining(&self, hook: SubmittedHook, secret: Option<&str>) -> DefineHook {
        DefineHook { project: Some(self.world.project), hook, secret: secret.map(Secret::from), once: None }
    }

    pub(super) async fn define(&self, hook: SubmittedHook, secret: Option<&str>) -> (Hook, HookToken) {
        self.hooks.define(&self.world.owner, self.defining(hook, secret)).await.unwrap()
    }

    pub(super) async fn call(
        &self,
        token: &HookToken,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Result<ReceivedCall, CallRefused> {
        self.send(token, headers, &body.to_string()).await
    }

    pub(super) async fn send(
        &self,
        token: &HookToken,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<ReceivedCall, CallRefused> {
        let headers: ReceivedHeaders =
            headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let called = self.hooks.find_called(token.expose()).await.unwrap();
        self.hooks.receive(called, &headers, body.as_bytes()).await
    }

    /// A call that is signed with this secret, at so many seconds from now.
    pub(super) async fn signed(
        &self,
        token: &HookToken,
        secret: &str,
        id: &str,
        after: i64,
        body: &Value,
    ) -> Result<ReceivedCall, CallRefused> {
        let at = Utc::now().timestamp() + after;
        let key: WebhookKey = secret.parse().unwrap();
        let signature = sign_webhook(&[key], id, at, body.to_string().as_bytes());
        let at = at.to_string();
        let headers = [("webhook-id", id), ("webhook-timestamp", &*at), ("webhook-signature", &*signature)];
        self.call(token, &headers, body).await
    }

    /// The ledger, the latest first.
    pub(super) async fn ledger(&self, hook: &Hook) -> Vec<HookDelivery> {
        self.hooks.refusal_log().flush().await.unwrap();
        self.hooks.list_deliveries(&self.world.owner, hook.id, None, 200).await.unwrap()
    }
}

pub(super) fn answer(received: Result<ReceivedCall, CallRefused>) -> HookAnswer {
    match received {
        Ok(ReceivedCall::Answer(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

pub(super) fn refusal(received: Result<ReceivedCall, CallRefused>) -> (RefusalReason, String) {
    match received {
        Err(CallRefused::Refused { reason, detail, .. }) => (reason, detail),
        other => panic!("{other:?}"),
    }
}

pub(super) fn is_untrusted(received: &Result<ReceivedCall, CallRefused>) -> bool {
    matches!(received, Err(CallRefused::Untrusted))
}

/// Somebody sends them again later.
pub async fn a_disabled_hook_keeps_calls_and_does_nothing<F: ControlFixture>(fixture: &F) {
    let place = Place::new(fixture).await;
    let (hook, token) = place.define(place.to_pipeline(), Some(SECRET)).await;
    let disable = |hook: &Hook| SubmittedHook { enabled: false, ..SubmittedHook::of(hook) };
    let changed = place.hooks.change(&place.world.owner, hook.id, &SecretChange::default(), disable).await;
    let changed = changed.unwrap();
    assert!(!changed.spec.enabled && changed.updated_at > hook.updated_at);
    let (reason, _) = refusal(place.signed(&token, SECRET, "msg_1", 0, &json!({ "n": 1 })).await);
    assert_eq!(reason, RefusalReason::Disabled);
    let entry = place.ledger(&hook).await.remove(0);
    assert!(entry.is_kept);
    assert!(place.hooks.redeliver(&place.world.owner, hook.id, entry.id).await.unwrap().run.is_some());
    assert!(is_untrusted(&place.signed(&token, OTHER_SECRET, "msg_1", 0, &json!({})).await));
}

/// Two are accepted until the earlier one is retired; what changes is recorded, and no secret with it.
pub async fn a_secret_is_replaced_without_a_gap<F: ControlFixture>(fixture: &F) {
    let place = Place::new(fixture).await;
    let (hook, token) = place.define(place.to_pipeline(), Some(SECRET)).await;
    let (owner, same) = (&place.world.owner, |hook: &Hook| SubmittedHook::of(hook));
    let new = SecretChange { new: Some(Secret::from(OTHER_SECRET)), retire: false };
    assert_eq!(place.hooks.change(owner, hook.id, &new, same).await.unwrap().n_secrets, 2);
    assert!(answer(place.signed(&token, SECRET, "msg_1", 0, &json!({})).await).run.is_some());
    assert!(answer(place.signed(&token, OTHER_SECRET, "msg_2", 0, &json!({})).await).run.is_some());
    let retired = SecretChange { new: None, retire: true };
    assert_eq!(place.hooks.change(owner, hook.id, &retired, same).await.unwrap().n_secrets, 1);
    assert!(is_untrusted(&place.signed(&token, SECRET, "msg_3", 0, &json!({})).await));
    assert!(answer(place.signed(&token, OTHER_SECRET, "msg_3", 0, &json!({})).await).run.is_some());
    let other = |hook: &Hook| SubmittedHook { scheme: Some(WebhookScheme::Token), ..SubmittedHook::of(hook) };
    let Err(ControlError::Invalid(problems)) =
        place.hooks.change(owner, hook.id, &SecretChange::default(), other).await
    else {
        panic!("another scheme needs another secret");
    };
    assert_eq!(problems.iter().next().unwrap().pointer.as_str(), "/secret");
    let new = SecretChange { new: Some(Secret::from("a plain token")), retire: false };
    assert_eq!(place.hooks.change(owner, hook.id, &new, other).await.unwrap().n_secrets, 1);
    let called = place.call(&token, &[("X-Hook-Token", "a plain token")], &json!({})).await;
    assert!(answer(called).run.is_some());
    place.hooks.delete(owner, hook.id).await.unwrap();
    let trail = fixture.audit_trail().await;
    let of_hooks: Vec<_> = trail.iter().filter(|event| event.kind.as_str().starts_with("hook_")).collect();
    let kinds: Vec<_> = of_hooks.iter().map(|event| event.kind).collect();
    let changed = AuditKind::HookVerificationChanged;
    assert_eq!(kinds, [AuditKind::HookCreated, changed, changed, changed, AuditKind::HookDeleted]);
    assert!(of_hooks.iter().all(|event| event.detail["hook"] == json!(hook.id)));
    assert!(!format!("{of_hooks:?}").contains("whsec_"));
}

/// The token is shown once.
pub async fn a_hook_is_created_once_for_one_key<F: ControlFixture>(fixture: &F) {
    let place = Place::new(fixture).await;
    let define = |body: &Value| DefineHook {
        once: Some(KeyedBody::new("key".parse().unwrap(), body)),
        ..place.defining(place.to_pipeline(), None)
    };
    let (hook, _) = place.hooks.define(&place.world.owner, define(&json!(1))).await.unwrap();
    let again = place.hooks.define(&place.world.owner, define(&json!(1))).await.map(|(hook, _)| hook);
    assert_eq!(conflict(again), Conflict::HookCreatedBefore(hook.id));
    let other = place.hooks.define(&place.world.owner, define(&json!(2))).await.map(|(hook, _)| hook);
    assert_eq!(conflict(other), Conflict::KeyReused);
    assert_eq!(place.hooks.list(&place.world.owner, None, None, 10).await.unwrap().len(), 1);
}

/// A hook is a thing of its project; who creates one must be allowed to run things there.
pub async fn a_stranger_finds_no_hook_and_a_viewer_changes_none<F: ControlFixture>(fixture: &F) {
    let place = Place::new(fixture).await;
    let (hook, token) = place.define(place.to_pipeline(), None).await;
    let delivery = answer(place.call(&token, &[], &json!({})).await).delivery;
    let (stranger, viewer) = (fixture.account(Role::Member).await, fixture.account(Role::Member).await);
    fixture.join(place.world.project, &viewer, ProjectRole::Viewer).await;
    let hidden = place.hooks.find::<right::Read>(&stranger, hook.id).await;
    assert!(matches!(hidden, Err(ControlError::NotFound)), "{hidden:?}");
    let hidden = place.hooks.list_deliveries(&stranger, hook.id, None, 10).await;
    assert!(matches!(hidden, Err(ControlError::NotFound)), "{hidden:?}");
    assert!(place.hooks.list(&stranger, None, None, 10).await.unwrap().is_empty());
    assert_eq!(place.hooks.list(&viewer, None, None, 10).await.unwrap().len(), 1);
    assert_eq!(place.hooks.list_deliveries(&viewer, hook.id, None, 10).await.unwrap().len(), 1);
    let refused = |caller: Caller| {
        let define = place.defining(place.to_pipeline(), None);
        let to_event = place.defining(SubmittedHook::new("e", json!({ "event_type": "a.b" })), None);
        let hooks = &place.hooks;
        async move {
            let errors = [
                hooks.define(&caller, define).await.map(drop),
                hooks.define(&caller, to_event).await.map(drop),
            ];
            errors.into_iter().all(|error| matches!(error, Err(ControlError::Forbidden)))
        }
    };
    assert!(refused(viewer.clone()).await);
    let owner = &place.world.owner;
    assert!(refused(with_scopes(owner, &[Scope::Write])).await, "a hook runs things");
    assert!(refused(with_scopes(owner, &[Scope::Run])).await);
    let both = with_scopes(owner, &[Scope::Write, Scope::Run]);
    assert!(place.hooks.define(&both, place.defining(place.to_pipeline(), None)).await.is_ok());
    for (caller, allowed) in [(with_scopes(owner, &[Scope::Write]), false), (both, true)] {
        let redelivered = place.hooks.redeliver(&caller, hook.id, delivery).await;
        assert_eq!(redelivered.is_ok(), allowed, "{redelivered:?}");
    }
    let refused = place.hooks.delete(&viewer, hook.id).await;
    assert!(matches!(refused, Err(ControlError::Forbidden)), "{refused:?}");
}

/// Everything wrong is named at its place, and nothing is stored.
pub async fn a_wrong_hook_is_refused_with_every_problem<F: ControlFixture>(fixture: &F) {
    let place = Place::new(fixture).await;
    let places = |define: DefineHook| {
        let hooks = &place.hooks;
        let owner = &place.world.owner;
        async move {
            let Err(ControlError::Invalid(problems)) = hooks.define(owner, define).await else { panic!() };
            problems.iter().map(|problem| problem.pointer.to_string()).collect::<Vec<_>>()
        }
    };
    let wrong = SubmittedHook {
        scheme: Some(WebhookScheme::GitHub),
        header: Some("x".to_owned()),
        when: Some("event.x".to_owned()),
        map: Some(json!(["${{ input }}"])),
        max_body_bytes: Some(0),
        max_per_minute: Some(1_000_000),
        ..SubmittedHook::new("wrong", json!({ "pipeline_id": PipelineId::new() }))
    };
    let expected = [
        "/secret",
        "/target/pipeline_id",
        "/verification/header",
        "/when",
        "/map/0",
        "/max_body_bytes",
        "/max_per_minute",
    ];
    assert_eq!(places(place.defining(wrong, None)).await, expected);
    let unverified = SubmittedHook { scheme: Some(WebhookScheme::None), ..place.to_pipeline() };
    assert_eq!(places(place.defining(unverified, Some("a secret of no use"))).await, ["/secret"]);
    assert_eq!(places(place.defining(place.to_pipeline(), Some("no key"))).await, ["/secret"]);
    let version = json!({ "pipeline_id": place.world.pipeline, "version": 9 });
    assert_eq!(places(place.defining(SubmittedHook::new("v", version), None)).await, ["/target/version"]);
    assert!(place.hooks.list(&place.world.owner, None, None, 10).await.unwrap().is_empty());
}

/// From the answer on.
pub async fn a_deleted_hook_is_unknown_to_its_callers<F: ControlFixture>(fixture: &F) {
    let place = Place::new(fixture).await;
    let (hook, token) = place.define(place.to_pipeline(), None).await;
    let run = answer(place.call(&token, &[], &json!({})).await).run.unwrap();
    let called = place.hooks.find_called(token.expose()).await.unwrap();
    place.hooks.delete(&place.world.owner, hook.id).await.unwrap();
    assert!(is_untrusted(&place.call(&token, &[], &json!({})).await));
    let meanwhile = place.hooks.receive(called, &ReceivedHeaders::default(), b"{}").await;
    assert!(is_untrusted(&meanwhile), "{meanwhile:?}");
    let gone = place.hooks.find::<right::Read>(&place.world.owner, hook.id).await;
    assert!(matches!(gone, Err(ControlError::NotFound)), "{gone:?}");
    assert!(place.world.runs.find::<right::Read>(&place.world.owner, run).await.is_ok(), "its runs stay");
    let missing = place.hooks.find::<right::Read>(&place.world.owner, HookId::new()).await;
    assert!(matches!(missing, Err(ControlError::NotFound)), "{missing:?}");
}
