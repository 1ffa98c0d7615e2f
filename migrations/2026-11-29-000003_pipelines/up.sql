-- Graphs, the pipelines that name them, and the circuit breakers of their nodes. Documents are `json`, not `jsonb`: they
-- come back as their author wrote them, no query reads inside, and a string may hold U+0000, which `jsonb` refuses.

CREATE TABLE graphs (
    digest      bytea       PRIMARY KEY CHECK (octet_length(digest) = 32),  -- BLAKE3 of the canonical definition
    definition  json        NOT NULL,                   -- never changed: a run keeps the graph that it began with
    first_nodes text[]      NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE graphs IS 'Immutable definitions, addressed by their content';
COMMENT ON COLUMN graphs.first_nodes IS 'The nodes whose starts the first claim of a run records';

CREATE TABLE pipelines (
    id          uuid        PRIMARY KEY,
    project_id  uuid        NOT NULL REFERENCES projects ON DELETE CASCADE,
    name        text        NOT NULL,
    description text        NOT NULL DEFAULT '',
    enabled     boolean     NOT NULL DEFAULT true,      -- false: starts no run
    version     integer     NOT NULL CHECK (version > 0),  -- the latest, which new runs use
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    deleting_at timestamptz                             -- since when it is being deleted: hidden, and without new runs
);
CREATE INDEX pipelines_deleting ON pipelines (id) WHERE deleting_at IS NOT NULL;
COMMENT ON TABLE pipelines IS 'Named graphs in versions';
CREATE INDEX pipelines_project ON pipelines (project_id, id DESC);

CREATE TABLE pipeline_versions (
    pipeline_id  uuid        NOT NULL REFERENCES pipelines ON DELETE CASCADE,
    version      integer     NOT NULL CHECK (version > 0),
    graph_digest bytea       NOT NULL REFERENCES graphs ON DELETE RESTRICT,  -- a graph in use cannot go
    created_by   uuid        REFERENCES users ON DELETE SET NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pipeline_id, version)
);
COMMENT ON TABLE pipeline_versions IS 'Every definition that a pipeline has had';
CREATE INDEX pipeline_versions_graph ON pipeline_versions (graph_digest);

CREATE TABLE circuit_breakers (
    pipeline_id uuid        NOT NULL REFERENCES pipelines ON DELETE CASCADE,
    node_id     text        NOT NULL,
    state       text        NOT NULL DEFAULT 'closed' CHECK (state IN ('closed', 'open', 'half_open')),
    failures    integer     NOT NULL DEFAULT 0 CHECK (failures >= 0),  -- in a row
    open_until  timestamptz,                            -- when one probe may go
    probe_run   uuid,                                   -- the run whose attempt is the probe
    probe_until timestamptz,                            -- a probe without a result by then is given to another run
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pipeline_id, node_id),
    CHECK ((state = 'half_open') = (probe_run IS NOT NULL)),
    CHECK ((probe_run IS NULL) = (probe_until IS NULL)),
    CHECK (state <> 'open' OR open_until IS NOT NULL)
) WITH (fillfactor = 50);
COMMENT ON TABLE circuit_breakers IS 'Which nodes fail so often that no run tries them now';

-- The project in which a run is accepted, or null: it, or the run's pipeline, does not exist or is being deleted. Waits
-- for a transaction that is hiding it, and keeps it from being hidden until the run is there to be seen.
CREATE FUNCTION run_accepting_project(project uuid, pipeline uuid) RETURNS uuid LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM projects WHERE id = project AND deleting_at IS NULL FOR KEY SHARE;
    IF FOUND AND pipeline IS NOT NULL THEN
        PERFORM FROM pipelines WHERE id = pipeline AND deleting_at IS NULL FOR KEY SHARE;
    END IF;
    RETURN CASE WHEN FOUND THEN project END;
END $$;
