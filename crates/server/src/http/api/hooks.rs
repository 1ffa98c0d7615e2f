//! Hooks: created, listed, shown, changed, deleted.

pub(crate) mod deliveries;
pub(crate) mod receive;
mod view;

use actix_web::{HttpRequest, HttpResponse, web};
use gathering_control::{DefineHook, Hook, HookControl, SecretChange, SubmittedHook, right};
use gathering_domain::{HookId, ProjectId, Secret};
use gathering_tools::WebhookScheme;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::http::api::lists;
use crate::http::api::words::WebhookSchemeSchema;
use gathering_edge::body::Body;
use gathering_edge::caller::Authenticated;
use gathering_edge::idempotency::keyed_body;
use gathering_edge::input::{self, Input};
use gathering_edge::page::{Page, PageQuery};
use gathering_edge::problem::ProblemDetails;
use gathering_edge::query::Query;
use gathering_edge::values::{AnyObject, Word, one_line, one_line_or_null, trimmed, trimmed_or_null};
pub(crate) use receive::HookLimits;
use view::{CreatedHookView, HookView};

const MAX_NAME: usize = 200;

/// How calls are verified.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerificationInput {
    #[schema(value_type = WebhookSchemeSchema)]
    scheme: Word<WebhookScheme>,
    /// The header of the scheme `token`.
    #[schema(required = false, default = "X-Hook-Token", min_length = 1, max_length = 64)]
    header: Option<String>,
}

/// A hook to be created.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateHook {
    /// Absent: the caller's default project.
    #[schema(required = false)]
    project_id: Option<Uuid>,
    /// 1 to 200 characters.
    #[schema(schema_with = one_line::<MAX_NAME>)]
    #[serde(deserialize_with = "trimmed")]
    name: String,
    /// What a call becomes: `{event_type}` or `{pipeline_id, version?}`.
    #[schema(value_type = AnyObject)]
    target: Value,
    /// The secret that the sender signs with. No answer shows it.
    #[schema(value_type = Option<String>, required = false)]
    secret: Option<Secret>,
    /// How calls are verified. Absent: by Standard Webhooks if there is a secret, else not at all.
    #[schema(required = false)]
    verification: Option<VerificationInput>,
    /// A filter: an expression over `headers`, `body` and `delivery`.
    #[schema(required = false)]
    when: Option<String>,
    /// The run's input, or the event's data, with expressions in `${{ }}`. Absent: the body.
    #[schema(required = false)]
    map: Option<Value>,
    /// A larger body is refused.
    #[schema(required = false, minimum = 1, maximum = 1_048_576, default = 262_144)]
    max_body_bytes: Option<u32>,
    /// More calls are refused, by each instance.
    #[schema(required = false, minimum = 1, maximum = 60_000, default = 600)]
    max_per_minute: Option<u32>,
    /// Whether it accepts calls.
    #[schema(required = false, default = true)]
    enabled: Option<bool>,
}

impl Input for CreateHook {}

/// What to change of a hook; what is absent stays, and null takes a filter or a mapping away.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangeHook {
    /// 1 to 200 characters.
    #[schema(schema_with = one_line_or_null::<MAX_NAME>, required = false)]
    #[serde(default, deserialize_with = "trimmed_or_null")]
    name: Option<String>,
    /// What a call becomes.
    #[schema(value_type = Option<AnyObject>, required = false)]
    target: Option<Value>,
    /// A new secret. The one before is accepted, too, until it is retired or another one comes.
    #[schema(value_type = Option<String>, required = false)]
    secret: Option<Secret>,
    /// From now on only the latest secret is accepted.
    #[schema(required = false, default = false)]
    retire_secret: Option<bool>,
    /// Another scheme needs another secret.
    #[schema(required = false)]
    verification: Option<VerificationInput>,
    /// A filter.
    #[schema(required = false)]
    when: Option<String>,
    /// The run's input, or the event's data.
    #[schema(required = false)]
    map: Option<Value>,
    /// A larger body is refused.
    #[schema(required = false, minimum = 1, maximum = 1_048_576)]
    max_body_bytes: Option<u32>,
    /// More calls are refused, by each instance.
    #[schema(required = false, minimum = 1, maximum = 60_000)]
    max_per_minute: Option<u32>,
    /// Whether it accepts calls.
    #[schema(required = false)]
    enabled: Option<bool>,
}

impl Input for ChangeHook {}

impl ChangeHook {
    /// The hook as the change makes it. `sent` tells null from absent.
    fn of(&self, hook: &Hook, sent: &Map<String, Value>) -> SubmittedHook {
        let mut changed = SubmittedHook::of(hook);
        changed.name = self.name.clone().unwrap_or(changed.name);
        changed.target = self.target.clone().unwrap_or(changed.target);
        changed.enabled = self.enabled.unwrap_or(changed.enabled);
        changed.max_body_bytes = self.max_body_bytes.or(changed.max_body_bytes);
        changed.max_per_minute = self.max_per_minute.or(changed.max_per_minute);
        if let Some(VerificationInput { scheme: Word(scheme), header }) = &self.verification {
            (changed.scheme, changed.header) = (Some(*scheme), header.clone());
        }
        if sent.contains_key("when") {
            changed.when = self.when.clone();
        }
        if sent.contains_key("map") {
            changed.map = self.map.clone();
        }
        changed
    }
}

/// Which hooks to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListHooks {
    /// Only of this project.
    project_id: Option<Uuid>,
}

/// Creates a hook. Only this answer shows its token, the last part of its address. The caller must also be allowed to run
/// things in the project.
#[utoipa::path(post, path = "/api/v1/hooks", tag = "hooks", operation_id = "create_hook", params(
    ("Idempotency-Key" = Option<String>, Header, description = "For 24 hours the same key creates one hook: a repeated request is refused, as its token cannot be shown again"),
), request_body = CreateHook, responses(
    (status = 201, body = CreatedHookView),
    (status = 404, description = "No such project"),
    (status = 409, description = "The idempotency key was used before"),
))]
pub(crate) async fn create(
    hooks: web::Data<HookControl>,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let (value, source) = body.value()?;
    let once = keyed_body(&request, &value)?;
    let created = source.placing(async {
        let create: CreateHook = input::read(value)?;
        let (scheme, header) = create.verification.map(|given| (given.scheme.0, given.header)).unzip();
        let hook = SubmittedHook {
            scheme,
            header: header.flatten(),
            when: create.when,
            map: create.map,
            max_body_bytes: create.max_body_bytes,
            max_per_minute: create.max_per_minute,
            enabled: create.enabled.unwrap_or(true),
            ..SubmittedHook::new(create.name, create.target)
        };
        let project = create.project_id.map(ProjectId::from);
        Ok(hooks.define(&caller, DefineHook { project, hook, secret: create.secret, once }).await?)
    });
    let (hook, token) = created.await?;
    let location = format!("/api/v1/hooks/{}", hook.id);
    let view = CreatedHookView::of(hook, &token);
    Ok(HttpResponse::Created().insert_header(("location", location)).json(view))
}

/// The hooks that the caller may see, the newest first.
#[utoipa::path(get, path = "/api/v1/hooks", tag = "hooks", operation_id = "list_hooks", params(ListHooks, PageQuery), responses(
    (status = 200, body = Page<HookView>),
))]
pub(crate) async fn list(
    hooks: web::Data<HookControl>,
    caller: Authenticated,
    query: Query<ListHooks>,
) -> Result<HttpResponse, ProblemDetails> {
    let (query, page) = query.read_page(lists::HOOKS)?;
    let project = query.project_id.map(ProjectId::from);
    let before = page.after::<HookId>();
    let rows = hooks.list(&caller.0, project, before, page.n_rows()).await?;
    Ok(HttpResponse::Ok().json(page.of(rows, |hook| hook.id.as_uuid(), HookView::from)))
}

/// One hook.
#[utoipa::path(get, path = "/api/v1/hooks/{id}", tag = "hooks", operation_id = "get_hook", params(("id" = Uuid, Path)), responses(
    (status = 200, body = HookView),
))]
pub(crate) async fn show(
    hooks: web::Data<HookControl>,
    caller: Authenticated,
    id: web::Path<HookId>,
) -> Result<HttpResponse, ProblemDetails> {
    let hook = hooks.find::<right::Read>(&caller.0, *id).await?.into_thing();
    Ok(HttpResponse::Ok().json(HookView::from(hook)))
}

/// Changes a hook. Its address stays.
#[utoipa::path(patch, path = "/api/v1/hooks/{id}", tag = "hooks", operation_id = "change_hook", params(("id" = Uuid, Path)), request_body = ChangeHook, responses(
    (status = 200, body = HookView),
))]
pub(crate) async fn change(
    hooks: web::Data<HookControl>,
    id: web::Path<HookId>,
    body: Body,
) -> Result<HttpResponse, ProblemDetails> {
    let (caller, body) = body.receive().await?;
    let (value, source) = body.value()?;
    let sent = value.as_object().cloned().unwrap_or_default();
    let hook = source.placing(async {
        let change: ChangeHook = input::read(value)?;
        let retire = change.retire_secret.unwrap_or_default();
        let secret = SecretChange { new: change.secret.clone(), retire };
        Ok(hooks.change(&caller, *id, &secret, |hook| change.of(hook, &sent)).await?)
    });
    Ok(HttpResponse::Ok().json(HookView::from(hook.await?)))
}

/// Deletes a hook with its ledger: its address is unknown from now on. Its runs and events stay.
#[utoipa::path(delete, path = "/api/v1/hooks/{id}", tag = "hooks", operation_id = "delete_hook", params(("id" = Uuid, Path)), responses(
    (status = 204, description = "It is gone"),
))]
pub(crate) async fn delete(
    hooks: web::Data<HookControl>,
    caller: Authenticated,
    id: web::Path<HookId>,
) -> Result<HttpResponse, ProblemDetails> {
    hooks.delete(&caller.0, *id).await?;
    Ok(HttpResponse::NoContent().finish())
}
