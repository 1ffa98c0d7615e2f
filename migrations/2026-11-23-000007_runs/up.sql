-- Runs: the queue and the state of each execution as a whole. Updated only when a run is claimed, waits or ends.

CREATE TABLE runs (
    id                  uuid        PRIMARY KEY,        -- UUIDv7: sorts by age, and decides the journal's partition
    project_id          uuid        NOT NULL REFERENCES projects ON DELETE CASCADE,
    graph_digest        bytea       NOT NULL REFERENCES graphs ON DELETE RESTRICT,
    kind                text        NOT NULL,           -- pipeline, task, chat, tool, schedule, local ...
    trigger             json        NOT NULL DEFAULT '{}',  -- what made it, with what the graph may read of it
    pipeline_id         uuid,                           -- history outlives its pipeline: nulled when that goes
    pipeline_version    integer,
    task_id             uuid        REFERENCES tasks ON DELETE SET NULL,
    schedule_id         uuid        REFERENCES schedules ON DELETE SET NULL,
    schedule_fire_id    uuid        REFERENCES schedule_fires ON DELETE SET NULL,
    parent_run_id       uuid        REFERENCES runs ON DELETE SET NULL,  -- whose node started it
    parent_node_id      text,
    rerun_of            uuid        REFERENCES runs ON DELETE SET NULL,  -- whose successes it reuses
    idempotency_key     text,                           -- the client's, unique in its project
    idempotency_digest  bytea,                          -- of the request's body: the same key with another body is a conflict
    state               text        NOT NULL DEFAULT 'queued'
                                    CHECK (state IN ('queued', 'running', 'waiting', 'succeeded', 'failed', 'cancelled', 'timed_out')),
    waiting_for         text        CHECK (waiting_for IN ('timer', 'approval', 'child', 'budget_exceeded')),
    input               json        NOT NULL,
    output              json,
    error               json,
    priority            integer     NOT NULL DEFAULT 5 CHECK (priority BETWEEN 1 AND 10),  -- 10 is the most urgent
    available_at        timestamptz DEFAULT now(),      -- not claimed before; null: until somebody acts. Null while running; set meanwhile, somebody acted and the run must not be parked
    deadline_at         timestamptz,                    -- ends as timed_out
    owner               uuid        REFERENCES instances ON DELETE NO ACTION,  -- the instance that drives it; one that was declared dead is no longer a row there, so it can claim nothing more
    epoch               bigint      NOT NULL DEFAULT 0, -- grows with every claim and take-over, never reset; fences every write
    recoveries          integer     NOT NULL DEFAULT 0, -- how often an owner died
    cancel_requested_at timestamptz,
    created_at          timestamptz NOT NULL DEFAULT now(),
    started_at          timestamptz,                    -- of the first claim
    ended_at            timestamptz,
    FOREIGN KEY (pipeline_id, pipeline_version) REFERENCES pipeline_versions (pipeline_id, version) ON DELETE SET NULL,
    CONSTRAINT runs_owned_while_running CHECK ((state = 'running') = (owner IS NOT NULL)),
    CONSTRAINT runs_ended_when_terminal
        CHECK ((state IN ('succeeded', 'failed', 'cancelled', 'timed_out')) = (ended_at IS NOT NULL)),
    CONSTRAINT runs_reason_while_waiting CHECK ((state = 'waiting') = (waiting_for IS NOT NULL)),
    CONSTRAINT runs_idempotency_whole CHECK ((idempotency_key IS NULL) = (idempotency_digest IS NULL))
) WITH (fillfactor = 85);
COMMENT ON TABLE runs IS 'One row per execution of a graph';

-- One ordered range per priority, so that a claim reads only what it takes, however many runs wait for a later time.
CREATE INDEX runs_claimable ON runs (priority, available_at, id) WHERE state IN ('queued', 'waiting');
CREATE INDEX runs_owner ON runs (owner) WHERE owner IS NOT NULL;
CREATE UNIQUE INDEX runs_idempotency ON runs (project_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE UNIQUE INDEX runs_schedule_fire ON runs (schedule_fire_id) WHERE schedule_fire_id IS NOT NULL;
CREATE INDEX runs_project ON runs (project_id, id);
CREATE INDEX runs_project_state ON runs (project_id, state, id);
CREATE INDEX runs_pipeline ON runs (pipeline_id, id) WHERE pipeline_id IS NOT NULL;
CREATE INDEX runs_schedule ON runs (schedule_id, id) WHERE schedule_id IS NOT NULL;
CREATE INDEX runs_task ON runs (task_id, id) WHERE task_id IS NOT NULL;
CREATE INDEX runs_parent ON runs (parent_run_id) WHERE parent_run_id IS NOT NULL;
CREATE INDEX runs_rerun_of ON runs (rerun_of) WHERE rerun_of IS NOT NULL;

ALTER TABLE tasks ADD COLUMN run_id uuid REFERENCES runs ON DELETE SET NULL;
CREATE INDEX tasks_run ON tasks (run_id);
COMMENT ON COLUMN tasks.run_id IS 'The last run that worked on it';
