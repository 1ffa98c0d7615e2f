-- The server processes. The session-level advisory lock of an instance proves it alive; this table does not.

CREATE TABLE instances (
    id           uuid        PRIMARY KEY,
    lock_key     bigint      NOT NULL,                  -- of its liveness lock: made of the schema's name and the id
    hostname     text        NOT NULL,
    pid          integer     NOT NULL,                  -- of the process, on its host
    version      text        NOT NULL,                  -- of the server
    state        text        NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'draining')),
    started_at   timestamptz NOT NULL DEFAULT now(),
    heartbeat_at timestamptz NOT NULL DEFAULT now()     -- stands still when the process is stuck
) WITH (fillfactor = 50);
COMMENT ON TABLE instances IS 'The server processes that are alive, or dead and not yet recovered';
