DROP TABLE blobs;
DROP FUNCTION run_journal_next_drop(timestamptz);
DROP FUNCTION run_journal_ensure_partitions(integer);
DROP TABLE run_journal;
DROP FUNCTION uuid_v7_floor(timestamptz);
