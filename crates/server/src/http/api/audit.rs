//! The audit record: what concerned security, for admins to read.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use gathering_auth::{AuditFilter, AuditRecord, authorize_admin};
use gathering_domain::Problems;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::http::edge::caller::Authenticated;
use crate::http::edge::page::{self, List, Page};
use crate::http::edge::problem::{Problem, ProblemView};
use crate::http::edge::query::Query;
use crate::http::state::AppState;

/// Something that was recorded for good.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEvent)]
pub(crate) struct AuditEventView {
    id: Uuid,
    /// What happened, such as `login_failed`.
    r#type: &'static str,
    /// The account that it concerns; absent when it is unknown.
    user_id: Option<Uuid>,
    /// The client's address; absent when it was no network request.
    address: Option<String>,
    request_id: Option<Uuid>,
    /// What else is worth knowing; `by` is who did it, where that is somebody else.
    #[schema(value_type = Object)]
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
    user_id: Option<String>,
    /// Only of this type.
    r#type: Option<String>,
    /// Not before this time (RFC 3339).
    from: Option<String>,
    /// Before this time (RFC 3339).
    to: Option<String>,
    /// 1 to 200; 50 by default.
    limit: Option<String>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// What concerned security, the newest first. For admins only.
#[utoipa::path(get, path = "/api/v1/audit/events", tag = "audit", operation_id = "list_audit_events", params(ListAuditEvents), responses(
    (status = 200, body = Page<AuditEventView>),
    (status = 403, body = ProblemView, content_type = "application/problem+json"),
    (status = 422, body = ProblemView, content_type = "application/problem+json"),
))]
pub(crate) async fn list(
    state: web::Data<AppState>,
    caller: Authenticated,
    query: Query<ListAuditEvents>,
) -> Result<HttpResponse, Problem> {
    authorize_admin(&caller.0)?;
    let query = query.read()?;
    let mut problems = Problems::new();
    let limit = page::limit(query.limit.as_deref(), &mut problems);
    let filter = AuditFilter {
        user: page::id("user_id", query.user_id.as_deref(), &mut problems),
        kind: page::id("type", query.r#type.as_deref(), &mut problems),
        from: page::time("from", query.from.as_deref(), &mut problems),
        to: page::time("to", query.to.as_deref(), &mut problems),
        before: page::cursor(List::AuditEvents, query.cursor.as_deref(), &mut problems).map(Into::into),
    };
    problems.into_result().map_err(Problem::invalid)?;
    let records = state.auth.audit_events(&caller.0, &filter, limit + 1).await?;
    let key = |record: &AuditRecord| record.id.as_uuid();
    let page = Page::of(List::AuditEvents, records, limit, key, AuditEventView::from);
    Ok(HttpResponse::Ok().json(page))
}
