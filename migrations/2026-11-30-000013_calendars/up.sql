-- Days of schedules that come from calendars.

-- A server of the version before plans by `days`, and leaves the other columns alone.
ALTER TABLE schedules
    ADD COLUMN calendars json,                 -- the path in the workspace, by the list of `days` that comes from it
    ADD COLUMN calendars_read_at timestamptz,  -- when `days` were read from there
    ADD COLUMN calendars_problem text,         -- why they cannot be read since
    ADD CONSTRAINT schedules_calendars_check CHECK (
        (calendars IS NULL) = (calendars_read_at IS NULL) AND (calendars_problem IS NULL OR calendars IS NOT NULL));
CREATE INDEX schedules_calendars ON schedules (project_id) WHERE calendars IS NOT NULL;
