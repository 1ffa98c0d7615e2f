-- Runs that nobody drives and that have only their end before them are claimed whether or not there is room for others.

CREATE INDEX runs_cancelling ON runs (id) WHERE cancel_requested_at IS NOT NULL AND state IN ('queued', 'waiting');
CREATE INDEX runs_overdue ON runs (deadline_at) WHERE deadline_at IS NOT NULL AND state IN ('queued', 'waiting');
