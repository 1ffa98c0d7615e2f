-- Events that clients post, and what a reader must know that comes back after a long time.

ALTER TABLE events
    ADD COLUMN id         uuid,                         -- of a posted event; null: the server wrote it
    ADD COLUMN key        text,                         -- what makes a posted event the same as an earlier one
    ADD COLUMN source     text,                         -- of a CloudEvent, whose `id` is the key
    ADD COLUMN attributes json;                         -- what else was posted: `subject`, and attributes of a CloudEvent
COMMENT ON COLUMN events.xact IS 'Tells nothing about the order of the log: of two transactions, the one with the smaller number may take the larger seq. A reader goes on at a missing seq only when no open transaction can have it';

-- Partial: the events of runs have no key, and cost nothing here.
CREATE UNIQUE INDEX events_key ON events (project_id, type, key) WHERE key IS NOT NULL AND source IS NULL;
CREATE UNIQUE INDEX events_source_key ON events (project_id, source, key) WHERE source IS NOT NULL;

CREATE TABLE event_retention (
    only_row     boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    pruned_until bigint  NOT NULL DEFAULT 0             -- events with a seq up to this one may be deleted
);
COMMENT ON TABLE event_retention IS 'How far the retention of events has come: one row';
INSERT INTO event_retention DEFAULT VALUES;
