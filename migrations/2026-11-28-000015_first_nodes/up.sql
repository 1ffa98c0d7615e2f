-- What a run begins with, beside its definition: the claim that begins a run records those starts in its own transaction.

-- Null: stored by a version that did not tell; runs of such a graph begin with a checkpoint of their own.
ALTER TABLE graphs ADD COLUMN first_nodes text[];
COMMENT ON COLUMN graphs.first_nodes IS 'The nodes whose starts the first claim of a run records';
