-- What bounds guessing of passwords, and what keeps sessions and the audit record quick as they grow.
-- Nothing here needs another server: the old one goes on beside it. Each lock on a table is short: an index takes about
-- a second per million rows, during which that table is read but not written.

CREATE TABLE login_throttles (
    key         bytea       PRIMARY KEY CHECK (octet_length(key) = 32),  -- digest of whose budget it is: a network, an e-mail from a network
    spent_until timestamptz NOT NULL                    -- until when the budget is spent (generic cell rate algorithm); past: it is full, and the row may go
);
COMMENT ON TABLE login_throttles IS 'Budgets of attempts to log in, shared by all instances';
CREATE INDEX login_throttles_end ON login_throttles (spent_until);  -- for clearing away

-- What an address in lower case looks like is decided by the application alone: of some letters PostgreSQL's lower()
-- holds another opinion, depending on its locale, and would refuse them.
ALTER TABLE users
    ADD CONSTRAINT users_email_length CHECK (octet_length(email) <= 254),
    DROP CONSTRAINT users_email_check;

-- Asked with every request: whether any token of a session is revoked, however often the session was refreshed.
CREATE INDEX refresh_tokens_revoked ON refresh_tokens (session_id) WHERE revoked_at IS NOT NULL;

-- For clearing away: a session has one token that is not spent, its last, and is over when that has expired.
CREATE INDEX refresh_tokens_last_expiry ON refresh_tokens (expires_at) WHERE spent_at IS NULL;
DROP INDEX refresh_tokens_expiry;

-- Also for sessions that replay changes (session_replication_role), and for the table's owner as before.
ALTER TABLE audit_events ENABLE ALWAYS TRIGGER audit_events_append_only;
