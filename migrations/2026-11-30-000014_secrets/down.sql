ALTER TABLE projects DROP COLUMN secrets_version;
DROP TABLE secrets;
