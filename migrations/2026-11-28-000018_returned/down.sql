DROP INDEX runs_returned;
