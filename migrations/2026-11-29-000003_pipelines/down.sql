DROP TABLE circuit_breakers;
DROP TABLE pipeline_versions;
DROP TABLE pipelines;
DROP TABLE graphs;
