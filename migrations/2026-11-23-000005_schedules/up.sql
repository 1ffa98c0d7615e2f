-- Rules for when something fires, and the ledger of their due times.

CREATE TABLE schedules (
    id             uuid        PRIMARY KEY,
    project_id     uuid        NOT NULL REFERENCES projects ON DELETE CASCADE,
    name           text        NOT NULL,
    action         json        NOT NULL,                -- what a fire starts
    trigger        json        NOT NULL,                -- cron, interval, once or event, with what belongs to it
    trigger_type   text        NOT NULL CHECK (trigger_type IN ('cron', 'interval', 'once', 'event')),
    event_type     text,                                -- the type or pattern that an event trigger listens for
    catch_up       text        NOT NULL CHECK (catch_up IN ('skip', 'latest', 'all')),
    overlap        text        NOT NULL CHECK (overlap IN ('allow', 'skip', 'queue_one', 'cancel_previous')),
    jitter_seconds integer     NOT NULL DEFAULT 0 CHECK (jitter_seconds >= 0),
    start_at       timestamptz,                         -- nothing is due before
    end_at         timestamptz,                         -- nothing is due after
    max_fires      bigint      CHECK (max_fires > 0),
    enabled        boolean     NOT NULL DEFAULT true,
    paused_at      timestamptz,                         -- set while paused; due times are then recorded as skipped
    next_due_at    timestamptz,                         -- the next time by its rule; null: never again, or on an event
    next_fire_at   timestamptz,                         -- next_due_at with its jitter: when the loop acts
    last_fire_at   timestamptz,
    fire_count     bigint      NOT NULL DEFAULT 0,
    event_cursor   bigint      NOT NULL DEFAULT 0,      -- the last events.seq that an event trigger has looked at
    created_by     uuid        REFERENCES users ON DELETE SET NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    CHECK ((trigger_type = 'event') = (event_type IS NOT NULL)),
    CHECK ((next_due_at IS NULL) = (next_fire_at IS NULL))
) WITH (fillfactor = 85);
COMMENT ON TABLE schedules IS 'Rules for when something fires';
CREATE INDEX schedules_project ON schedules (project_id, id DESC);
CREATE INDEX schedules_due ON schedules (next_fire_at) WHERE enabled AND next_fire_at IS NOT NULL;
CREATE INDEX schedules_event ON schedules (id) WHERE enabled AND trigger_type = 'event';

CREATE TABLE schedule_fires (
    id          uuid        PRIMARY KEY,
    schedule_id uuid        NOT NULL REFERENCES schedules ON DELETE CASCADE,
    due_at      timestamptz NOT NULL,                   -- the time by the rule, without jitter
    outcome     text        NOT NULL CHECK (outcome IN ('started', 'caught_up', 'skipped')),
    reason      text        CHECK (reason IN ('overlap', 'missed', 'paused', 'dst_gap', 'bound')),  -- of a skip
    fired_at    timestamptz,                            -- when the run was made; its run is the row of runs that names this fire
    recorded_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (schedule_id, due_at),                       -- I6: a due time is taken once
    CHECK ((outcome = 'skipped') = (reason IS NOT NULL)),
    CHECK ((outcome = 'skipped') = (fired_at IS NULL))
);
COMMENT ON TABLE schedule_fires IS 'The ledger of due times';
