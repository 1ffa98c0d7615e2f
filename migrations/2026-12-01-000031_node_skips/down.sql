DROP FUNCTION take_node_permit;
