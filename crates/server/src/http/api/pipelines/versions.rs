//! The versions of a pipeline, listed.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use gathering_control::{Definitions, PipelineControl, PipelineVersion};
use gathering_domain::PipelineId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::http::api::lists;
use gathering_edge::caller::Authenticated;
use gathering_edge::page::{Page, PageQuery};
use gathering_edge::problem::ProblemDetails;
use gathering_edge::query::Query;
use gathering_edge::values::AnyObject;

/// A version of a pipeline. It never changes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PipelineVersion)]
pub(crate) struct PipelineVersionView {
    /// From 1.
    version: i32,
    created_at: DateTime<Utc>,
    /// Who made it, if they still have an account.
    created_by: Option<Uuid>,
    /// As it was written; absent unless it is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = AnyObject, required = false)]
    definition: Option<Value>,
}

impl From<PipelineVersion> for PipelineVersionView {
    fn from(version: PipelineVersion) -> Self {
        Self {
            version: version.version,
            created_at: version.created_at,
            created_by: version.created_by.map(|user| user.as_uuid()),
            definition: version.definition,
        }
    }
}

/// Which versions to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListVersions {
    /// `true`: with their definitions; a page is shorter then when they are large. `false` by default.
    definitions: Option<bool>,
}

/// The versions of a pipeline, the latest first.
#[utoipa::path(get, path = "/api/v1/pipelines/{id}/versions", tag = "pipelines", operation_id = "list_pipeline_versions", params(("id" = Uuid, Path), ListVersions, PageQuery), responses(
    (status = 200, body = Page<PipelineVersionView>),
))]
pub(crate) async fn list(
    pipelines: web::Data<PipelineControl>,
    caller: Authenticated,
    id: web::Path<PipelineId>,
    query: Query<ListVersions>,
) -> Result<HttpResponse, ProblemDetails> {
    let (query, page) = query.read_page(lists::VERSIONS)?;
    let definitions =
        if query.definitions == Some(true) { Definitions::Included } else { Definitions::Omitted };
    // One that is too large for a version leads to the latest.
    let before = page.after().and_then(|key: Uuid| i32::try_from(key.as_u128()).ok());
    let found = pipelines.list_versions(&caller.0, *id, before, page.limit(), definitions).await?;
    let last = found.items.last().filter(|_| found.has_more);
    let key = last.and_then(|last| u128::try_from(last.version).ok()).map(Uuid::from_u128);
    let items: Vec<PipelineVersionView> = found.items.into_iter().map(Into::into).collect();
    Ok(HttpResponse::Ok().json(page.until(items, key)))
}
