//! What every end of a run brings about in the database: its event, a wake-up of its parent, and the cancel requests of
//! its children.
//!
//! The functions give parts of a `WITH`. `source` is an earlier part of the same `WITH`, with the columns `id`,
//! `project_id`, `parent_run_id`, `state` and [`FACTS`] of the runs that the statement has changed; those of them whose state is
//! terminal have ended. A statement must not change a row twice, so nothing here touches a run of `source`.

use std::sync::LazyLock;

use gathering_domain::RunState;

use crate::runs::states::{ACTIVE, TERMINAL, WAKEABLE};

/// What the event of an end tells about the run, as a column of the statement that changes the row. Put together as text, as
/// each run pays for it: `json_build_object` takes several times as long. No part needs to be escaped.
pub(crate) const FACTS: &str = r#"('{"kind":"' || runs.kind || '"'
    || coalesce(',"pipeline_id":"' || runs.pipeline_id || '"', '')
    || coalesce(',"schedule_id":"' || runs.schedule_id || '"', '')
    || coalesce(',"parent_run_id":"' || runs.parent_run_id || '"', '')
    || coalesce(',"failure":"' || (runs.error ->> 'kind') || '"', '') || '}')::json AS facts"#;

/// Writes the events of the ends, and makes the parents available.
pub(crate) fn announce_and_wake_parents(source: &str) -> String {
    format!(
        "parent AS MATERIALIZED (
            SELECT id, available_at FROM runs
            WHERE id = ANY (ARRAY(SELECT parent_run_id FROM {source}
                                  WHERE parent_run_id IS NOT NULL AND state IN {terminal}))
                AND state IN {wakeable} AND id NOT IN (SELECT id FROM {source})
            ORDER BY id FOR NO KEY UPDATE
        ), woken AS (
            UPDATE runs SET available_at = clock_timestamp() FROM parent
            -- One wake-up is enough until the next claim: of many children only the first writes here. Only the locked
            -- row tells whether a claim came since this statement began.
            WHERE runs.id = parent.id AND (parent.available_at IS NULL OR parent.available_at > now())
        ), announced AS (
            INSERT INTO events (project_id, type, subject, data)
            SELECT project_id, 'run.' || state, id, facts FROM {source} WHERE state IN {terminal}
        )",
        terminal = *TERMINAL,
        wakeable = *WAKEABLE,
    )
}

/// Takes back the permits of the runs that have ended, and takes those out of their lines that had none. `source` must also
/// have the columns `permit_key` and `holds_permit`. The keys come after the parents: a statement that ends a parent has its
/// row, and waits for the key.
pub(crate) fn free_permits(source: &str) -> String {
    format!(
        "left_line AS (
            DELETE FROM permit_requests WHERE run_id = ANY (ARRAY(
                SELECT id FROM {source} WHERE permit_key IS NOT NULL AND NOT holds_permit AND state IN {terminal}))
            RETURNING key_id, in_line
        ), change AS (
            SELECT key_id, sum(held)::integer AS held, sum(waiting)::integer AS waiting FROM (
                SELECT permit_key, 1, 0 FROM {source}
                WHERE permit_key IS NOT NULL AND holds_permit AND state IN {terminal}
                UNION ALL SELECT key_id, 0, in_line::integer FROM left_line
            ) AS one (key_id, held, waiting) GROUP BY key_id
        ), changed_key AS MATERIALIZED (
            SELECT k.id FROM concurrency_keys AS k
            WHERE k.id = ANY (ARRAY(SELECT key_id FROM change)) AND (SELECT count(*) FROM parent) >= 0
            ORDER BY k.id FOR UPDATE
        ), freed AS (
            UPDATE concurrency_keys AS k SET held = k.held - change.held, waiting = k.waiting - change.waiting
            FROM change WHERE k.id = ANY (ARRAY(SELECT id FROM changed_key)) AND change.key_id = k.id
        )",
        terminal = *TERMINAL,
    )
}

/// Requests the cancellation of the children, and says which run ended how. Each tells its own children when it ends.
pub(crate) fn cancel_children(source: &str) -> String {
    format!(
        "abandoned AS (
            UPDATE runs SET cancel_requested_at = coalesce(cancel_requested_at, now()), available_at = clock_timestamp(),
                cancel_reason = CASE WHEN cancel_requested_at IS NULL THEN (
                    SELECT 'run ' || ended.id || CASE ended.state {phrases} END
                    FROM {source} AS ended WHERE ended.id = runs.parent_run_id
                ) ELSE cancel_reason END
            WHERE parent_run_id IN (SELECT id FROM {source} WHERE state IN {terminal})
                AND state IN {active} AND id NOT IN (SELECT id FROM {source})
        )",
        terminal = *TERMINAL,
        active = *ACTIVE,
        phrases = *PHRASES,
    )
}

/// The states in which a run has ended, each with what it says of a run.
static PHRASES: LazyLock<String> = LazyLock::new(|| {
    let phrase = |state: RunState| format!("WHEN '{state}' THEN ' {}'", state.as_clause());
    RunState::TERMINAL.map(phrase).join(" ")
});
