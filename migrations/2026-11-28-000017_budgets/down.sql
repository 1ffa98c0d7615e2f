DELETE FROM budget_reservations WHERE NOT is_granted;
DROP INDEX budget_reservations_open;
ALTER TABLE budget_reservations DROP COLUMN is_granted;
COMMENT ON TABLE budget_reservations IS 'Worst cases of calls that are under way';
