-- The few runs that ended otherwise than well, of all projects: without it a page of them is looked for among all that ended well.
CREATE INDEX runs_not_succeeded ON runs (state, id) WHERE ended_at IS NOT NULL AND state <> 'succeeded';
