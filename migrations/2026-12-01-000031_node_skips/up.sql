-- Nodes that are skipped where there is no permit: they never stand in line.

-- Takes the permit of a node of a run that is claimed so, if one is free and the line is empty. Whether the node has it; null
-- if the claim is lost. What it locks, and when, is as in `ask_node_permit`.
CREATE FUNCTION take_node_permit(run uuid, its_owner uuid, its_epoch bigint, node text, its_key uuid, pipeline uuid, key_text text,
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
    VALUES (its_key, pipeline, key_text, n_permits, 1, true)
    ON CONFLICT (id) DO UPDATE SET permits = n_permits, held = k.held + 1 WHERE k.waiting = 0 AND k.held < n_permits;
    IF FOUND THEN
        INSERT INTO node_permits (run_id, node_id, key_id, is_held) VALUES (run, node, its_key, true);
        RETURN true;
    END IF;
    -- Those that ask last say how many permits there are, also where they get none.
    UPDATE concurrency_keys SET permits = n_permits WHERE id = its_key AND permits <> n_permits;
    RETURN false;
END $$;
