-- While runs wait for room, claims take the projects in turn: each has an ordered range for each of its priorities.
CREATE INDEX runs_of_project_claimable ON runs (project_id, priority, available_at, id)
    WHERE state IN ('queued', 'waiting') AND available_at IS NOT NULL;
