//! When the next run becomes available.

use std::time::Duration;

use diesel::data_types::PgInterval;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{Bool, Double, Nullable};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::db::error::DatabaseError;
use crate::runs::permits::Lines;
use crate::runs::scan_window::ScanWindow;
use crate::runs::states::CLAIMABLE;
use crate::runs::transitions::claim::push_from;

/// When the next run becomes available. It reads the head of each priority's range, instead of all for the minimum.
#[derive(QueryId)]
struct NextAvailable {
    window: Option<PgInterval>,
}

/// The first request for a permit whose time comes, and the first key that has permits for its line.
const PERMITS: &str = " UNION ALL
    (SELECT available_at, true FROM permit_requests WHERE NOT in_line ORDER BY available_at LIMIT 1) UNION ALL
    (SELECT next_at, true FROM concurrency_keys WHERE is_ready ORDER BY next_at LIMIT 1)";

impl QueryFragment<Pg> for NextAvailable {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "SELECT extract(epoch FROM min(head.available_at) - now())::double precision AS seconds,
                 coalesce(bool_or(head.is_permit AND head.available_at <= now()), false) AS is_permit FROM (
                 (SELECT available_at, false AS is_permit FROM active_runs WHERE state = 'queued' AND epoch > 0 AND available_at IS NOT NULL
                  ORDER BY available_at LIMIT 1)
                 UNION ALL SELECT head.available_at, false
                 FROM generate_series(1, 10) AS level (priority) CROSS JOIN LATERAL (
                     SELECT available_at FROM active_runs WHERE state IN ",
        );
        out.push_sql(&CLAIMABLE);
        out.push_sql(" AND priority = level.priority AND available_at >= ");
        push_from(&mut out, &self.window)?;
        out.push_sql(" ORDER BY available_at LIMIT 1) AS head");
        out.push_sql(PERMITS);
        out.push_sql(") AS head");
        Ok(())
    }
}

impl Query for NextAvailable {
    type SqlType = (Nullable<Double>, Bool);
}

/// How long until a run can be claimed, by the database's clock; zero if one can be claimed now.
pub(crate) async fn next_available_in(
    mut conn: &AsyncPgConnection,
    window: &ScanWindow,
    lines: &Lines,
) -> Result<Option<Duration>, DatabaseError> {
    let scan = window.begin_question();
    let (seconds, is_permit): (Option<f64>, bool) = NextAvailable { window: scan.window() }
        .get_result(&mut conn)
        .await
        .map_err(|error| DatabaseError::query("reading when the next run is available", error))?;
    if is_permit {
        lines.runs.note();
        lines.nodes.note();
    }
    // Below zero: it has been available for so long.
    let wait = seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO));
    Ok(window.answer(&scan, wait))
}
