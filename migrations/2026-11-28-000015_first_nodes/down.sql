ALTER TABLE graphs DROP COLUMN first_nodes;
