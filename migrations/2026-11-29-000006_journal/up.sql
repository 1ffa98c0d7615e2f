-- The one record of what happened inside a run. Append-only: no row is ever updated, and rows leave with their partition.

CREATE TABLE run_journal (
    run_id    uuid        NOT NULL,                     -- no foreign key: the check would lock the run's row at every append
    seq       bigint      NOT NULL CHECK (seq > 0),     -- from 1, without gaps; a taken number refuses a late owner
    node_id   text,                                     -- null: the entry is about the run as a whole
    attempt   integer     NOT NULL DEFAULT 0,           -- from 1; 0 where there is none
    kind      text        NOT NULL,                     -- the name of the entry
    payload   json,                                     -- null: the kind says everything, or the payload is a blob
    blob      bytea,                                    -- the digest in `blobs` of a payload that is too large for this table
    owner     uuid,                                     -- the instance that appended it
    epoch     bigint      NOT NULL,                     -- under which claim
    at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, seq)
) PARTITION BY RANGE (run_id);
COMMENT ON TABLE run_journal IS 'Checkpoint, effect ledger, history and event stream of every run';

-- Whether an entry still refers to a blob. The other entries, nearly all, are not in it.
CREATE INDEX run_journal_blob ON run_journal (blob) WHERE blob IS NOT NULL;

-- So that no append fails because a partition is missing.
CREATE TABLE run_journal_rest PARTITION OF run_journal DEFAULT;

-- The smallest UUIDv7 of a time.
CREATE FUNCTION uuid_v7_floor(at timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT (lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

-- Makes the partitions of this week and of the next `weeks` weeks; returns how many were new. Several instances may call it
-- at once. A week that has rows in the rest partition stays there.
--
-- While it waits for a lock on the journal, everybody who comes later waits behind it, and a dump may read for an hour: after
-- a second it gives up, to be called again later.
CREATE FUNCTION run_journal_ensure_partitions(weeks integer) RETURNS integer
LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    first timestamptz;
    lower_bound uuid;
    upper_bound uuid;
    partition text;
    made integer := 0;
BEGIN
    LOCK TABLE run_journal IN SHARE UPDATE EXCLUSIVE MODE;  -- one maker at a time; appends go on
    FOR week IN 0..weeks LOOP
        first := (date_trunc('week', now() AT TIME ZONE 'UTC') + week * interval '1 week') AT TIME ZONE 'UTC';
        lower_bound := uuid_v7_floor(first);
        upper_bound := uuid_v7_floor(first + interval '7 days');
        partition := 'run_journal_' || to_char(first AT TIME ZONE 'UTC', 'YYYYMMDD');
        CONTINUE WHEN EXISTS (SELECT FROM pg_inherits JOIN pg_class ON oid = inhrelid
                              WHERE inhparent = 'run_journal'::regclass AND relname = partition);
        CONTINUE WHEN EXISTS (SELECT FROM run_journal_rest WHERE run_id >= lower_bound AND run_id < upper_bound);
        EXECUTE format('CREATE TABLE %I (LIKE run_journal INCLUDING ALL)', partition);
        EXECUTE format('ALTER TABLE run_journal ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                       partition, lower_bound, upper_bound);
        made := made + 1;
    END LOOP;
    RETURN made;
END $$;

-- Drops the oldest partition that ends before `before` and of which every run ended before it; returns how many, 0 or 1.
-- One at a time: the lock is held until the transaction ends.
CREATE FUNCTION run_journal_drop_partitions(before timestamptz) RETURNS integer
LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    partition record;
    first timestamptz;
BEGIN
    LOCK TABLE run_journal IN SHARE UPDATE EXCLUSIVE MODE;
    FOR partition IN
        SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid
        WHERE inhparent = 'run_journal'::regclass AND relname ~ '^run_journal_[0-9]{8}$' ORDER BY relname
    LOOP
        first := to_date(right(partition.relname, 8), 'YYYYMMDD')::timestamp AT TIME ZONE 'UTC';
        EXIT WHEN first + interval '7 days' > before;
        CONTINUE WHEN EXISTS (SELECT FROM runs WHERE id >= uuid_v7_floor(first)
                              AND id < uuid_v7_floor(first + interval '7 days')
                              AND (ended_at IS NULL OR ended_at >= before));
        EXECUTE format('DROP TABLE %I', partition.relname);
        RETURN 1;
    END LOOP;
    RETURN 0;
END $$;

SELECT run_journal_ensure_partitions(1);

CREATE TABLE blobs (
    digest        bytea       PRIMARY KEY CHECK (octet_length(digest) = 32),  -- BLAKE3 of the content
    content       bytea       NOT NULL,
    size_bytes    bigint      GENERATED ALWAYS AS (octet_length(content)) STORED,
    referenced_at timestamptz NOT NULL DEFAULT now()    -- when the last entry that refers to it was written, to the hour
);
COMMENT ON TABLE blobs IS 'Payloads that are too large for the journal, addressed by their content. Deleted when no entry refers to them';
