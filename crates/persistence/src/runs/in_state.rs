//! The filter of a page by the state of its runs.
//!
//! Few runs are active, and few end without success. Both have a table of their own, which is read in the order of the page:
//! a page of them never reads all the runs that succeeded.

use diesel::expression::{AppearsOnTable, Expression, SelectableExpression, ValidGrouping, is_aggregate};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Bool, Text, Uuid as SqlUuid};
use gathering_domain::{RunId, RunState};
use uuid::Uuid;

use crate::db::all_runs::all_runs;
use crate::runs::list::RunFilter;

/// That a run is one of the newest of a state other than `succeeded` that the filter lets through.
#[derive(Debug)]
pub(crate) struct InState {
    state: &'static str,
    is_active: bool,
    project: Option<Uuid>,
    pipeline: Option<Uuid>,
    schedule: Option<Uuid>,
    visible_to: Option<Uuid>,
    before: Uuid,
    limit: i64,
}

impl InState {
    /// The newest `limit`; `None` if the filter names no state, or `succeeded`, which most runs have.
    pub(crate) fn of(filter: &RunFilter, limit: i64) -> Option<Self> {
        let state = filter.state.filter(|state| *state != RunState::Succeeded)?;
        Some(Self {
            state: state.as_str(),
            is_active: !state.is_terminal(),
            project: filter.project.map(|id| id.as_uuid()),
            pipeline: filter.pipeline.map(|id| id.as_uuid()),
            schedule: filter.schedule.map(|id| id.as_uuid()),
            visible_to: filter.visible_to.map(|id| id.as_uuid()),
            before: filter.before.map_or(Uuid::max(), RunId::as_uuid),
            limit,
        })
    }
}

/// The projects that no account can see.
const HIDDEN: &str = "(SELECT id FROM projects WHERE workspace_path IS NOT NULL OR deleting_at IS NOT NULL)";

impl QueryFragment<Pg> for InState {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("all_runs.id = ANY (ARRAY(SELECT page.run_id FROM ");
        out.push_sql(if self.is_active { "active_runs" } else { "unsuccessful_runs" });
        out.push_sql(" AS page");
        if self.pipeline.is_some() || self.schedule.is_some() {
            out.push_sql(" JOIN runs AS run ON run.id = page.run_id");
        }
        out.push_sql(" WHERE page.project_id NOT IN ");
        out.push_sql(HIDDEN);
        out.push_sql(" AND page.state = ");
        out.push_bind_param::<Text, _>(&self.state)?;
        out.push_sql(" AND page.run_id < ");
        out.push_bind_param::<SqlUuid, _>(&self.before)?;
        for (condition, id) in [
            (" AND page.project_id = ", &self.project),
            (" AND run.pipeline_id = ", &self.pipeline),
            (" AND run.schedule_id = ", &self.schedule),
            (
                " AND page.project_id IN (SELECT project_id FROM project_members WHERE user_id = ",
                &self.visible_to,
            ),
        ] {
            if let Some(id) = id {
                out.push_sql(condition);
                out.push_bind_param::<SqlUuid, _>(id)?;
            }
        }
        if self.visible_to.is_some() {
            out.push_sql(")");
        }
        out.push_sql(" ORDER BY page.run_id DESC LIMIT ");
        out.push_bind_param::<BigInt, _>(&self.limit)?;
        out.push_sql("))");
        Ok(())
    }
}

impl QueryId for InState {
    type QueryId = ();
    /// It is found again by its text, which has as many forms as there are filters.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Expression for InState {
    type SqlType = Bool;
}

impl AppearsOnTable<all_runs::table> for InState {}

impl SelectableExpression<all_runs::table> for InState {}

impl ValidGrouping<()> for InState {
    type IsAggregate = is_aggregate::No;
}
