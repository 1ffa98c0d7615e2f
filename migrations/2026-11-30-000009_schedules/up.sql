-- Schedules and the ledger of their due times.

CREATE TABLE schedules (
    id               uuid        PRIMARY KEY,
    project_id       uuid        NOT NULL REFERENCES projects ON DELETE CASCADE,
    name             text        NOT NULL,
    trigger          json        NOT NULL,                  -- as its author wrote it
    action           json        NOT NULL,                  -- the same
    pipeline_id      uuid        REFERENCES pipelines ON DELETE SET NULL,  -- what it starts, or null: the graph of its action
    action_graph     bytea       REFERENCES graphs ON DELETE RESTRICT,
    days             json        NOT NULL DEFAULT '{}',     -- on which it fires, or does not
    catch_up         text        NOT NULL CHECK (catch_up IN ('skip', 'latest', 'all')),
    overlap          text        NOT NULL CHECK (overlap IN ('allow', 'skip', 'queue_one', 'cancel_previous')),
    jitter_seconds   integer     NOT NULL DEFAULT 0 CHECK (jitter_seconds BETWEEN 0 AND 86400),
    start_at         timestamptz,
    end_at           timestamptz,
    max_fires        integer     CHECK (max_fires > 0),
    notify           json,                                  -- what is sent when a run fails, as its author wrote it
    notify_graph     bytea       REFERENCES graphs ON DELETE RESTRICT,
    pause_after      integer     CHECK (pause_after > 0),   -- failures in a row
    paused_because   text        CHECK (paused_because IN ('request', 'failures')),
    passed_at        timestamptz NOT NULL,                  -- all due times until here are in the ledger
    queued_at        timestamptz,                           -- the due time that waits for the end of earlier runs
    next_due_at      timestamptz,
    next_fire_at     timestamptz,                           -- later by the jitter
    zone_data        text        NOT NULL DEFAULT '',       -- the version of the time zones by which they were computed
    look_at          timestamptz,                           -- when the loop looks at it; null: nothing will be due
    n_fires          integer     NOT NULL DEFAULT 0,
    n_failures       integer     NOT NULL DEFAULT 0,        -- of its last runs, in a row
    last_fire_at     timestamptz,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),    -- by people
    CHECK ((next_due_at IS NULL) = (next_fire_at IS NULL)),
    CHECK (paused_because IS NULL OR look_at IS NULL),
    CHECK ((notify IS NULL) = (notify_graph IS NULL))
) WITH (fillfactor = 80);
COMMENT ON TABLE schedules IS 'What starts runs at due times';
CREATE INDEX schedules_look ON schedules (look_at) WHERE look_at IS NOT NULL;
CREATE INDEX schedules_project ON schedules (project_id, id DESC);
CREATE INDEX schedules_pipeline ON schedules (pipeline_id) WHERE pipeline_id IS NOT NULL;
CREATE INDEX schedules_action_graph ON schedules (action_graph) WHERE action_graph IS NOT NULL;
CREATE INDEX schedules_notify_graph ON schedules (notify_graph) WHERE notify_graph IS NOT NULL;

CREATE TABLE schedule_fires (
    schedule_id uuid        NOT NULL REFERENCES schedules ON DELETE CASCADE,
    due_at      timestamptz NOT NULL,
    until       timestamptz,                            -- the entry stands for all due times from due_at until here
    outcome     text        NOT NULL CHECK (outcome IN ('started', 'caught_up', 'queued', 'skipped')),
    reason      text        CHECK (reason IN ('paused', 'overlap', 'missed', 'dst_gap', 'excluded', 'not_startable', 'zone_data', 'bound')),
    run_id      uuid,                                   -- no foreign key: the ledger outlives its runs
    run_state   text,                                   -- how the run ended; null until that is known
    fired_at    timestamptz,
    PRIMARY KEY (schedule_id, due_at),                  -- a due time fires once (I6)
    CHECK ((outcome = 'skipped') = (reason IS NOT NULL)),
    CHECK ((outcome IN ('started', 'caught_up')) = (run_id IS NOT NULL)),
    CHECK ((run_id IS NULL) = (fired_at IS NULL)),
    CHECK (run_state IS NULL OR run_id IS NOT NULL)
);
COMMENT ON TABLE schedule_fires IS 'The ledger of due times: what became of each';
-- Few: those whose runs have not ended, or ended just now.
CREATE INDEX schedule_fires_open ON schedule_fires (schedule_id, run_id) WHERE run_id IS NOT NULL AND run_state IS NULL;
CREATE INDEX schedule_fires_due ON schedule_fires USING brin (due_at) WITH (autosummarize = on);

ALTER TABLE runs DROP CONSTRAINT runs_kind_check,
    ADD CONSTRAINT runs_kind_check CHECK (kind IN ('pipeline', 'item', 'local', 'action'));
COMMENT ON COLUMN runs.kind IS 'What it is one execution of: a pipeline, an item of a map node, a file on the local command line, a single action';
COMMENT ON COLUMN runs.schedule_id IS 'The schedule that it belongs to. No foreign key: runs outlive their schedules';

ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_kind_check,
    ADD CONSTRAINT idempotency_keys_kind_check CHECK (kind IN ('project', 'pipeline', 'api_key', 'schedule'));
