-- Days of schedules that come from calendars.

-- A server of the version before plans by `days`, and leaves the other column alone.
ALTER TABLE schedules
    -- {files, read_at, problem}: the path in the workspace by the list of `days` that comes from it, when the days were read,
    -- and why they cannot be read since.
    ADD COLUMN calendars json;
CREATE INDEX schedules_calendars ON schedules (project_id) WHERE calendars IS NOT NULL;
