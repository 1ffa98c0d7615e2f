DROP TABLE node_outcomes;
DROP TABLE node_decisions;
DROP TABLE child_runs;
DROP TABLE runs;
