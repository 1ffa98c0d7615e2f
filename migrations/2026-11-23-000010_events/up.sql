-- What matters outside a run, written by the transaction that caused it and read in order.

CREATE TABLE events (
    seq           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Numbers are given before the commit, so a later number can be visible earlier. A reader takes only rows whose
    -- transaction is older than every transaction still open: xact < pg_snapshot_xmin(pg_current_snapshot()).
    xact          bigint      NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
    project_id    uuid        REFERENCES projects ON DELETE CASCADE,  -- null: of the whole installation
    type          text        NOT NULL,                 -- dotted, such as run.succeeded
    subject       uuid,                                 -- the run, schedule, task or user that it is about
    data          json        NOT NULL DEFAULT '{}',
    at            timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE events IS 'The log of events, bounded by retention';
CREATE INDEX events_project ON events (project_id, seq);
CREATE INDEX events_type ON events (type, seq);
CREATE INDEX events_at ON events (at);
