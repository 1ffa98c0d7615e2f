DROP INDEX schedules_calendars;
ALTER TABLE schedules DROP COLUMN calendars;
