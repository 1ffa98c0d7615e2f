-- What every run writes is written less often: a row of `runs` has three versions and a row of `events` comes with two of them,
-- so each check and each index here is paid several times by the smallest run.

-- A claim locks the row of its instance, once for all runs that it takes, instead of one check for each of them.
ALTER TABLE runs DROP CONSTRAINT runs_owner_fkey;

-- Most runs come into this index once, when they have ended; those that have not are found by `runs_claimable` and `runs_owner`.
CREATE INDEX runs_ended ON runs (project_id, state, id) WHERE ended_at IS NOT NULL;
DROP INDEX runs_project_state;

-- The tree that a run belongs to is asked for run by run.
DROP INDEX child_runs_root;

-- A project takes its events with it when it is deleted.
ALTER TABLE events DROP CONSTRAINT events_project_id_fkey;
-- Read only in order and by what came since, or by their age.
DROP INDEX events_type;
DROP INDEX events_at;
CREATE INDEX events_at ON events USING brin (at) WITH (autosummarize = on);
