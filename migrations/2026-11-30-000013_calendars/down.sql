DROP INDEX schedules_calendars;
ALTER TABLE schedules
    DROP COLUMN calendars,
    DROP COLUMN calendars_read_at,
    DROP COLUMN calendars_problem;
