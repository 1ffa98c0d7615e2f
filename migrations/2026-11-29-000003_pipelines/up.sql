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
    updated_at  timestamptz NOT NULL DEFAULT now()
);
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
