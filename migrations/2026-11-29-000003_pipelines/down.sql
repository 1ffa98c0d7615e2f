DROP FUNCTION run_accepting_project(uuid, uuid);
DROP TABLE circuit_breakers;
DROP TABLE pipeline_versions;
DROP TABLE pipelines;
DROP TABLE graphs;
