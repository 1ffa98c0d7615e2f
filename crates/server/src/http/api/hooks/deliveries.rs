//! The ledger of a hook, and sending a call again.

use actix_web::{HttpResponse, web};
use gathering_control::{DeliveryOutcome, HookControl};
use gathering_domain::{DeliveryId, HookId};

use super::view::{AnswerView, DeliveryView};
use crate::http::api::lists;
use gathering_edge::caller::Authenticated;
use gathering_edge::page::{NoFilter, Page, PageQuery};
use gathering_edge::problem::ProblemDetails;
use gathering_edge::query::Query;

/// The ledger of a hook: what became of each call, the latest first.
#[utoipa::path(get, path = "/api/v1/hooks/{id}/deliveries", tag = "hooks", operation_id = "list_hook_deliveries", params(("id" = Uuid, Path), PageQuery), responses(
    (status = 200, body = Page<DeliveryView>),
))]
pub(crate) async fn list(
    hooks: web::Data<HookControl>,
    caller: Authenticated,
    id: web::Path<HookId>,
    query: Query<NoFilter>,
) -> Result<HttpResponse, ProblemDetails> {
    let (_, page) = query.read_page(lists::HOOK_DELIVERIES)?;
    let before = page.after::<DeliveryId>();
    let rows = hooks.list_deliveries(&caller.0, *id, before, page.n_rows()).await?;
    Ok(HttpResponse::Ok().json(page.of(rows, |delivery| delivery.id.as_uuid(), DeliveryView::from)))
}

/// Has a call do again what the hook says now. That is a new delivery, which names the first.
#[utoipa::path(post, path = "/api/v1/hooks/{id}/deliveries/{delivery_id}/redeliver", tag = "hooks", operation_id = "redeliver_hook_delivery", params(("id" = Uuid, Path), ("delivery_id" = Uuid, Path)), responses(
    (status = 202, description = "It became an event, or started a run", body = AnswerView),
    (status = 200, description = "Nothing came of it", body = AnswerView),
    (status = 409, description = "The body of the call is not kept"),
))]
pub(crate) async fn redeliver(
    hooks: web::Data<HookControl>,
    caller: Authenticated,
    ids: web::Path<(HookId, DeliveryId)>,
) -> Result<HttpResponse, ProblemDetails> {
    let (hook, delivery) = *ids;
    let answer = hooks.redeliver(&caller.0, hook, delivery).await?;
    let mut response = match answer.outcome {
        DeliveryOutcome::Accepted => HttpResponse::Accepted(),
        DeliveryOutcome::Filtered | DeliveryOutcome::Refused => HttpResponse::Ok(),
    };
    Ok(response.json(AnswerView::from(answer)))
}
