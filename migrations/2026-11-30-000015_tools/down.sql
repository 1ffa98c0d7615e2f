DELETE FROM runs WHERE kind = 'tool';
ALTER TABLE runs DROP CONSTRAINT runs_kind_check,
    ADD CONSTRAINT runs_kind_check CHECK (kind IN ('pipeline', 'item', 'local', 'action'));
COMMENT ON COLUMN runs.kind IS 'What it is one execution of: a pipeline, an item of a map node, a file on the local command line, a single action';

DELETE FROM schedule_fires WHERE reason = 'invalid_input';
ALTER TABLE schedule_fires
    DROP CONSTRAINT schedule_fires_reason_check,
    ADD CHECK (reason IN
        ('paused', 'overlap', 'missed', 'dst_gap', 'excluded', 'not_startable', 'loop', 'zone_data', 'bound'));
