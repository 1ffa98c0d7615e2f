//! The runs of schedules, as they are accepted with the entries of the ledger.

use std::collections::HashSet;

use diesel_async::AsyncPgConnection;
use gathering_control::ScheduleStep;
use uuid::Uuid;

use crate::runs::accept::RunOrigin;
use crate::runs::transitions::insert::insert_all;

/// Accepts the runs of these steps: those in `entered`, and those that are no due time's. Answers with how many.
pub(crate) async fn accept(
    conn: &AsyncPgConnection,
    steps: &[ScheduleStep],
    entered: &HashSet<Uuid>,
) -> diesel::QueryResult<usize> {
    let mut accepted = Vec::new();
    for step in steps {
        let of_entries = step.entries.iter().filter_map(|entry| entry.run.as_ref());
        let of_entries = of_entries.filter(|run| entered.contains(&run.id.as_uuid()));
        for run in of_entries.chain(&step.extra_runs) {
            accepted.push((run.in_project(step.schedule.project), RunOrigin::of(run)));
        }
    }
    if !accepted.is_empty() {
        insert_all(conn, &accepted).await?;
    }
    Ok(accepted.len())
}
