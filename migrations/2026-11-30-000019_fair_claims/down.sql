DROP INDEX runs_of_project_claimable;
