-- What matters outside a run: written by the transaction that causes it, read in order.

CREATE TABLE events (
    seq           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Numbers are given before the commit, so a later number can be visible earlier. The column does not help: migration
    -- 10 says what a reader does.
    xact          bigint      NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
    project_id    uuid,                                 -- null: of the whole installation
    type          text        NOT NULL,                 -- dotted, such as run.succeeded
    subject       uuid,                                 -- the run, schedule, task or user that it is about
    data          json        NOT NULL DEFAULT '{}',
    at            timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE events IS 'The log of events, bounded by retention';
COMMENT ON COLUMN events.project_id IS 'No foreign key: two events are written with every run. A project takes its events along when it is deleted';
CREATE INDEX events_project ON events (project_id, seq);
CREATE INDEX events_at ON events USING brin (at) WITH (autosummarize = on);
