ALTER TABLE audit_events ENABLE TRIGGER audit_events_append_only;
CREATE INDEX refresh_tokens_expiry ON refresh_tokens (expires_at);
DROP INDEX refresh_tokens_last_expiry;
DROP INDEX refresh_tokens_revoked;
-- Not checked for the rows that are there: they may hold what lower() would write otherwise.
ALTER TABLE users
    ADD CONSTRAINT users_email_check CHECK (email = lower(email) AND octet_length(email) <= 254) NOT VALID,
    DROP CONSTRAINT users_email_length;
DROP TABLE login_throttles;
