-- Agents: who does the work of nodes, in versions.

CREATE TABLE agents (
    id         uuid        PRIMARY KEY,
    project_id uuid        NOT NULL REFERENCES projects ON DELETE CASCADE,
    version    integer     NOT NULL CHECK (version > 0),  -- the latest
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
) WITH (fillfactor = 80);
COMMENT ON TABLE agents IS 'Agents, each in its latest version';
CREATE INDEX agents_project ON agents (project_id, id DESC);

CREATE TABLE agent_versions (
    agent_id   uuid        NOT NULL REFERENCES agents ON DELETE CASCADE,
    version    integer     NOT NULL CHECK (version > 0),
    definition json        NOT NULL,
    created_by uuid        REFERENCES users ON DELETE SET NULL,
    created_at timestamptz NOT NULL,                    -- runs that were accepted later have this version
    PRIMARY KEY (agent_id, version)
);
COMMENT ON TABLE agent_versions IS 'What an agent was in each version; never changed';
CREATE INDEX agent_versions_author ON agent_versions (created_by) WHERE created_by IS NOT NULL;

ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_kind_check,
    ADD CONSTRAINT idempotency_keys_kind_check
        CHECK (kind IN ('project', 'pipeline', 'api_key', 'schedule', 'hook', 'agent'));
-- Every row satisfies it already, so none is read under the lock.
ALTER TABLE runs DROP CONSTRAINT runs_kind_check,
    ADD CONSTRAINT runs_kind_check CHECK (kind IN ('pipeline', 'item', 'local', 'action', 'tool', 'agent')) NOT VALID;
COMMENT ON COLUMN runs.kind IS 'What it is one execution of: a pipeline, an item of a map node, a file on the local command line, a single action, a single call of a tool, a single message to an agent';
