DROP VIEW all_runs;
DROP TRIGGER active_runs_follow ON runs;
DROP FUNCTION active_runs_follow;
ALTER TABLE runs
    DROP CONSTRAINT runs_state_check,
    DROP CONSTRAINT runs_ended_with_state,
    ADD COLUMN waiting_for text,
    ADD COLUMN available_at timestamptz DEFAULT now(),
    ADD COLUMN owner uuid,
    ADD COLUMN cancel_reason text,
    ADD COLUMN permit_key uuid,
    ADD COLUMN holds_permit boolean NOT NULL DEFAULT false;
UPDATE runs SET available_at = NULL WHERE ended_at IS NOT NULL;
UPDATE runs SET state = active.state, waiting_for = active.waiting_for, available_at = active.available_at,
    owner = active.owner, epoch = active.epoch, recoveries = active.recoveries,
    cancel_requested_at = active.cancel_requested_at, cancel_reason = active.cancel_reason,
    started_at = active.started_at, permit_key = active.permit_key, holds_permit = active.holds_permit
FROM active_runs AS active WHERE active.run_id = runs.id;
DROP TABLE unsuccessful_runs;
DROP TABLE active_runs;
ALTER TABLE runs
    ALTER COLUMN state SET DEFAULT 'queued',
    ALTER COLUMN state SET NOT NULL,
    ADD CONSTRAINT runs_state_check
        CHECK (state IN ('queued', 'running', 'waiting', 'succeeded', 'failed', 'cancelled', 'timed_out')),
    ADD CONSTRAINT runs_waiting_for_check
        CHECK (waiting_for IN ('timer', 'approval', 'child', 'budget_exceeded', 'concurrency')),
    ADD CONSTRAINT runs_owned_while_running CHECK ((state = 'running') = (owner IS NOT NULL)),
    ADD CONSTRAINT runs_ended_when_terminal
        CHECK ((state IN ('succeeded', 'failed', 'cancelled', 'timed_out')) = (ended_at IS NOT NULL)),
    ADD CONSTRAINT runs_reason_while_waiting CHECK ((state = 'waiting') = (waiting_for IS NOT NULL)),
    SET (fillfactor = 85);
CREATE INDEX runs_claimable ON runs (priority, available_at, id) WHERE state IN ('queued', 'waiting');
CREATE INDEX runs_of_project_claimable ON runs (project_id, priority, available_at, id)
    WHERE state IN ('queued', 'waiting') AND available_at IS NOT NULL;
CREATE INDEX runs_returned ON runs (available_at) WHERE state = 'queued' AND epoch > 0;
CREATE INDEX runs_cancelling ON runs (id) WHERE cancel_requested_at IS NOT NULL AND state IN ('queued', 'waiting');
CREATE INDEX runs_overdue ON runs (deadline_at) WHERE deadline_at IS NOT NULL AND state IN ('queued', 'waiting');
CREATE INDEX runs_owner ON runs (owner) WHERE owner IS NOT NULL;
CREATE INDEX runs_ended ON runs (project_id, state, id) WHERE ended_at IS NOT NULL;
CREATE INDEX runs_not_succeeded ON runs (state, id) WHERE ended_at IS NOT NULL AND state <> 'succeeded';
CREATE INDEX runs_children_left ON runs (parent_run_id) WHERE parent_run_id IS NOT NULL AND state <> 'succeeded';
CREATE INDEX runs_permit ON runs (permit_key, id) WHERE permit_key IS NOT NULL AND ended_at IS NULL;
