//! The audit record: security events, for admins to read.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use gathering_auth::{AuditFilter, AuditKind, AuditRecord, Auth};
use gathering_domain::UserId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::http::api::lists;
use crate::http::api::words::AuditKindSchema;
use gathering_edge::caller::Authenticated;
use gathering_edge::page::{Page, PageQuery};
use gathering_edge::problem::ProblemDetails;
use gathering_edge::query::Query;
use gathering_edge::values::{AnyObject, Word};

/// A security event.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEvent)]
pub(crate) struct AuditEventView {
    id: Uuid,
    #[schema(value_type = AuditKindSchema)]
    r#type: &'static str,
    /// The account that the event concerns; null when it is unknown.
    user_id: Option<Uuid>,
    /// The client's address; null without a network request.
    address: Option<String>,
    request_id: Option<Uuid>,
    /// More about the event; `by` is the account that acted, if it is another one.
    #[schema(value_type = AnyObject)]
    detail: Value,
    at: DateTime<Utc>,
}

impl From<AuditRecord> for AuditEventView {
    fn from(record: AuditRecord) -> Self {
        let AuditRecord { id, event, at } = record;
        Self {
            id: id.as_uuid(),
            r#type: event.kind.as_str(),
            user_id: event.user.map(|user| user.as_uuid()),
            address: event.origin.address.map(|address| address.to_string()),
            request_id: event.origin.request_id.map(|request| request.as_uuid()),
            detail: event.detail,
            at,
        }
    }
}

/// Which events to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListAuditEvents {
    /// Only about this account.
    user_id: Option<Uuid>,
    /// Only of this kind.
    #[param(value_type = Option<AuditKindSchema>, inline)]
    r#type: Option<Word<AuditKind>>,
    /// Not before this time.
    from: Option<DateTime<Utc>>,
    /// Before this time.
    to: Option<DateTime<Utc>>,
}

/// The security events, the newest first. For admins only.
#[utoipa::path(get, path = "/api/v1/audit/events", tag = "audit", operation_id = "list_audit_events", params(ListAuditEvents, PageQuery), responses(
    (status = 200, body = Page<AuditEventView>),
))]
pub(crate) async fn list(
    auth: web::Data<Auth>,
    caller: Authenticated,
    query: Query<ListAuditEvents>,
) -> Result<HttpResponse, ProblemDetails> {
    let (query, page) = query.read_page(lists::AUDIT_EVENTS)?;
    let filter = AuditFilter {
        user: query.user_id.map(UserId::from),
        kind: query.r#type.map(|Word(kind)| kind),
        from: query.from,
        to: query.to,
        before: page.after(),
    };
    let records = auth.audit_events(&caller.0, &filter, page.n_rows()).await?;
    let key = |record: &AuditRecord| record.id.as_uuid();
    Ok(HttpResponse::Ok().json(page.of(records, key, AuditEventView::from)))
}
