-- What changes while a run goes on leaves `runs` for a narrow row of its own. So `runs` is written twice, at the acceptance
-- and at the end, and its end changes no index: PostgreSQL updates the row in place (HOT). A claim writes the narrow row
-- alone, and the end deletes it.

CREATE TABLE active_runs (
    run_id              uuid        PRIMARY KEY,        -- no foreign key: the check would lock the run's row at its acceptance
    project_id          uuid        NOT NULL,
    parent_run_id       uuid,                           -- the run that waits for it
    state               text        NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'waiting')),
    waiting_for         text        CHECK (waiting_for IN ('timer', 'approval', 'child', 'budget_exceeded', 'concurrency')),
    priority            integer     NOT NULL,           -- 10 is the most urgent
    available_at        timestamptz DEFAULT now(),
    deadline_at         timestamptz,                    -- the run ends as timed_out then
    owner               uuid,
    epoch               bigint      NOT NULL DEFAULT 0, -- grows with every claim and take-over, never reset; fences every write
    recoveries          integer     NOT NULL DEFAULT 0, -- how often an owner died
    cancel_requested_at timestamptz,
    cancel_reason       text,                           -- why, if the run above requested it; a clause
    started_at          timestamptz,                    -- of the first claim
    permit_key          uuid,                           -- the key that limits it
    holds_permit        boolean     NOT NULL DEFAULT false,  -- from its first claim to its end
    CONSTRAINT active_runs_owned_while_running CHECK ((state = 'running') = (owner IS NOT NULL)),
    CONSTRAINT active_runs_reason_while_waiting CHECK ((state = 'waiting') = (waiting_for IS NOT NULL))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
COMMENT ON TABLE active_runs IS 'The state of each run that has not ended: the queue, and what instances drive. Deleted at the end';
COMMENT ON COLUMN active_runs.available_at IS 'Not claimed before; null: until a wake-up. Null while running: a wake-up sets it meanwhile, and then the run is not parked';
COMMENT ON COLUMN active_runs.owner IS 'The instance that drives it. No foreign key: a claim locks the row of its instance once for all runs that it takes';
COMMENT ON COLUMN active_runs.permit_key IS 'The key that limits it. No foreign key: keys without runs are deleted';

-- Of the runs that ended few did so without success: lists of them do not read the others.
CREATE TABLE unsuccessful_runs (
    run_id        uuid PRIMARY KEY REFERENCES runs ON DELETE CASCADE,
    project_id    uuid NOT NULL,
    parent_run_id uuid,
    state         text NOT NULL CHECK (state IN ('failed', 'cancelled', 'timed_out'))
);
COMMENT ON TABLE unsuccessful_runs IS 'The runs that ended without success';

INSERT INTO active_runs (run_id, project_id, parent_run_id, state, waiting_for, priority, available_at, deadline_at, owner,
        epoch, recoveries, cancel_requested_at, cancel_reason, started_at, permit_key, holds_permit)
    SELECT id, project_id, parent_run_id, state, waiting_for, priority, available_at, deadline_at, owner,
        epoch, recoveries, cancel_requested_at, cancel_reason, started_at, permit_key, holds_permit
    FROM runs WHERE ended_at IS NULL;
INSERT INTO unsuccessful_runs (run_id, project_id, parent_run_id, state)
    SELECT id, project_id, parent_run_id, state FROM runs WHERE ended_at IS NOT NULL AND state <> 'succeeded';

-- One ordered range per priority, so that a claim reads only what it takes, however many runs wait for a later time.
CREATE INDEX active_runs_claimable ON active_runs (priority, available_at, run_id) WHERE state IN ('queued', 'waiting');
-- While runs wait for room, claims take the projects in turn: each has an ordered range for each of its priorities.
CREATE INDEX active_runs_of_project ON active_runs (project_id, priority, available_at, run_id)
    WHERE state IN ('queued', 'waiting') AND available_at IS NOT NULL;
-- Requeued runs keep their place by age, which is before the scan window of claims.
CREATE INDEX active_runs_returned ON active_runs (available_at) WHERE state = 'queued' AND epoch > 0;
-- Runs that only have to end are claimed even where there is no room for others.
CREATE INDEX active_runs_cancelling ON active_runs (run_id)
    WHERE cancel_requested_at IS NOT NULL AND state IN ('queued', 'waiting');
CREATE INDEX active_runs_overdue ON active_runs (deadline_at)
    WHERE deadline_at IS NOT NULL AND state IN ('queued', 'waiting');
CREATE INDEX active_runs_owner ON active_runs (owner) WHERE owner IS NOT NULL;
CREATE INDEX active_runs_parent ON active_runs (parent_run_id) WHERE parent_run_id IS NOT NULL;
-- The runs of a key that may be cancelled for a newer one.
CREATE INDEX active_runs_permit ON active_runs (permit_key, run_id) WHERE permit_key IS NOT NULL;

CREATE INDEX unsuccessful_runs_project ON unsuccessful_runs (project_id, state, run_id);
CREATE INDEX unsuccessful_runs_state ON unsuccessful_runs (state, run_id);
CREATE INDEX unsuccessful_runs_parent ON unsuccessful_runs (parent_run_id) WHERE parent_run_id IS NOT NULL;

DROP INDEX runs_claimable, runs_of_project_claimable, runs_returned, runs_cancelling, runs_overdue, runs_owner, runs_ended,
    runs_not_succeeded, runs_children_left, runs_permit;
ALTER TABLE runs
    DROP CONSTRAINT runs_owned_while_running,
    DROP CONSTRAINT runs_ended_when_terminal,
    DROP CONSTRAINT runs_reason_while_waiting,
    DROP CONSTRAINT runs_state_check,
    DROP COLUMN waiting_for,
    DROP COLUMN available_at,
    DROP COLUMN owner,
    DROP COLUMN cancel_reason,
    DROP COLUMN permit_key,
    DROP COLUMN holds_permit,
    ALTER COLUMN state DROP NOT NULL,
    ALTER COLUMN state DROP DEFAULT;
UPDATE runs SET state = NULL WHERE ended_at IS NULL;
ALTER TABLE runs
    ADD CONSTRAINT runs_state_check CHECK (state IN ('succeeded', 'failed', 'cancelled', 'timed_out')),
    ADD CONSTRAINT runs_ended_with_state CHECK ((state IS NOT NULL) = (ended_at IS NOT NULL)),
    SET (fillfactor = 75);
COMMENT ON COLUMN runs.state IS 'How it ended; null before: `active_runs` has the state then';
COMMENT ON COLUMN runs.epoch IS 'Of its last claim, since it has ended. `recoveries`, `cancel_requested_at` and `started_at` are also set at the end';

-- Rows of `active_runs` leave with their run, whatever deletes it. Only runs that have not ended have one.
CREATE FUNCTION active_runs_follow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM active_runs WHERE run_id IN (SELECT id FROM deleted WHERE ended_at IS NULL);
    RETURN NULL;
END $$;
CREATE TRIGGER active_runs_follow AFTER DELETE ON runs
    REFERENCING OLD TABLE AS deleted FOR EACH STATEMENT EXECUTE FUNCTION active_runs_follow();

-- Every run as it is now.
CREATE VIEW all_runs AS
    SELECT run.id, run.project_id, run.graph_digest, run.kind, run.depth, run.trigger, run.pipeline_id, run.pipeline_version,
        run.schedule_id, run.parent_run_id, run.parent_node_id, run.rerun_of, coalesce(run.state, active.state) AS state,
        active.waiting_for, run.input, run.output, run.error, run.priority, active.available_at, run.deadline_at,
        active.owner, coalesce(active.epoch, run.epoch) AS epoch, coalesce(active.recoveries, run.recoveries) AS recoveries,
        coalesce(active.cancel_requested_at, run.cancel_requested_at) AS cancel_requested_at, active.cancel_reason,
        active.permit_key, active.holds_permit, run.created_at, coalesce(active.started_at, run.started_at) AS started_at,
        run.ended_at
    FROM runs AS run LEFT JOIN active_runs AS active ON active.run_id = run.id;
COMMENT ON VIEW all_runs IS 'Every run with its state, ended or not';
