ALTER TABLE projects DROP COLUMN mcp_servers_version;
DROP TABLE mcp_servers;
