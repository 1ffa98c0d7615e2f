-- Pipelines that are tools of MCP clients. A definition says so; the column saves reading whole definitions for it.

ALTER TABLE graphs ADD COLUMN tool json GENERATED ALWAYS AS (definition -> 'tool') STORED;
COMMENT ON COLUMN graphs.tool IS 'What the definition says of itself as a tool; null: it is none';
