//! Hooks: created, changed, called, and their ledgers.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the cases are tests")]

use std::collections::HashSet;

use chrono::Utc;
use gathering_auth::{AuditKind, Caller, HookToken, ProjectRole, Role, Scope};
use gathering_domain::{HookId, KeyedBody, PipelineId, RunKind, Secret};
use gathering_tools::{ReceivedHeaders, WebhookKey, WebhookScheme, sign_webhook};
use serde_json::{Value, json};

use super::{World, conflict};
use crate::testing::{ControlFixture, with_scopes};
use crate::{
    CallRefused, Conflict, ControlError, DefineHook, DeliveryOutcome, EventControl, EventFilter, Hook,
    HookAnswer, HookControl, HookDelivery, REFUSALS_PER_HOUR, ReceivedCall, RefusalReason, SecretChange,
    SubmittedHook, right,
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER_SECRET: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

struct Place {
    world: World,
    hooks: HookControl,
}

impl Place {
    async fn new<F: ControlFixture>(fixture: &F) -> Self {
        Self { world: World::new(fixture).await, hooks: HookControl::new(fixture.store()) }
    }

    /// A hook that starts the pipeline.
    fn to_pipeline(&self) -> SubmittedHook {
        SubmittedHook::new("calls", json!({ "pipeline_id": self.world.pipeline }))
    }

    fn defining(&self, hook: SubmittedHook, secret: Option<&str>) -> DefineHook {
        DefineHook { project: Some(self.world.project), hook, secret: secret.map(Secret::from), once: None }
    }

    async fn define(&self, hook: SubmittedHook, secret: Option<&str>) -> (Hook, HookToken) {
        self.hooks.define(&self.world.owner, self.defining(hook, secret)).await.unwrap()
    }

    async fn call(
        &self,
        token: &HookToken,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Result<ReceivedCall, CallRefused> {
        self.send(token, headers, &body.to_string()).await
    }

    async fn send(
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
    async fn signed(
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
    async fn ledger(&self, hook: &Hook) -> Vec<HookDelivery> {
        self.hooks.refusal_log().flush().await.unwrap();
        self.hooks.list_deliveries(&self.world.owner, hook.id, None, 200).await.unwrap()
    }
}

fn answer(received: Result<ReceivedCall, CallRefused>) -> HookAnswer {
    match received {
        Ok(ReceivedCall::Answer(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

fn refusal(received: Result<ReceivedCall, CallRefused>) -> (RefusalReason, String) {
    match received {
        Err(CallRefused::Refused { reason, detail, .. }) => (reason, detail),
        other => panic!("{other:?}"),
    }
}

fn is_untrusted(received: &Result<ReceivedCall, CallRefused>) -> bool {
    matches!(received, Err(CallRefused::Untrusted))
}

/// Call, run and entry of the ledger belong together.
pub async fn a_trusted_call_starts_a_run_that_names_it<F: ControlFixture>(fixture: &F) {
    let place = Place::new(fixture).await;
    let (hook, token) = place.define(place.to_pipeline(), Some(SECRET)).await;
    assert_eq!((hook.spec.verification.scheme, hook.n_secrets), (WebhookScheme::Standard, 1));
    let body = json!({ "ref": "main", "nul": "a\0b" });
    let answer = answer(place.signed(&token, SECRET, "msg_1", 0, &body).await);
    assert_eq!((answer.outcome, answer.is_repeated), (DeliveryOutcome::Accepted, false));
    let run = place.world.runs.find::<right::Read>(&place.world.owner, answer.run.unwrap()).await.unwrap();
    assert_eq!((run.kind, run.pipeline), (RunKind::Pipeline, Some((place.world.pipeline, 1))));
    assert_eq!((run.project, &run.input), (place.world.project, &body));
    let trigger = json!({ "type": "hook", "hook_id": hook.id, "delivery_id": answer.delivery });
    assert_eq!(run.trigger, trigger);
    let ledger = place.ledger(&hook).await;
    assert_eq!(ledger.len(), 1);
    let entry = &ledger[0];
    assert_eq!((entry.id, entry.run, entry.key.as_deref()), (answer.delivery, answer.run, Some("msg_1")));
    assert_eq!((entry.is_kept, entry.n_repeats, entry.n_calls), (true, 0, 1));
    assert_eq!(entry.size_bytes, i64::try_from(body.to_string().len()).unwrap());
    let found = place.hooks.find::<right::Read>(&place.world.owner, hook.id).await.unwrap();
    assert_eq!(*found.thing(), hook);
    assert!(!format!("{found:?}").contains(&SECRET[8..]), "nothing shows a secret");
}

/// Nothing is done twice, and the repetition is counted.
pub async fn a_call_that_comes_again_is_answered_with_the_first<F: ControlFixture>(fixture: &F) {
    let place = Place::new(fixture).await;
    let (hook, token) = place.define(place.to_pipeline(), Some(SECRET)).await;
    let first = answer(place.signed(&token, SECRET, "msg_1", 0, &json!({})).await);
    let again = answer(place.signed(&token, SECRET, "msg_1", 5, &json!({ "other": true })).await);
    assert_eq!(again, HookAnswer { is_repeated: true, ..first.clone() });
    let other = answer(place.signed(&token, SECRET, "msg_2", 0, &json!({})).await);
    assert_ne!(other.run, first.run);
    let ledger = place.ledger(&hook).await;
    assert_eq!(ledger.iter().map(|entry| entry.n_repeats).collect::<Vec<_>>(), [0, 1]);
    let (_, token) = place.define(place.to_pipeline(), Some(SECRET)).await;
    let of_other = answer(place.signed(&token, SECRET, "msg_1", 0, &json!({})).await);
    assert_ne!(of_other.run, first.run, "the ids of one hook are not those of another");
    let (_, token) = place.define(place.to_pipeline(), None).await;
    let runs = [place.call(&token, &[], &json!({})).await, place.call(&token, &[], &json!({})).await];
    let runs: HashSet<_> = runs.into_iter().map(|received| answer(received).run).collect();
    assert_eq!(runs.len(), 2, "without an id every call is new");
}

/// However many instances receive it.
pub async fn of_calls_with_one_id_at_once_one_starts_a_run<F: ControlFixture>(fixture: &F) {
    let place = Place::new(fixture).await;
    let (hook, token) = place.define(place.to_pipeline(), Some(SECRET)).await;
    let body = json!({});
    for round in 0..5 {
        let id = format!("msg_{round}");
        let send = || place.signed(&token, SECRET, &id, 0, &body);
        let (a, b, c, d) = tokio::join!(send(), send(), send(), send());
        let answers: Vec<_> = [a, b, c, d].into_iter().map(answer).collect();
        assert_eq!(answers.iter().filter(|answer| !answer.is_repeated).count(), 1, "{answers:?}");
        assert!(answers.iter().all(|answer| answer.run == answers[0].run), "{answers:?}");
    }
    let ledger = place.ledger(&hook).await;
    assert_eq!(ledger.iter().map(|entry| entry.n_repeats).collect::<Vec<_>>(), [3; 5]);
}

/// Of the type of the hook, whatever the sender says.
pub async fn a_call_becomes_an_event_of_the_hooks_type<F: ControlFixture>(fixture: &F) {
    let place = Place::new(fixture).await;
    let map = json!({ "total": "${{ body.amount * 2 }}" });
    let target = json!({ "event_type": "order.paid" });
    let hook = SubmittedHook { map: Some(map), ..SubmittedHook::new("orders", target) };
    let (hook, token) = place.define(hook, None).await;
    let answered = answer(place.call(&token, &[], &json!({ "amount": 6, "type": "run.failed" })).await);
    let events = EventControl::new(fixture.store());
    let filter = EventFilter::default();
    let page = loop {
        let page = events.list(&place.world.owner, Some(place.world.project), &filter, 0, 10).await.unwrap();
        if !page.is_held_back {
            break page;
        }
        tokio::task::yield_now().await;
    };
    let [event] = &page.events[..] else { panic!("{page:?}") };
    assert_eq!((event.event_type.as_str(), &event.data), ("order.paid", &json!({ "total": 12 })));
    assert_eq!((answered.event, answered.run), (Some(event.seq), None));
    assert_eq!(place.ledger(&hook).await[0].event, Some(event.seq));
}

/// Its source and its id name it, also for a redelivery.
pub async fn a_cloud_event_is_in_the_log_once<F: ControlFixture>(fixture: &F) {
    let place = Place::new(fixture).await;
    let (_, token) = place.define(SubmittedHook::new("o", json!({ "event_type": "order.paid" })), None).await;
    let lines =
        [("ce-specversion", "1.0"), ("ce-id", "7"), ("ce-source", "/shop"), ("ce-type", "Their.Type")];
    let first = answer(place.call(&token, &lines, &json!({ "n": 1 })).await);
    let structured = json!({
        "specversion": "1.0", "id": "7", "source": "/shop", "type": "Their.Type", "data": { "n": 1 },
    });
    let media_type = [("content-type", "application/cloudevents+json")];
    let again = answer(place.call(&token, &media_type, &structured).await);
    assert_eq!(again, HookAnswer { is_repeated: true, ..first.clone() });
    let (_, token) = place.define(SubmittedHook::new("p", json!({ "event_type": "order.seen" })), None).await;
    let other = answer(place.call(&token, &lines, &json!({ "n": 1 })).await);
    assert_eq!((other.is_repeated, other.event), (false, first.event), "one event of the project");
}

/// One answer for all, and an entry of its own for each, which keeps nothing.
pub async fn untrusted_calls_learn_nothing_and_are_noted<F: ControlFixture>(fixture: &F) {
    let place = Place::new(fixture).await;
    let (hook, token) = place.define(place.to_pipeline(), Some(SECRET)).await;
    let body = json!({});
    for received in [
        place.signed(&token, OTHER_SECRET, "msg_1", 0, &body).await,
        place.signed(&token, SECRET, "msg_1", -302, &body).await,
        place.signed(&token, SECRET, "msg_1", 302, &body).await,
        place.call(&token, &[], &body).await,
        place.call(&HookToken::generate().unwrap(), &[], &body).await,
    ] {
        assert!(is_untrusted(&received), "{received:?}");
    }
    for text in ["", "hook_", token.expose().trim_end_matches(|last| last != '_')] {
        assert!(place.hooks.find_called(text).await.unwrap().limit().is_none(), "{text}");
    }
    let called = place.hooks.find_called(token.expose()).await.unwrap();
    assert_eq!(called.limit(), Some((hook.id, 600)));
    place.hooks.note_refusal(&called, RefusalReason::RateLimited);
    let ledger = place.ledger(&hook).await;
    let mut reasons: Vec<_> = ledger.iter().map(|entry| entry.reason.clone().unwrap()).collect();
    reasons.sort();
    assert_eq!(reasons, ["bad_signature", "bad_signature", "rate_limited", "too_old", "too_old"]);
    assert!(ledger.iter().all(|entry| entry.outcome == DeliveryOutcome::Refused && !entry.is_kept));
    let refused = place.hooks.redeliver(&place.world.owner, hook.id, ledger[0].id).await;
    assert_eq!(conflict(refused), Conflict::NotRedeliverable);
    let answer = answer(place.signed(&token, SECRET, "msg_1", 299, &body).await);
    assert!(answer.run.is_some(), "a refused call does not take the id");
}

/// Beyond the bound they are counted.
pub async fn refused_calls_are_noted_one_by_one_up_to_a_bound<F: ControlFixture>(fixture: &F) {
    let place = Place::new(fixture).await;
    let hook = SubmittedHook { max_body_bytes: Some(4), ..place.to_pipeline() };
    let (hook, token) = place.define(hook, None).await;
    assert_eq!(refusal(place.send(&token, &[], "12345").await).0, RefusalReason::TooLarge);
    for _ in 0..REFUSALS_PER_HOUR + 10 {
        let (reason, detail) = refusal(place.send(&token, &[], "{").await);
        assert_eq!(reason, RefusalReason::NotJson, "{detail}");
    }
    let ledger = place.ledger(&hook).await;
    assert_eq!(ledger.len(), usize::try_from(REFUSALS_PER_HOUR).unwrap());
    assert_eq!(ledger.iter().map(|entry| entry.n_calls).sum::<i64>(), i64::from(REFUSALS_PER_HOUR) + 11);
    let pages =
        place.hooks.list_deliveries(&place.world.owner, hook.id, Some(ledger[1].id), 2).await.unwrap();
    assert_eq!(pages, ledger[2..4]);
}

/// What they say is in the ledger, with its place.
pub async fn a_filter_and_a_mapping_decide_about_a_call<F: ControlFixture>(fixture: &F) {
    let place = Place::new(fixture).await;
    let hook = SubmittedHook {
        when: Some("headers['x-event'] == 'push' && body.ref.startsWith('refs/')".to_owned()),
        map: Some(json!({ "branch": "${{ body.ref }}", "key": "${{ delivery.key }}" })),
        ..place.to_pipeline()
    };
    let (hook, token) = place.define(hook, None).await;
    let push = [("X-Event", "push"), ("Idempotency-Key", "k1")];
    let accepted = answer(place.call(&token, &push, &json!({ "ref": "refs/x" })).await);
    let run = place.world.runs.find::<right::Read>(&place.world.owner, accepted.run.unwrap()).await.unwrap();
    assert_eq!(run.input, json!({ "branch": "refs/x", "key": "k1" }));
    let filtered = answer(place.call(&token, &[("x-event", "pull")], &json!({ "ref": "refs/x" })).await);
    assert_eq!((filtered.outcome, filtered.reason.as_deref()), (DeliveryOutcome::Filtered, Some("when")));
    let (reason, detail) = refusal(place.call(&token, &[("x-event", "push")], &json!({ "ref": 7 })).await);
    assert_eq!(reason, RefusalReason::Expression);
    assert!(detail.starts_with("/when: "), "{detail}");
    let ledger = place.ledger(&hook).await;
    assert_eq!(ledger[0].detail.as_deref(), Some(&*detail));
    assert!(ledger.iter().all(|entry| entry.is_kept), "an author can correct the hook and send it again");
}

/// Its id is free until something was done.
pub async fn a_call_whose_pipeline_is_disabled_is_taken_when_it_comes_again<F: ControlFixture>(fixture: &F) {
    let place = Place::new(fixture).await;
    let (hook, token) = place.define(place.to_pipeline(), Some(SECRET)).await;
    place.world.change(false, None).await;
    let (reason, _) = refusal(place.signed(&token, SECRET, "msg_1", 0, &json!({})).await);
    assert_eq!(reason, RefusalReason::NotStartable);
    place.world.change(true, None).await;
    assert!(answer(place.signed(&token, SECRET, "msg_1", 0, &json!({})).await).run.is_some());
    let outcomes: Vec<_> = place.ledger(&hook).await.iter().map(|entry| entry.outcome).collect();
    assert_eq!(outcomes, [DeliveryOutcome::Accepted, DeliveryOutcome::Refused]);
}

/// By what the hook says now, and with the name of the first.
pub async fn a_kept_call_is_sent_again_as_a_new_delivery<F: ControlFixture>(fixture: &F) {
    let place = Place::new(fixture).await;
    let (hook, token) = place.define(place.to_pipeline(), Some(SECRET)).await;
    let first = answer(place.signed(&token, SECRET, "msg_1", 0, &json!({ "n": 1 })).await);
    let again = place.hooks.redeliver(&place.world.owner, hook.id, first.delivery).await.unwrap();
    assert!(again.run.is_some() && again.run != first.run && !again.is_repeated);
    let run = place.world.runs.find::<right::Read>(&place.world.owner, again.run.unwrap()).await.unwrap();
    assert_eq!((&run.input, &run.trigger["user_id"]), (&json!({ "n": 1 }), &json!(place.world.owner.user)));
    let map = json!({ "twice": "${{ body.n * 2 }}", "of": "${{ delivery.redelivery_of }}" });
    let change = |hook: &Hook| SubmittedHook { map: Some(map.clone()), ..SubmittedHook::of(hook) };
    place.hooks.change(&place.world.owner, hook.id, &SecretChange::default(), change).await.unwrap();
    let third = place.hooks.redeliver(&place.world.owner, hook.id, again.delivery).await.unwrap();
    let run = place.world.runs.find::<right::Read>(&place.world.owner, third.run.unwrap()).await.unwrap();
    assert_eq!(run.input, json!({ "twice": 2, "of": first.delivery }));
    place.world.change(false, None).await;
    let refused = place.hooks.redeliver(&place.world.owner, hook.id, first.delivery).await.unwrap();
    assert_eq!(
        (refused.outcome, refused.reason.as_deref()),
        (DeliveryOutcome::Refused, Some("not_startable"))
    );
    let ledger = place.ledger(&hook).await;
    assert_eq!(ledger.len(), 4);
    assert!(ledger[..3].iter().all(|entry| entry.redelivery_of == Some(first.delivery)), "{ledger:?}");
    assert!(ledger.iter().all(|entry| entry.key.as_deref() == Some("msg_1") && entry.n_repeats == 0));
    let missing =
        place.hooks.redeliver(&place.world.owner, hook.id, gathering_domain::DeliveryId::new()).await;
    assert!(matches!(missing, Err(ControlError::NotFound)), "{missing:?}");
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
