-- MCP servers that are mounted in projects, and the definitions of their tools that somebody accepted.

CREATE TABLE mcp_servers (
    project_id uuid        NOT NULL REFERENCES projects ON DELETE CASCADE,
    name       text        NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 24),
    settings   json        NOT NULL,                    -- how it is reached; secrets by their names alone
    pins       json        NOT NULL,                    -- accepted definitions, by the server's names of its tools
    created_by uuid        REFERENCES users ON DELETE SET NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),      -- when definitions were last accepted
    PRIMARY KEY (project_id, name)
);
COMMENT ON TABLE mcp_servers IS 'MCP servers of projects: how they are reached, and the accepted definitions of their tools';
CREATE INDEX mcp_servers_created_by ON mcp_servers (created_by);

-- Grows with every change of a mounted server, so that an instance sees by one number whether it knows them.
ALTER TABLE projects ADD COLUMN mcp_servers_version bigint NOT NULL DEFAULT 0;
