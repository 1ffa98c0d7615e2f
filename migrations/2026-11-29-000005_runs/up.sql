-- Runs: the queue, and the state of each execution as a whole. A row is updated only when its run is claimed, released,
-- woken or cancelled. A run has at least three row versions, so each check and index here is paid for several times.

CREATE TABLE runs (
    id                  uuid        PRIMARY KEY,        -- UUIDv7: sorts by age, and decides the journal's partition
    project_id          uuid        NOT NULL REFERENCES projects ON DELETE CASCADE,
    graph_digest        bytea       NOT NULL REFERENCES graphs ON DELETE RESTRICT,
    kind                text        NOT NULL CHECK (kind IN ('pipeline', 'item', 'local')),
    depth               integer     NOT NULL DEFAULT 0,
    trigger             json        NOT NULL DEFAULT '{}',  -- what made it, as the API shows it
    pipeline_id         uuid,                           -- null also when the pipeline was deleted: history outlives it
    pipeline_version    integer,
    schedule_id         uuid,
    parent_run_id       uuid        REFERENCES runs ON DELETE SET NULL,  -- the run that waits for it
    parent_node_id      text,
    rerun_of            uuid        REFERENCES runs ON DELETE SET NULL,  -- the run whose successes it reuses
    idempotency_key     text,                           -- the client's, unique in its project
    idempotency_digest  bytea,                          -- of the request: the same key with another request is a conflict
    state               text        NOT NULL DEFAULT 'queued'
                                    CHECK (state IN ('queued', 'running', 'waiting', 'succeeded', 'failed', 'cancelled', 'timed_out')),
    waiting_for         text        CHECK (waiting_for IN ('timer', 'approval', 'child', 'budget_exceeded')),
    input               json        NOT NULL,
    output              json,
    error               json,
    priority            integer     NOT NULL DEFAULT 5 CHECK (priority BETWEEN 1 AND 10),  -- 10 is the most urgent
    available_at        timestamptz DEFAULT now(),
    deadline_at         timestamptz,                    -- the run ends as timed_out then
    owner               uuid,
    epoch               bigint      NOT NULL DEFAULT 0, -- grows with every claim and take-over, never reset; fences every write
    recoveries          integer     NOT NULL DEFAULT 0, -- how often an owner died
    cancel_requested_at timestamptz,
    cancel_reason       text,                           -- why, if the run above requested it; a clause
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
COMMENT ON COLUMN runs.kind IS 'What it is one execution of: a pipeline, an item of a map node, a file on the local command line';
COMMENT ON COLUMN runs.depth IS 'How many runs are above it, counting those that did not wait for theirs; bounded, so that pipelines that start pipelines end';
COMMENT ON COLUMN runs.schedule_id IS 'The schedule that it belongs to. No foreign key: schedules have no table yet';
COMMENT ON COLUMN runs.available_at IS 'Not claimed before; null: until a wake-up. Null while running: a wake-up sets it meanwhile, and then the run is not parked';
COMMENT ON COLUMN runs.owner IS 'The instance that drives it. No foreign key: a claim locks the row of its instance once for all runs that it takes';

-- One ordered range per priority, so that a claim reads only what it takes, however many runs wait for a later time.
CREATE INDEX runs_claimable ON runs (priority, available_at, id) WHERE state IN ('queued', 'waiting');
-- Requeued runs keep their place by age, which is before the scan window of claims.
CREATE INDEX runs_returned ON runs (available_at) WHERE state = 'queued' AND epoch > 0;
-- Runs that only have to end are claimed even where there is no room for others.
CREATE INDEX runs_cancelling ON runs (id) WHERE cancel_requested_at IS NOT NULL AND state IN ('queued', 'waiting');
CREATE INDEX runs_overdue ON runs (deadline_at) WHERE deadline_at IS NOT NULL AND state IN ('queued', 'waiting');
CREATE INDEX runs_owner ON runs (owner) WHERE owner IS NOT NULL;
CREATE UNIQUE INDEX runs_idempotency ON runs (project_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX runs_project ON runs (project_id, id);
-- A run enters this index once, when it has ended. `runs_claimable` and `runs_owner` find the others.
CREATE INDEX runs_ended ON runs (project_id, state, id) WHERE ended_at IS NOT NULL;
-- The few runs of all projects that ended without success: a page of them does not read those that succeeded.
CREATE INDEX runs_not_succeeded ON runs (state, id) WHERE ended_at IS NOT NULL AND state <> 'succeeded';
CREATE INDEX runs_pipeline ON runs (pipeline_id, id) WHERE pipeline_id IS NOT NULL;
CREATE INDEX runs_schedule ON runs (schedule_id, id) WHERE schedule_id IS NOT NULL;
CREATE INDEX runs_parent ON runs (parent_run_id) WHERE parent_run_id IS NOT NULL;
-- Of many children the few that have not succeeded, so that counting them does not read the others.
CREATE INDEX runs_children_left ON runs (parent_run_id) WHERE parent_run_id IS NOT NULL AND state <> 'succeeded';
CREATE INDEX runs_rerun_of ON runs (rerun_of) WHERE rerun_of IS NOT NULL;

CREATE TABLE child_runs (
    run_id        uuid    PRIMARY KEY REFERENCES runs ON DELETE CASCADE,
    parent_run_id uuid    NOT NULL REFERENCES runs ON DELETE CASCADE,  -- also in `runs`, where the child's end reads it
    node_id       text    NOT NULL,                     -- the node that started it
    round         integer NOT NULL,                     -- how many attempts of the node failed before: each had children of its own
    item          integer NOT NULL,                     -- which of the node's children it is, from 0
    root_run_id   uuid    NOT NULL                      -- the run at the top of the tree
);
COMMENT ON TABLE child_runs IS 'The place of a child run under the parent that waits for it';
CREATE UNIQUE INDEX child_runs_place ON child_runs (parent_run_id, node_id, item, round);

CREATE TABLE node_decisions (
    run_id     uuid        NOT NULL REFERENCES runs ON DELETE CASCADE,
    node_id    text        NOT NULL,
    approve    boolean     NOT NULL,
    comment    text,
    decided_by uuid        REFERENCES users ON DELETE SET NULL,
    decided_as text        NOT NULL,                    -- the account's name then: it outlives the account
    decided_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, node_id)                       -- the first decision stands
);
COMMENT ON TABLE node_decisions IS 'What people decided about nodes that waited for approval';
CREATE INDEX node_decisions_user ON node_decisions (decided_by) WHERE decided_by IS NOT NULL;

CREATE TABLE node_outcomes (
    run_id     uuid        NOT NULL REFERENCES runs ON DELETE CASCADE,
    node_id    text        NOT NULL,
    outcome    text        NOT NULL CHECK (outcome IN ('succeeded', 'repeat', 'failed')),
    output     json,                                    -- of a node that succeeded; a JSON null is one too
    reason     text        NOT NULL,
    decided_by uuid        REFERENCES users ON DELETE SET NULL,
    decided_as text        NOT NULL,                    -- the account's name then: it outlives the account
    decided_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, node_id),                      -- the first decision stands
    CONSTRAINT node_outcomes_output CHECK ((outcome = 'succeeded') = (output IS NOT NULL))
);
COMMENT ON TABLE node_outcomes IS 'What people decided about nodes of runs that ended without anybody knowing how these nodes ended';
CREATE INDEX node_outcomes_user ON node_outcomes (decided_by) WHERE decided_by IS NOT NULL;
