DELETE FROM idempotency_keys WHERE kind = 'schedule';
ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_kind_check,
    ADD CONSTRAINT idempotency_keys_kind_check CHECK (kind IN ('project', 'pipeline', 'api_key'));
DELETE FROM runs WHERE kind = 'action';
ALTER TABLE runs DROP CONSTRAINT runs_kind_check,
    ADD CONSTRAINT runs_kind_check CHECK (kind IN ('pipeline', 'item', 'local'));
DROP TABLE schedule_fires;
DROP TABLE schedules;
