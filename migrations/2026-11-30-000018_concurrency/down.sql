-- Runs that wait for a permit join the queue.
UPDATE runs SET state = 'queued', waiting_for = NULL, available_at = now() WHERE waiting_for = 'concurrency';
DROP INDEX runs_permit;
ALTER TABLE runs
    DROP COLUMN permit_key,
    DROP COLUMN holds_permit,
    DROP CONSTRAINT runs_waiting_for_check,
    ADD CONSTRAINT runs_waiting_for_check CHECK (waiting_for IN ('timer', 'approval', 'child', 'budget_exceeded'));
DROP TABLE permit_requests;
DROP TABLE concurrency_keys;
