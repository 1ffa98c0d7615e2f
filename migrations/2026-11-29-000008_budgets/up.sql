-- What bounds the calls of runs.

CREATE TABLE budgets (
    id           uuid        PRIMARY KEY,
    project_id   uuid        NOT NULL REFERENCES projects ON DELETE CASCADE,
    run_id       uuid        REFERENCES runs ON DELETE CASCADE,  -- set: the allowance of the tree of this root run
    resource     text        NOT NULL CHECK (resource IN ('tokens', 'money', 'model_calls', 'tool_calls', 'wall_clock')),
    period       text        NOT NULL DEFAULT 'total' CHECK (period IN ('total', 'day', 'week', 'month')),
    period_start timestamptz NOT NULL DEFAULT now(),    -- from when `spent` counts
    amount       bigint      NOT NULL CHECK (amount >= 0),  -- tokens, millionths of the currency unit, calls, or milliseconds
    spent        bigint      NOT NULL DEFAULT 0 CHECK (spent >= 0),
    reserved     bigint      NOT NULL DEFAULT 0 CHECK (reserved >= 0),  -- the sum of its open reservations
    updated_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (project_id, run_id, resource)
) WITH (fillfactor = 50);
COMMENT ON TABLE budgets IS 'Hard bounds: reserved before a call, settled after it';
CREATE INDEX budgets_run ON budgets (run_id) WHERE run_id IS NOT NULL;

CREATE TABLE budget_reservations (
    budget_id  uuid        NOT NULL REFERENCES budgets ON DELETE CASCADE,
    run_id     uuid        NOT NULL REFERENCES runs ON DELETE CASCADE,
    effect_key text        NOT NULL,                    -- the idempotency key of the call: a repeated reservation finds its own
    amount     bigint      NOT NULL CHECK (amount >= 0),
    is_granted boolean     NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (budget_id, run_id, effect_key)
);
COMMENT ON TABLE budget_reservations IS 'The worst cases of calls that execute, and of calls that wait for a budget';
COMMENT ON COLUMN budget_reservations.is_granted IS 'Whether it is part of what its budget has reserved; if not, its run waits for the budget';
CREATE INDEX budget_reservations_run ON budget_reservations (run_id);
CREATE INDEX budget_reservations_open ON budget_reservations (budget_id, is_granted, created_at);
