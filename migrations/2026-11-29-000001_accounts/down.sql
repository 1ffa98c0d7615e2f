DROP FUNCTION audit_events_prune(timestamptz, integer);
DROP TABLE audit_events;
DROP FUNCTION audit_events_refuse_change();
DROP TABLE idempotency_keys;
DROP TABLE login_throttles;
DROP TABLE api_keys;
DROP TABLE revoked_tokens;
DROP TABLE refresh_tokens;
DROP TABLE users;
