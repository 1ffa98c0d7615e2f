//! How the children of one attempt stand, in one row.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Integer, Json, Nullable, Text, Uuid as SqlUuid};
use gathering_dag_engine::{ChildSummary, Parent};
use serde_json::Value;
use uuid::Uuid;

use super::{into_unsuccessful, signed, unsigned};
use crate::db::error::DatabaseError;

/// The summary of a node's children: one row, with the first child that did not succeed.
#[derive(QueryId)]
pub(super) struct CountChildren {
    parent: Uuid,
    node: String,
    round: i32,
}

pub(super) type Counted = (Option<i32>, i64, i64, Option<Uuid>, Option<i32>, Option<String>, Option<Value>);

impl CountChildren {
    /// The summary of the children of this attempt.
    pub(super) fn of(parent: &Parent) -> Self {
        Self {
            parent: parent.run.as_uuid(),
            node: parent.node.as_str().to_owned(),
            round: signed(parent.round),
        }
    }
}

impl Query for CountChildren {
    type SqlType = (
        Nullable<Integer>,
        BigInt,
        BigInt,
        Nullable<SqlUuid>,
        Nullable<Integer>,
        Nullable<Text>,
        Nullable<Json>,
    );
}

impl QueryFragment<Pg> for CountChildren {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "WITH unfinished AS MATERIALIZED (SELECT * FROM (SELECT run.id, run.state, run.is_active,
                 (SELECT item FROM child_runs WHERE run_id = run.id AND node_id = ",
        );
        out.push_bind_param::<Text, _>(&self.node)?;
        out.push_sql(" AND round = ");
        out.push_bind_param::<Integer, _>(&self.round)?;
        out.push_sql(") AS item FROM (");
        // The parent's id is a constant in each place, so that the indexes are used.
        out.push_sql("SELECT run_id AS id, state, true AS is_active FROM active_runs WHERE parent_run_id = ");
        out.push_bind_param::<SqlUuid, _>(&self.parent)?;
        out.push_sql(" UNION ALL SELECT run_id, state, false FROM unsuccessful_runs WHERE parent_run_id = ");
        out.push_bind_param::<SqlUuid, _>(&self.parent)?;
        out.push_sql(") AS run) AS of_parent WHERE item IS NOT NULL");
        out.push_sql(") SELECT (SELECT max(item) FROM child_runs WHERE parent_run_id = ");
        out.push_bind_param::<SqlUuid, _>(&self.parent)?;
        out.push_sql(" AND node_id = ");
        out.push_bind_param::<Text, _>(&self.node)?;
        out.push_sql(" AND round = ");
        out.push_bind_param::<Integer, _>(&self.round)?;
        // A child may have been cancelled because another failed.
        out.push_sql(
            "), (SELECT count(*) FROM unfinished WHERE is_active), (SELECT count(*) FROM unfinished WHERE NOT is_active),
            first.id, first.item, first.state, (SELECT error FROM runs WHERE runs.id = first.id)
            FROM (SELECT) AS one LEFT JOIN (
                SELECT id, item, state FROM unfinished WHERE NOT is_active
                ORDER BY state = 'cancelled', item LIMIT 1
            ) AS first ON true",
        );
        Ok(())
    }
}

pub(super) fn into_summary(counted: Counted) -> Result<ChildSummary, DatabaseError> {
    let (last_item, n_unfinished, n_unsuccessful, run, item, state, error) = counted;
    let unsuccessful = match (run, item, state) {
        (Some(run), Some(item), Some(state)) => Some(into_unsuccessful((run, item, state, error))?),
        _ => None,
    };
    // Items are started in order, without gaps: the last one tells how many there are.
    let n_started = last_item.map_or(0, |item| unsigned(item).saturating_add(1));
    Ok(ChildSummary {
        n_started,
        n_unfinished: u32::try_from(n_unfinished).unwrap_or(u32::MAX),
        n_unsuccessful: u32::try_from(n_unsuccessful).unwrap_or(u32::MAX),
        unsuccessful,
    })
}
