//! Hooks and their deliveries as the API shows them.

use chrono::{DateTime, Utc};
use gathering_auth::HookToken;
use gathering_control::{DeliveryOutcome, Hook, HookAnswer, HookDelivery};
use gathering_tools::WebhookScheme;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::api::words::{DeliveryOutcomeSchema, DeliveryReasonSchema, WebhookSchemeSchema};
use gathering_edge::values::AnyObject;

/// How calls are verified.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HookVerification)]
pub(crate) struct VerificationView {
    #[schema(value_type = WebhookSchemeSchema)]
    scheme: &'static str,
    /// The header of the scheme `token`; null for the others.
    header: Option<String>,
    /// How many secrets are accepted: two while one is replaced.
    secrets: usize,
}

/// An address that other programs call, without its token and its secrets.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Hook)]
pub(crate) struct HookView {
    id: Uuid,
    project_id: Uuid,
    name: String,
    #[schema(value_type = AnyObject)]
    target: Value,
    verification: VerificationView,
    /// The filter.
    when: Option<String>,
    /// The run's input, or the event's data; null for the body.
    map: Option<Value>,
    max_body_bytes: u32,
    max_per_minute: u32,
    enabled: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Hook> for HookView {
    fn from(hook: Hook) -> Self {
        let Hook { id, project, spec, n_secrets, created_at, updated_at } = hook;
        let scheme = spec.verification.scheme;
        let header = (scheme == WebhookScheme::Token).then_some(spec.verification.header);
        Self {
            id: id.as_uuid(),
            project_id: project.as_uuid(),
            name: spec.name,
            target: spec.target.to_json(),
            verification: VerificationView { scheme: scheme.as_str(), header, secrets: n_secrets },
            when: spec.when,
            map: spec.map,
            max_body_bytes: spec.max_body_bytes,
            max_per_minute: spec.max_per_minute,
            enabled: spec.enabled,
            created_at,
            updated_at,
        }
    }
}

/// A hook that was just created.
#[derive(Serialize, ToSchema)]
#[schema(as = CreatedHook)]
pub(crate) struct CreatedHookView {
    #[serde(flatten)]
    hook: HookView,
    /// The last part of its address. Only this answer shows it.
    token: String,
    /// The path of its address.
    path: String,
}

impl CreatedHookView {
    pub(super) fn of(hook: Hook, token: &HookToken) -> Self {
        let token = token.expose().to_owned();
        Self { hook: hook.into(), path: format!("/api/v1/hooks/in/{token}"), token }
    }
}

/// What became of a call.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HookAnswer)]
pub(crate) struct AnswerView {
    delivery_id: Uuid,
    #[schema(value_type = DeliveryOutcomeSchema)]
    outcome: &'static str,
    /// Why nothing came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<DeliveryReasonSchema>, required = false)]
    reason: Option<String>,
    /// What is wrong, with its place in the hook.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    detail: Option<String>,
    /// The run that it started.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    run_id: Option<Uuid>,
    /// The place of the event that it became.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    event_seq: Option<i64>,
    /// Whether it came before, so that nothing was done now.
    repeated: bool,
}

impl From<HookAnswer> for AnswerView {
    fn from(answer: HookAnswer) -> Self {
        let HookAnswer { delivery, outcome, reason, detail, run, event, is_repeated } = answer;
        Self {
            delivery_id: delivery.as_uuid(),
            outcome: outcome.as_str(),
            reason,
            detail,
            run_id: run.map(|run| run.as_uuid()),
            event_seq: event,
            repeated: is_repeated,
        }
    }
}

/// An entry of the ledger of a hook.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HookDelivery)]
pub(crate) struct DeliveryView {
    id: Uuid,
    /// The sender's id of it.
    key: Option<String>,
    #[schema(value_type = DeliveryOutcomeSchema)]
    outcome: &'static str,
    /// Why nothing came of it.
    #[schema(value_type = Option<DeliveryReasonSchema>)]
    reason: Option<String>,
    /// What is wrong, with its place in the hook.
    detail: Option<String>,
    /// The run that it started.
    run_id: Option<Uuid>,
    /// The place of the event that it became.
    event_seq: Option<i64>,
    /// The first delivery, which this one sent again.
    redelivery_of: Option<Uuid>,
    /// The length of its body.
    size_bytes: i64,
    /// How often it came again.
    repeats: i64,
    /// For how many refused calls the entry stands.
    calls: i64,
    /// Whether it can be sent again.
    redeliverable: bool,
    received_at: DateTime<Utc>,
}

impl From<HookDelivery> for DeliveryView {
    fn from(delivery: HookDelivery) -> Self {
        Self {
            id: delivery.id.as_uuid(),
            key: delivery.key,
            outcome: DeliveryOutcome::as_str(delivery.outcome),
            reason: delivery.reason,
            detail: delivery.detail,
            run_id: delivery.run.map(|run| run.as_uuid()),
            event_seq: delivery.event,
            redelivery_of: delivery.redelivery_of.map(|first| first.as_uuid()),
            size_bytes: delivery.size_bytes,
            repeats: delivery.n_repeats,
            calls: delivery.n_calls,
            redeliverable: delivery.is_kept,
            received_at: delivery.received_at,
        }
    }
}
