-- Runs that nodes start, and what people decide about nodes that wait for them.

CREATE TABLE child_runs (
    run_id        uuid    PRIMARY KEY REFERENCES runs ON DELETE CASCADE,
    parent_run_id uuid    NOT NULL REFERENCES runs ON DELETE CASCADE,  -- also in `runs`, where its end looks for it
    node_id       text    NOT NULL,                     -- whose node started it
    round         integer NOT NULL,                     -- how many attempts of the node failed before: each had children of its own
    item          integer NOT NULL,                     -- which of the node's children it is, from 0
    root_run_id   uuid    NOT NULL,                     -- the run that the tree began with
    depth         integer NOT NULL                      -- how many runs are above it
);
COMMENT ON TABLE child_runs IS 'The place of a run below another that waits for it';
CREATE UNIQUE INDEX child_runs_place ON child_runs (parent_run_id, node_id, round, item);
CREATE INDEX child_runs_root ON child_runs (root_run_id);
-- Of many children the few that have not succeeded, so that counting what is left does not look at all.
CREATE INDEX runs_children_left ON runs (parent_run_id) WHERE parent_run_id IS NOT NULL AND state <> 'succeeded';

CREATE TABLE node_decisions (
    run_id     uuid        NOT NULL REFERENCES runs ON DELETE CASCADE,
    node_id    text        NOT NULL,
    approve    boolean     NOT NULL,
    comment    text,
    decided_by uuid        REFERENCES users ON DELETE SET NULL,
    decided_as text        NOT NULL,                    -- who decided, as people know them: outlives the account
    decided_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, node_id)                       -- the first decision stands
);
COMMENT ON TABLE node_decisions IS 'What people decided about nodes that waited for them';
CREATE INDEX node_decisions_user ON node_decisions (decided_by) WHERE decided_by IS NOT NULL;
