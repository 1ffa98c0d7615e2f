//! What becomes of the calls of hooks: verified, filtered, mapped, acted upon once, entered in the ledger.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the cases are tests")]

use std::collections::HashSet;

use gathering_auth::HookToken;
use gathering_domain::RunKind;
use gathering_tools::WebhookScheme;
use serde_json::json;

use super::conflict;
use super::hooks::{OTHER_SECRET, Place, SECRET, answer, is_untrusted, refusal};
use crate::testing::ControlFixture;
use crate::{
    Conflict, ControlError, DeliveryOutcome, EventControl, EventFilter, Hook, HookAnswer, REFUSALS_PER_HOUR,
    RefusalReason, SecretChange, SubmittedHook, right,
};

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
    let repeated = answer(place.signed(&token, SECRET, "msg_1", 0, &json!({})).await);
    assert_eq!(repeated, HookAnswer { is_repeated: true, ..first.clone() }, "the first of its id");
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
    assert!(ledger.iter().all(|entry| entry.key.as_deref() == Some("msg_1")));
    assert_eq!(ledger.iter().map(|entry| entry.n_repeats).collect::<Vec<_>>(), [0, 0, 0, 1]);
    let missing =
        place.hooks.redeliver(&place.world.owner, hook.id, gathering_domain::DeliveryId::new()).await;
    assert!(matches!(missing, Err(ControlError::NotFound)), "{missing:?}");
}
