-- Runs that were claimed before and are queued again keep their place by age, which is behind where claims begin to look.

CREATE INDEX runs_returned ON runs (available_at) WHERE state = 'queued' AND epoch > 0;
