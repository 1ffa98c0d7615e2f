-- Secrets of projects, encrypted by the server before they come here.

CREATE TABLE secrets (
    id           uuid        PRIMARY KEY,               -- UUIDv7: sorts by time
    project_id   uuid        NOT NULL REFERENCES projects ON DELETE CASCADE,
    name         text        NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 64),
    key_id       text        NOT NULL,                  -- of the key that it is encrypted with; the key itself is not here
    sealed       bytea       NOT NULL,                  -- nonce, encrypted value, tag; bound to the project and the name
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),    -- when the value was last set
    last_used_at timestamptz,                           -- when a run last began to use it
    UNIQUE (project_id, name)
);
COMMENT ON TABLE secrets IS 'Secrets of projects: names, and values that only the server can decrypt';
-- Finds what is encrypted with an older key.
CREATE INDEX secrets_key ON secrets (key_id, id);

-- Grows with every change of a secret of the project, so that an instance sees by one number whether it knows them.
ALTER TABLE projects ADD COLUMN secrets_version bigint NOT NULL DEFAULT 0;
