-- Schedules that fire for events of the log.

ALTER TABLE schedules
    ADD COLUMN events_after bigint,                     -- it fires for events after this place; null: for none
    ADD COLUMN queued_event bigint,                     -- the event that waits, if queued_at is that of an event
    ADD CHECK (queued_event IS NULL OR queued_at IS NOT NULL);
CREATE INDEX schedules_events ON schedules (project_id, events_after) WHERE events_after IS NOT NULL;

ALTER TABLE schedule_fires
    ADD COLUMN event_seq bigint NOT NULL DEFAULT 0,     -- the event that it fired for, written at due_at; 0: none
    DROP CONSTRAINT schedule_fires_pkey,
    ADD PRIMARY KEY (schedule_id, due_at, event_seq),   -- a due time fires once, and an event (I6)
    DROP CONSTRAINT schedule_fires_reason_check,
    ADD CHECK (reason IN
        ('paused', 'overlap', 'missed', 'dst_gap', 'excluded', 'not_startable', 'loop', 'zone_data', 'bound'));

CREATE TABLE event_matching (
    only_row      boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    matched_until bigint  NOT NULL DEFAULT 0            -- schedules have fired for the events up to here
);
COMMENT ON TABLE event_matching IS 'How far schedules have fired for events: one row, locked by the instance that does so';
INSERT INTO event_matching DEFAULT VALUES;
