//! What every end of a run brings about in the database: how it ended, its event, a wake-up of its parent, and the cancel
//! requests of its children.
//!
//! What is here are parts of a `WITH`. An end begins with the part `gone`, which deletes rows of `active_runs` and returns
//! [`GONE`] of them, with what the run keeps: `epoch`, `recoveries`, `cancel_requested_at`, `state`, `output` and `error`.
//! [`END`] makes the part `ended` of it, on which the others stand. A statement must not change a row twice, so nothing
//! here touches the runs of `changed`: a `SELECT` of the ids of all that the statement has changed.

use std::sync::LazyLock;

use gathering_domain::RunState;

use crate::runs::states::WAKEABLE;

/// What every end needs of the row that it deletes, which is called `active`.
pub(crate) const GONE: &str =
    "active.run_id AS id, active.started_at, active.permit_key, active.holds_permit";

/// What the event of an end tells about the run, as a column of the statement that changes the row. Put together as text, as
/// each run pays for it: `json_build_object` takes several times as long. No part needs to be escaped.
const FACTS: &str = r#"('{"kind":"' || runs.kind || '"'
    || coalesce(',"pipeline_id":"' || runs.pipeline_id || '"', '')
    || coalesce(',"schedule_id":"' || runs.schedule_id || '"', '')
    || coalesce(',"parent_run_id":"' || runs.parent_run_id || '"', '')
    || coalesce(',"failure":"' || (runs.error ->> 'kind') || '"', '') || '}')::json AS facts"#;

/// Ends the runs of the part `gone`: writes how, and the events.
pub(crate) static END: LazyLock<String> = LazyLock::new(|| {
    format!(
        "ended AS (
            UPDATE runs SET state = gone.state, output = gone.output, error = gone.error, ended_at = now(),
                epoch = gone.epoch, recoveries = gone.recoveries, cancel_requested_at = gone.cancel_requested_at,
                started_at = gone.started_at
            FROM gone WHERE runs.id = ANY (ARRAY(SELECT id FROM gone)) AND runs.id = gone.id
            RETURNING runs.id, runs.project_id, runs.parent_run_id, runs.schedule_id, runs.state, gone.permit_key,
                gone.holds_permit, {FACTS}
        ), unsuccessful AS (
            INSERT INTO unsuccessful_runs (run_id, project_id, parent_run_id, state)
            SELECT id, project_id, parent_run_id, state FROM ended WHERE state <> 'succeeded'
        ), announced AS (
            INSERT INTO events (project_id, type, subject, data)
            SELECT project_id, 'run.' || state, id, facts FROM ended
        )"
    )
});

/// Makes the parents of the runs that have ended available, where a wake-up changes anything.
pub(crate) fn wake_parents(changed: &str) -> String {
    format!(
        "parent AS MATERIALIZED (
            SELECT run_id AS id, available_at FROM active_runs
            WHERE run_id = ANY (ARRAY(SELECT parent_run_id FROM ended WHERE parent_run_id IS NOT NULL))
                AND state IN {wakeable} AND run_id NOT IN ({changed})
            ORDER BY run_id FOR NO KEY UPDATE
        ), woken AS (
            -- One wake-up is enough until the next claim: of many children only the first writes here. Only the locked
            -- row tells whether a claim came since this statement began.
            UPDATE active_runs SET available_at = clock_timestamp() WHERE run_id = ANY (ARRAY(
                SELECT id FROM parent WHERE available_at IS NULL OR available_at > now()))
        )",
        wakeable = *WAKEABLE,
    )
}

/// Stands for the part `free` where no permits of nodes are given back but those of runs that have ended.
pub(crate) const NO_NODES: &str = "free AS (SELECT NULL::uuid AS run_id, NULL::text AS node_id WHERE false)";

/// Takes back the permits of the runs that have ended, and those of the nodes of the part `free`; takes those out of their
/// lines that had none. The keys come after the parents, the part `parent`: a statement that ends a parent has its row, and
/// waits for the key. The permits of nodes come after the keys: a claim that serves a line has the key, and then gives them.
pub(crate) const FREE_PERMITS: &str = "left_line AS (
        DELETE FROM permit_requests WHERE run_id = ANY (ARRAY(
            SELECT id FROM ended WHERE permit_key IS NOT NULL AND NOT holds_permit))
        RETURNING key_id, in_line
    ), of_node AS MATERIALIZED (
        SELECT run_id, node_id, key_id FROM node_permits WHERE run_id = ANY (ARRAY(SELECT id FROM ended))
        UNION SELECT p.run_id, p.node_id, p.key_id
        FROM free JOIN node_permits AS p ON p.run_id = free.run_id AND p.node_id = free.node_id
    ), changed_key AS MATERIALIZED (
        SELECT k.id FROM concurrency_keys AS k
        WHERE k.id = ANY (ARRAY(
                SELECT permit_key FROM ended WHERE permit_key IS NOT NULL
                UNION SELECT key_id FROM left_line UNION SELECT key_id FROM of_node))
            AND (SELECT count(*) FROM parent) >= 0
        ORDER BY k.id FOR UPDATE
    ), given_back AS (
        DELETE FROM node_permits AS p USING of_node
        WHERE p.run_id = ANY (ARRAY(SELECT run_id FROM of_node))
            AND p.run_id = of_node.run_id AND p.node_id = of_node.node_id AND (SELECT count(*) FROM changed_key) >= 0
        RETURNING p.key_id, p.is_held
    ), change AS (
        SELECT key_id, sum(held)::integer AS held, sum(waiting)::integer AS waiting FROM (
            SELECT permit_key, 1, 0 FROM ended WHERE permit_key IS NOT NULL AND holds_permit
            UNION ALL SELECT key_id, 0, in_line::integer FROM left_line
            UNION ALL SELECT key_id, is_held::integer, (NOT is_held)::integer FROM given_back
        ) AS one (key_id, held, waiting) GROUP BY key_id
    ), freed AS (
        UPDATE concurrency_keys AS k SET held = k.held - change.held, waiting = k.waiting - change.waiting
        FROM change WHERE k.id = ANY (ARRAY(SELECT id FROM changed_key)) AND change.key_id = k.id
    )";

/// Requests the cancellation of the children, and says which run ended how. Each tells its own children when it ends.
pub(crate) fn cancel_children(changed: &str) -> String {
    format!(
        "abandoned AS (
            UPDATE active_runs AS child SET cancel_requested_at = coalesce(cancel_requested_at, now()),
                available_at = clock_timestamp(),
                cancel_reason = CASE WHEN cancel_requested_at IS NULL THEN (
                    SELECT 'run ' || ended.id || CASE ended.state {phrases} END
                    FROM ended WHERE ended.id = child.parent_run_id
                ) ELSE cancel_reason END
            WHERE child.parent_run_id IN (SELECT id FROM ended) AND child.run_id NOT IN ({changed})
        )",
        phrases = *PHRASES,
    )
}

/// The states in which a run has ended, each with what it says of a run.
static PHRASES: LazyLock<String> = LazyLock::new(|| {
    let phrase = |state: RunState| format!("WHEN '{state}' THEN ' {}'", state.as_clause());
    RunState::TERMINAL.map(phrase).join(" ")
});
