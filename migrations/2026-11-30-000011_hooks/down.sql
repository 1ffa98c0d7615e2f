DELETE FROM idempotency_keys WHERE kind = 'hook';
ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_kind_check,
    ADD CONSTRAINT idempotency_keys_kind_check CHECK (kind IN ('project', 'pipeline', 'api_key', 'schedule'));
DROP TABLE hook_deliveries;
DROP TABLE hooks;
