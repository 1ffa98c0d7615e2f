-- A call that no budget can pay yet stands beside those that are paid, so that whoever gives something back finds who waits.

ALTER TABLE budget_reservations ADD COLUMN is_granted boolean NOT NULL DEFAULT true;
COMMENT ON TABLE budget_reservations IS 'Worst cases of calls that are under way, and of calls that wait for their budget';
COMMENT ON COLUMN budget_reservations.is_granted IS 'Whether it is part of what its budget has reserved; else its run waits for that';
CREATE INDEX budget_reservations_open ON budget_reservations (budget_id, is_granted, created_at);
