-- Runs that are one call of a tool, and due times whose input does not fit the pipeline.

ALTER TABLE runs DROP CONSTRAINT runs_kind_check,
    ADD CONSTRAINT runs_kind_check CHECK (kind IN ('pipeline', 'item', 'local', 'action', 'tool'));
COMMENT ON COLUMN runs.kind IS 'What it is one execution of: a pipeline, an item of a map node, a file on the local command line, a single action, a single call of a tool';

ALTER TABLE schedule_fires
    DROP CONSTRAINT schedule_fires_reason_check,
    ADD CONSTRAINT schedule_fires_reason_check CHECK (reason IN
        ('paused', 'overlap', 'missed', 'dst_gap', 'excluded', 'not_startable', 'invalid_input', 'loop', 'zone_data',
         'bound'));
