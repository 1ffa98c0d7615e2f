-- What bounds the runs: budgets, and circuit breakers shared by all runs and instances.

CREATE TABLE budgets (
    id           uuid        PRIMARY KEY,
    project_id   uuid        NOT NULL REFERENCES projects ON DELETE CASCADE,
    circle_id    uuid        REFERENCES circles ON DELETE CASCADE,  -- set: of this circle
    run_id       uuid        REFERENCES runs ON DELETE CASCADE,     -- set: of this run and its children
    resource     text        NOT NULL CHECK (resource IN ('tokens', 'money', 'model_calls', 'tool_calls', 'wall_clock')),
    period       text        NOT NULL DEFAULT 'total' CHECK (period IN ('total', 'day', 'week', 'month')),
    period_start timestamptz NOT NULL DEFAULT now(),    -- from when `spent` counts
    amount       bigint      NOT NULL CHECK (amount >= 0),  -- tokens, millionths of the currency unit, calls, or milliseconds
    spent        bigint      NOT NULL DEFAULT 0 CHECK (spent >= 0),
    reserved     bigint      NOT NULL DEFAULT 0 CHECK (reserved >= 0),  -- the sum of its open reservations
    updated_at   timestamptz NOT NULL DEFAULT now(),
    CHECK (circle_id IS NULL OR run_id IS NULL),
    UNIQUE NULLS NOT DISTINCT (project_id, circle_id, run_id, resource)
) WITH (fillfactor = 50);
COMMENT ON TABLE budgets IS 'Hard bounds: reserved before a call, settled after it';
CREATE INDEX budgets_run ON budgets (run_id) WHERE run_id IS NOT NULL;
CREATE INDEX budgets_circle ON budgets (circle_id) WHERE circle_id IS NOT NULL;

CREATE TABLE budget_reservations (
    budget_id  uuid        NOT NULL REFERENCES budgets ON DELETE CASCADE,
    run_id     uuid        NOT NULL REFERENCES runs ON DELETE CASCADE,
    effect_key text        NOT NULL,                    -- the idempotency key of the call: a repeated reservation finds its own
    amount     bigint      NOT NULL CHECK (amount >= 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (budget_id, run_id, effect_key)
);
COMMENT ON TABLE budget_reservations IS 'Worst cases of calls that are under way';
CREATE INDEX budget_reservations_run ON budget_reservations (run_id);

CREATE TABLE circuit_breakers (
    pipeline_id uuid        NOT NULL REFERENCES pipelines ON DELETE CASCADE,
    node_id     text        NOT NULL,
    state       text        NOT NULL DEFAULT 'closed' CHECK (state IN ('closed', 'open', 'half_open')),
    failures    integer     NOT NULL DEFAULT 0 CHECK (failures >= 0),  -- in a row
    open_until  timestamptz,                            -- when one probe may go
    probe_run   uuid,                                   -- whose attempt is the probe
    probe_until timestamptz,                            -- a probe that has not answered by then is given to another
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pipeline_id, node_id),
    CHECK ((state = 'half_open') = (probe_run IS NOT NULL)),
    CHECK ((probe_run IS NULL) = (probe_until IS NULL)),
    CHECK (state <> 'open' OR open_until IS NOT NULL)
) WITH (fillfactor = 50);
COMMENT ON TABLE circuit_breakers IS 'When a node that keeps failing is tried by no run';
