DROP INDEX runs_overdue;
DROP INDEX runs_cancelling;
