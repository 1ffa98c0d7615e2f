-- People and programs with an account, their sessions and API keys, and the audit record.

CREATE TABLE users (
    id            uuid        PRIMARY KEY,              -- UUIDv7, made by the application
    -- Normalised by the application: lower case, no surrounding blanks. Not checked here: for some letters PostgreSQL's
    -- lower() gives another result, depending on its locale.
    email         text        NOT NULL UNIQUE,
    name          text        NOT NULL,                 -- the display name
    password_hash text        NOT NULL,                 -- bcrypt, in its own text form with salt and cost
    role          text        NOT NULL CHECK (role IN ('admin', 'member')),  -- the global role
    is_active     boolean     NOT NULL DEFAULT true,    -- false: no login, and every token is refused
    created_at    timestamptz NOT NULL DEFAULT now(),   -- database clock
    updated_at    timestamptz NOT NULL DEFAULT now(),   -- database clock
    CONSTRAINT users_email_length CHECK (octet_length(email) <= 254)
);
COMMENT ON TABLE users IS 'People and programs with an account';

CREATE TABLE refresh_tokens (
    token_hash bytea       PRIMARY KEY CHECK (octet_length(token_hash) = 32),  -- the token itself is stored nowhere
    session_id uuid        NOT NULL,                    -- the login that the token descends from; reuse revokes them all
    user_id    uuid        NOT NULL REFERENCES users ON DELETE CASCADE,  -- a session cannot outlive its account
    issued_at  timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    spent_at   timestamptz,                             -- when it was exchanged for its successor; kept, to notice reuse
    revoked_at timestamptz                              -- when its session ended: logout, reuse, password change
);
COMMENT ON TABLE refresh_tokens IS 'Rotating refresh tokens, as hashes';
CREATE INDEX refresh_tokens_session ON refresh_tokens (session_id);
CREATE INDEX refresh_tokens_user ON refresh_tokens (user_id);
-- Every request asks whether any token of its session is revoked, however often the session was refreshed.
CREATE INDEX refresh_tokens_revoked ON refresh_tokens (session_id) WHERE revoked_at IS NOT NULL;
-- For deleting ended sessions: a session has one token that is not spent, its last, and has ended when that has expired.
CREATE INDEX refresh_tokens_last_expiry ON refresh_tokens (expires_at) WHERE spent_at IS NULL;

CREATE TABLE revoked_tokens (
    token_id   uuid        PRIMARY KEY,                 -- the id inside the access token
    user_id    uuid        REFERENCES users ON DELETE CASCADE,
    expires_at timestamptz NOT NULL,                    -- from then on the token is refused anyway, and the row may go
    revoked_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE revoked_tokens IS 'Access tokens that are refused before they expire';
CREATE INDEX revoked_tokens_expiry ON revoked_tokens (expires_at);
CREATE INDEX revoked_tokens_user ON revoked_tokens (user_id);

CREATE TABLE api_keys (
    id           uuid        PRIMARY KEY,
    user_id      uuid        NOT NULL REFERENCES users ON DELETE CASCADE,
    name         text        NOT NULL,                  -- chosen by its owner
    secret_hash  bytea       NOT NULL UNIQUE CHECK (octet_length(secret_hash) = 32),
    scopes       text[]      NOT NULL,                  -- what it may do, at most what its owner may
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,                           -- null: never
    last_used_at timestamptz,                           -- roughly: not written at every use
    revoked_at   timestamptz
);
COMMENT ON TABLE api_keys IS 'Long-lived keys of programs, as hashes';
CREATE INDEX api_keys_user ON api_keys (user_id);

CREATE TABLE idempotency_keys (
    user_id    uuid        NOT NULL REFERENCES users ON DELETE CASCADE,  -- who sent the request
    key        text        NOT NULL,                    -- the client's, in the header Idempotency-Key
    kind       text        NOT NULL CHECK (kind IN ('project', 'pipeline', 'api_key')),  -- what the request created
    digest     bytea       NOT NULL CHECK (octet_length(digest) = 32),  -- of the request: the same key with another request is a conflict
    created_id uuid        NOT NULL,                    -- no foreign key: what was created may have been deleted since
    created_at timestamptz NOT NULL DEFAULT now(),      -- a day later the row may go
    PRIMARY KEY (user_id, key, kind)
);
COMMENT ON TABLE idempotency_keys IS 'Requests that created something once; those that start runs are in runs';
CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);

CREATE TABLE login_throttles (
    key         bytea       PRIMARY KEY CHECK (octet_length(key) = 32),  -- digest of a network, or of an e-mail and a network
    spent_until timestamptz NOT NULL                    -- until when the budget is spent (generic cell rate algorithm); past: it is full, and the row may go
);
COMMENT ON TABLE login_throttles IS 'Budgets of login attempts, shared by all instances';
CREATE INDEX login_throttles_end ON login_throttles (spent_until);  -- for deleting full budgets

CREATE TABLE audit_events (
    id         uuid        PRIMARY KEY,                 -- UUIDv7: sorts by time
    user_id    uuid,                                    -- the account that it is about; no foreign key: the record outlives the account
    type       text        NOT NULL,                    -- such as login_succeeded
    address    text,                                    -- of the client, as far as known
    request_id uuid,                                    -- of the HTTP request
    detail     json        NOT NULL DEFAULT '{}',       -- never a secret
    at         timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE audit_events IS 'What happened to accounts, sessions and keys; append-only';
CREATE INDEX audit_events_user ON audit_events (user_id, id DESC);
CREATE INDEX audit_events_type ON audit_events (type, id DESC);
CREATE INDEX audit_events_at ON audit_events (at);

CREATE FUNCTION audit_events_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('gathering.prunes_audit_events', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'audit events are append-only: % is refused', TG_OP USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION audit_events_refuse_change();
-- Also for sessions that replay changes (session_replication_role), and for the table's owner.
ALTER TABLE audit_events ENABLE ALWAYS TRIGGER audit_events_append_only;

-- Only retention deletes audit events, by this function; returns how many, at most `at_most`.
CREATE FUNCTION audit_events_prune(before timestamptz, at_most integer) RETURNS integer
LANGUAGE plpgsql SET gathering.prunes_audit_events = 'on' AS $$
DECLARE
    pruned integer;
BEGIN
    DELETE FROM audit_events WHERE id IN (SELECT id FROM audit_events WHERE at < before ORDER BY at LIMIT at_most);
    GET DIAGNOSTICS pruned = ROW_COUNT;
    RETURN pruned;
END $$;
