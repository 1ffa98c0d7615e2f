DROP INDEX events_at;
CREATE INDEX events_at ON events (at);
CREATE INDEX events_type ON events (type, seq);
DELETE FROM events WHERE project_id NOT IN (SELECT id FROM projects);
ALTER TABLE events ADD CONSTRAINT events_project_id_fkey FOREIGN KEY (project_id) REFERENCES projects ON DELETE CASCADE;
CREATE INDEX child_runs_root ON child_runs (root_run_id);
CREATE INDEX runs_project_state ON runs (project_id, state, id);
DROP INDEX runs_ended;
ALTER TABLE runs ADD CONSTRAINT runs_owner_fkey FOREIGN KEY (owner) REFERENCES instances ON DELETE NO ACTION;
