DROP TABLE event_matching;
DELETE FROM schedule_fires WHERE event_seq <> 0 OR reason = 'loop';
ALTER TABLE schedule_fires
    DROP CONSTRAINT schedule_fires_reason_check,
    ADD CHECK (reason IN ('paused', 'overlap', 'missed', 'dst_gap', 'excluded', 'not_startable', 'zone_data', 'bound')),
    DROP CONSTRAINT schedule_fires_pkey,
    DROP COLUMN event_seq,
    ADD PRIMARY KEY (schedule_id, due_at);
DELETE FROM schedules WHERE trigger ->> 'type' = 'event';
ALTER TABLE schedules DROP COLUMN queued_event, DROP COLUMN events_after;
