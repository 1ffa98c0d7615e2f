DELETE FROM idempotency_keys WHERE kind = 'agent';
ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_kind_check,
    ADD CONSTRAINT idempotency_keys_kind_check CHECK (kind IN ('project', 'pipeline', 'api_key', 'schedule', 'hook'));
DELETE FROM runs WHERE kind = 'agent';
ALTER TABLE runs DROP CONSTRAINT runs_kind_check,
    ADD CONSTRAINT runs_kind_check CHECK (kind IN ('pipeline', 'item', 'local', 'action', 'tool'));
COMMENT ON COLUMN runs.kind IS 'What it is one execution of: a pipeline, an item of a map node, a file on the local command line, a single action, a single call of a tool';
DROP TABLE agent_versions;
DROP TABLE agents;
