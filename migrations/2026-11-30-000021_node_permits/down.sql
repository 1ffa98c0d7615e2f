DROP FUNCTION ask_node_permit;
DROP TABLE node_permits;
DELETE FROM concurrency_keys WHERE of_nodes OR pipeline_id IS NULL;
ALTER TABLE concurrency_keys
    DROP COLUMN of_nodes,
    ALTER COLUMN pipeline_id SET NOT NULL;
