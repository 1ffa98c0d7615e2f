-- Limits of pipelines: how many runs of one key execute at once, and how many start in a second. A run that asks for a
-- permit is not in the queue of `runs` until it has one: it waits in the line of its key, a narrow row. So a claim never
-- steps over runs that have to wait, however many there are, and the keys are served in turn.

CREATE TABLE concurrency_keys (
    id          uuid        PRIMARY KEY,            -- of the digest of pipeline and key: every statement locks keys in its order
    pipeline_id uuid        NOT NULL,               -- no foreign key: a key without runs is deleted after a while
    key         text        NOT NULL,
    permits     integer     NOT NULL CHECK (permits > 0),    -- as the run says that came last; the largest integer: any number
    per_second  double precision CHECK (per_second > 0),     -- starts; null: any number
    held        integer     NOT NULL DEFAULT 0 CHECK (held >= 0),
    waiting     integer     NOT NULL DEFAULT 0 CHECK (waiting >= 0),  -- runs in its line
    next_at     timestamptz NOT NULL DEFAULT now(), -- when it is served next: the keys are, in this order
    -- Counters change several times for each run, and most changes leave this as it is: then no index is written.
    is_ready    boolean     NOT NULL GENERATED ALWAYS AS (waiting > 0 AND held < permits) STORED
) WITH (fillfactor = 50);
COMMENT ON TABLE concurrency_keys IS 'The runs of one pipeline that are limited together: how many permits they have and hold';
CREATE INDEX concurrency_keys_served ON concurrency_keys (next_at) WHERE is_ready;

CREATE TABLE permit_requests (
    run_id       uuid        PRIMARY KEY,           -- no foreign key: a request of a run that is gone is dropped when it is met
    key_id       uuid        NOT NULL,
    pipeline_id  uuid        NOT NULL,
    key          text        NOT NULL,
    permits      integer     NOT NULL,
    per_second   double precision,
    on_limit     text        NOT NULL CHECK (on_limit IN ('queue', 'skip', 'cancel_oldest')),
    priority     integer     NOT NULL,
    available_at timestamptz NOT NULL,              -- it joins the line of its key then
    in_line      boolean     NOT NULL DEFAULT false
) WITH (fillfactor = 70);
COMMENT ON TABLE permit_requests IS 'Runs that wait for a permit: first for their time, then in the line of their key';
CREATE INDEX permit_requests_arriving ON permit_requests (available_at, run_id) WHERE NOT in_line;
CREATE INDEX permit_requests_line ON permit_requests (key_id, priority DESC, available_at, run_id) WHERE in_line;

ALTER TABLE runs
    ADD COLUMN permit_key   uuid,                           -- the key that limits it
    ADD COLUMN holds_permit boolean NOT NULL DEFAULT false, -- from its first claim to its end
    DROP CONSTRAINT runs_waiting_for_check,
    ADD CONSTRAINT runs_waiting_for_check
        CHECK (waiting_for IN ('timer', 'approval', 'child', 'budget_exceeded', 'concurrency'));
COMMENT ON COLUMN runs.permit_key IS 'The key that limits it. No foreign key: keys without runs are deleted';
-- The runs of a key that may be cancelled for a newer one.
CREATE INDEX runs_permit ON runs (permit_key, id) WHERE permit_key IS NOT NULL AND ended_at IS NULL;
