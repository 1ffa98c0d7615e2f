//! What a trusted call is to do: filter, mapping, and what the rules of events and inputs say of the result.

use gathering_dag_engine::check_value;
use gathering_domain::{DeliveryId, Pointer, Problems};
use gathering_tools::WebhookScheme;
use serde_json::{Value, json};

use super::call::Call;
use super::rules::Rules;
use super::{FilterReason, Hook, HookTarget, PlannedAct, RefusalReason};
use crate::events::{EventType, NewEvent, PostEvent, read_cloud_event};

/// The longest detail that the ledger has.
const MAX_DETAIL_BYTES: usize = 1000;

/// Why a trusted call does nothing, and where.
pub(super) type Refused = (RefusalReason, String);

/// What a call is to do.
pub(super) fn decide(
    hook: &Hook,
    call: &Call,
    key: Option<&str>,
    redelivery_of: Option<DeliveryId>,
) -> Result<PlannedAct, Refused> {
    if let Some(reason) = handshake(hook.spec.verification.scheme, call) {
        return Ok(PlannedAct::Nothing(reason));
    }
    let delivery = json!({ "hook_id": hook.id, "key": key, "redelivery_of": redelivery_of });
    let values = [("headers", &call.headers), ("body", &call.body), ("delivery", &delivery)];
    let mut problems = Problems::new();
    let rules = Rules::compile(hook.spec.when.as_deref(), hook.spec.map.as_ref(), &mut problems);
    problems.into_result().map_err(|problems| refused(RefusalReason::Expression, &problems))?;
    if let Some(when) = &rules.when {
        match when.evaluate_over(&values) {
            Ok(Value::Bool(true)) => {}
            Ok(Value::Bool(false)) => return Ok(PlannedAct::Nothing(FilterReason::When)),
            Ok(_) => return Err(refused(RefusalReason::Expression, &"/when: must be true or false")),
            Err(error) => return Err(refused(RefusalReason::Expression, &format!("/when: {error}"))),
        }
    }
    let mapped = match &rules.map {
        Some(map) => {
            let mapped = map.resolve(&values, &Pointer::root().join("map"));
            Some(mapped.map_err(|error| refused(RefusalReason::Expression, &error))?)
        }
        None => None,
    };
    act(&hook.spec.target, call, mapped)
}

/// The handshakes by which senders try an address.
fn handshake(scheme: WebhookScheme, call: &Call) -> Option<FilterReason> {
    match scheme {
        WebhookScheme::GitHub if call.header("x-github-event") == Some("ping") => Some(FilterReason::Ping),
        WebhookScheme::Slack if challenge(call).is_some() => Some(FilterReason::Challenge),
        _ => None,
    }
}

/// The text that Slack wants to have repeated.
pub(super) fn challenge(call: &Call) -> Option<&str> {
    let is_challenge = call.body.get("type")?.as_str() == Some("url_verification");
    call.body.get("challenge")?.as_str().filter(|_| is_challenge)
}

fn act(target: &HookTarget, call: &Call, mapped: Option<Value>) -> Result<PlannedAct, Refused> {
    let of_cloud_event = || call.is_cloud_event.then(|| call.body.get("data").cloned().unwrap_or_default());
    let value = mapped.or_else(of_cloud_event).unwrap_or_else(|| call.body.clone());
    match target {
        HookTarget::Event(event_type) => Ok(PlannedAct::Event(Box::new(event(event_type, call, value)?))),
        HookTarget::Pipeline { pipeline, version } => {
            check_value(&value)
                .map_err(|limit| refused(RefusalReason::Invalid, &format!("/map: {limit}")))?;
            Ok(PlannedAct::Run { pipeline: *pipeline, version: *version, input: value })
        }
    }
}

/// The event of the hook's type. A CloudEvent keeps its other attributes, so that one is in the log once.
fn event(event_type: &EventType, call: &Call, data: Value) -> Result<NewEvent, Refused> {
    let root = Pointer::root();
    let mut problems = Problems::new();
    let read = match call.is_cloud_event {
        true => read_cloud_event(call.body.clone(), &root, &mut problems),
        false => Some(PostEvent::default()),
    };
    let posted = read.map(|event| PostEvent { event_type: event_type.to_string(), data, ..event });
    let checked = posted.and_then(|event| event.check(&root, &mut problems));
    checked.ok_or_else(|| refused(RefusalReason::Invalid, &problems))
}

fn refused(reason: RefusalReason, detail: &dyn std::fmt::Display) -> Refused {
    let mut detail = detail.to_string().replace('\0', "\u{fffd}");
    detail.truncate(detail.floor_char_boundary(MAX_DETAIL_BYTES));
    (reason, detail)
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use gathering_domain::{HookId, PipelineId, ProjectId};

    use super::*;
    use crate::hooks::{HookSpec, HookVerification};

    fn hook(target: HookTarget, scheme: WebhookScheme, when: Option<&str>, map: Option<Value>) -> Hook {
        let spec = HookSpec {
            name: "h".to_owned(),
            target,
            verification: HookVerification { scheme, header: String::new() },
            when: when.map(str::to_owned),
            map,
            max_body_bytes: 1,
            max_per_minute: 1,
            enabled: true,
        };
        let (id, project, now) = (HookId::new(), ProjectId::new(), Utc::now());
        Hook { id, project, spec, n_secrets: 0, created_at: now, updated_at: now }
    }

    fn call(headers: Value, body: Value) -> Call {
        Call { headers, body, is_cloud_event: false }
    }

    fn to_pipeline() -> HookTarget {
        HookTarget::Pipeline { pipeline: PipelineId::new(), version: None }
    }

    fn to_event() -> HookTarget {
        HookTarget::Event("push.received".parse().unwrap())
    }

    fn input(act: PlannedAct) -> Value {
        match act {
            PlannedAct::Run { input, .. } => input,
            PlannedAct::Event(event) => event.data,
            PlannedAct::Nothing(reason) => panic!("{reason}"),
        }
    }

    #[test]
    fn a_call_is_filtered_and_mapped() {
        let map = json!({ "branch": "${{ body.ref }}", "by": "${{ headers.from }} ${{ delivery.key }}" });
        let hook = hook(to_pipeline(), WebhookScheme::None, Some("body.ref != 'x'"), Some(map));
        let mapped =
            decide(&hook, &call(json!({ "from": "ada" }), json!({ "ref": "main" })), Some("d1"), None);
        assert_eq!(input(mapped.unwrap()), json!({ "branch": "main", "by": "ada d1" }));
        let filtered = decide(&hook, &call(json!({}), json!({ "ref": "x" })), None, None);
        assert_eq!(filtered.unwrap(), PlannedAct::Nothing(FilterReason::When));
        let (reason, detail) = decide(&hook, &call(json!({}), json!({})), None, None).unwrap_err();
        assert_eq!(reason, RefusalReason::Expression);
        assert!(detail.starts_with("/when: ") && detail.contains("ref"), "{detail}");
        let (reason, detail) =
            decide(&hook, &call(json!({}), json!({ "ref": "y" })), None, None).unwrap_err();
        assert_eq!(reason, RefusalReason::Expression);
        assert!(detail.starts_with("/map/by: "), "{detail}");
    }

    #[test]
    fn a_filter_is_true_or_false() {
        let hook = hook(to_pipeline(), WebhookScheme::None, Some("body.n"), None);
        let (reason, detail) = decide(&hook, &call(json!({}), json!({ "n": 1 })), None, None).unwrap_err();
        assert_eq!((reason, detail.as_str()), (RefusalReason::Expression, "/when: must be true or false"));
    }

    #[test]
    fn without_a_mapping_the_body_is_taken_and_of_a_cloud_event_its_data() {
        for target in [to_pipeline(), to_event()] {
            let hook = hook(target, WebhookScheme::None, None, None);
            let body = json!([1, { "a": null }]);
            assert_eq!(input(decide(&hook, &call(json!({}), body.clone()), None, None).unwrap()), body);
            let body = json!({
                "specversion": "1.0", "id": "1", "source": "/s", "type": "Any Type", "subject": "x",
                "data": { "n": 1 },
            });
            let cloud_event = Call { is_cloud_event: true, ..call(json!({}), body) };
            let act = decide(&hook, &cloud_event, None, None).unwrap();
            if let PlannedAct::Event(event) = &act {
                assert_eq!((event.event_type.as_str(), event.key.as_deref()), ("push.received", Some("1")));
                assert_eq!((event.source.as_deref(), event.subject.as_deref()), (Some("/s"), Some("x")));
            }
            assert_eq!(input(act), json!({ "n": 1 }));
        }
    }

    #[test]
    fn what_is_no_event_is_refused_with_the_reason() {
        let hook = hook(to_event(), WebhookScheme::None, None, None);
        let large = call(json!({}), json!("x".repeat(crate::MAX_EVENT_DATA_BYTES)));
        let (reason, detail) = decide(&hook, &large, None, None).unwrap_err();
        assert_eq!(reason, RefusalReason::Invalid);
        assert!(detail.contains("/data: has more than"), "{detail}");
    }

    #[test]
    fn handshakes_start_nothing() {
        let github = hook(to_pipeline(), WebhookScheme::GitHub, Some("false"), None);
        let ping = decide(&github, &call(json!({ "x-github-event": "ping" }), json!({})), None, None);
        assert_eq!(ping.unwrap(), PlannedAct::Nothing(FilterReason::Ping));
        let slack = hook(to_pipeline(), WebhookScheme::Slack, None, None);
        let body = json!({ "type": "url_verification", "challenge": "abc" });
        let asked = decide(&slack, &call(json!({}), body.clone()), None, None).unwrap();
        assert_eq!(asked, PlannedAct::Nothing(FilterReason::Challenge));
        let unverified = hook(to_pipeline(), WebhookScheme::None, None, None);
        assert_eq!(input(decide(&unverified, &call(json!({}), body.clone()), None, None).unwrap()), body);
    }

    #[test]
    fn a_detail_is_bounded_and_can_be_stored() {
        let (_, detail) = refused(RefusalReason::Invalid, &format!("\0{}", "ä".repeat(1000)));
        assert!(detail.len() <= MAX_DETAIL_BYTES && !detail.contains('\0'));
    }
}
