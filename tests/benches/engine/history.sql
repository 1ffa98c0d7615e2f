-- Many runs of a year, the first the newest: most of two projects, a quarter of a hundred others, and a few that are all old, of
-- the last project. The schema is empty; `$RUNS` is put in for how many.
INSERT INTO users (id, email, name, password_hash, role)
    SELECT md5('user' || n)::uuid, n || '@example.org', 'n', 'h', 'member' FROM generate_series(1, 3) AS n;
INSERT INTO projects (id, name) SELECT md5('project' || n)::uuid, 'p' FROM generate_series(1, 101) AS n;
-- The first user is in the busiest project and what nobody uses any more, the second in half of all, the third in the last.
INSERT INTO project_members (project_id, user_id, role)
    SELECT md5('project' || project)::uuid, md5('user' || member)::uuid, 'viewer'
    FROM (VALUES (1, 1), (101, 1), (101, 3)) AS named (project, member)
    UNION ALL SELECT md5('project' || n)::uuid, md5('user2')::uuid, 'viewer' FROM generate_series(1, 50) AS n;
INSERT INTO graphs (digest, definition, first_nodes)
    VALUES (sha256('graph'), '{"nodes": [{"id": "n0", "type": "step"}]}', '{n0}');
INSERT INTO pipelines (id, project_id, name, version)
    SELECT md5('pipeline' || n)::uuid, md5('project' || n)::uuid, 'p', 1 FROM generate_series(1, 101) AS n;
INSERT INTO pipeline_versions (pipeline_id, version, graph_digest)
    SELECT md5('pipeline' || n)::uuid, 1, sha256('graph') FROM generate_series(1, 101) AS n;
INSERT INTO instances (id, lock_key, hostname, pid, version) VALUES (md5('instance')::uuid, 1, 'bench', 1, '0');
CREATE TEMPORARY TABLE past AS
    SELECT uuid_v7_floor(at) AS id, md5('project' || project)::uuid AS project_id, has_pipeline, project, state, at,
        state IN ('queued', 'running', 'waiting') AS is_active
    FROM generate_series(1, $RUNS) AS n,
        LATERAL (SELECT now() - n * (interval '365 days' / $RUNS) AS at, n % 3 <> 0 AS has_pipeline,
            CASE WHEN n > 0.9 * $RUNS AND n % 1000 = 999 THEN 101 WHEN n % 100 < 40 THEN 1 WHEN n % 100 < 75 THEN 2
                ELSE 3 + n / 100 % 98 END AS project,
            CASE WHEN n % 3333 = 0 THEN 'queued' WHEN n % 3333 = 1 THEN 'waiting' WHEN n % 3333 = 2 THEN 'running'
                WHEN n % 1009 < 10 THEN 'failed' WHEN n % 1009 < 15 THEN 'cancelled' WHEN n % 1009 < 17 THEN 'timed_out'
                ELSE 'succeeded' END AS state) AS run;
INSERT INTO runs (id, project_id, graph_digest, kind, pipeline_id, pipeline_version, state, input, output, epoch, created_at,
        started_at, ended_at)
    SELECT id, project_id, sha256('graph'), 'pipeline',
        CASE WHEN has_pipeline THEN md5('pipeline' || project)::uuid END, CASE WHEN has_pipeline THEN 1 END,
        CASE WHEN NOT is_active THEN state END, '{"number": 1}',
        CASE WHEN state = 'succeeded' THEN '{"answer": "forty-two"}'::json END, (NOT is_active)::integer, at,
        CASE WHEN NOT is_active THEN at END, CASE WHEN NOT is_active THEN at + interval '1 second' END
    FROM past;
INSERT INTO unsuccessful_runs (run_id, project_id, state)
    SELECT id, project_id, state FROM past WHERE state IN ('failed', 'cancelled', 'timed_out');
INSERT INTO active_runs (run_id, project_id, priority, state, waiting_for, available_at, owner, epoch, started_at)
    SELECT id, project_id, 5, state, CASE WHEN state = 'waiting' THEN 'approval' END,
        CASE WHEN state = 'queued' THEN now() + interval '1 day' END,
        CASE WHEN state = 'running' THEN md5('instance')::uuid END, (state <> 'queued')::integer,
        CASE WHEN state <> 'queued' THEN at END
    FROM past WHERE is_active;
DROP TABLE past;
