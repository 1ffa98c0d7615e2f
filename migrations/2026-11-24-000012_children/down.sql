DROP TABLE node_decisions;
DROP INDEX runs_children_left;
DROP TABLE child_runs;
