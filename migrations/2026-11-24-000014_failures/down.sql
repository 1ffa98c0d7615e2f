DROP INDEX runs_not_succeeded;
