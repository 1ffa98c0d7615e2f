DROP TABLE event_retention;
DROP INDEX events_source_key, events_key;
ALTER TABLE events DROP COLUMN attributes, DROP COLUMN source, DROP COLUMN key, DROP COLUMN id;
