-- Limits of nodes: how many attempts of a node execute at once in all runs. They share the keys of the limits of runs; their
-- line is served by waking the runs.

ALTER TABLE concurrency_keys
    ALTER COLUMN pipeline_id DROP NOT NULL,                     -- null: of the items of a `map`
    ADD COLUMN of_nodes boolean NOT NULL DEFAULT false;         -- its line is that of nodes
COMMENT ON TABLE concurrency_keys IS 'The runs of one pipeline, or the attempts of one node, that are limited together: how many permits they have and hold';

CREATE TABLE node_permits (
    run_id   uuid        NOT NULL,                  -- no foreign key: its check would lock the row of the run
    node_id  text        NOT NULL,
    key_id   uuid        NOT NULL,
    is_held  boolean     NOT NULL,                  -- else it stands in the line of its key
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_id, node_id)
) WITH (fillfactor = 70);
COMMENT ON TABLE node_permits IS 'Nodes that have a permit to execute, or wait for one';
CREATE INDEX node_permits_line ON node_permits (key_id, asked_at, run_id, node_id) WHERE NOT is_held;

-- Asks for the permit of a node of a run that is claimed so. Whether the node has it; null if the claim is lost. The row of
-- the key is locked from its first line to the commit, so that counters and line fit together; the row of the run is kept.
CREATE FUNCTION ask_node_permit(run uuid, its_owner uuid, its_epoch bigint, node text, key uuid, pipeline uuid, key_text text,
    n_permits integer) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    has_it boolean;
BEGIN
    SELECT is_held INTO has_it FROM node_permits WHERE run_id = run AND node_id = node;
    IF FOUND THEN
        RETURN has_it;
    END IF;
    PERFORM FROM active_runs WHERE run_id = run AND owner = its_owner AND epoch = its_epoch FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    INSERT INTO concurrency_keys AS k (id, pipeline_id, key, permits, held, of_nodes)
    VALUES (key, pipeline, key_text, n_permits, 1, true)
    ON CONFLICT (id) DO UPDATE SET permits = n_permits,
        held = k.held + (k.waiting = 0 AND k.held < n_permits)::integer,
        waiting = k.waiting + (k.waiting > 0 OR k.held >= n_permits)::integer
    RETURNING waiting = 0 INTO has_it;
    INSERT INTO node_permits (run_id, node_id, key_id, is_held) VALUES (run, node, key, has_it);
    RETURN has_it;
END $$;
