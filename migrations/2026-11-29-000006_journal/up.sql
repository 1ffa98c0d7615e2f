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

-- The smallest UUIDv7 of a time.
CREATE FUNCTION uuid_v7_floor(at timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT (lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

-- Makes the partitions of last week, of this one and of the next `weeks` weeks; returns how many were new. Several instances
-- may call it at once. Nobody who reads or writes the journal is in its way: there is no default partition, which a new one
-- would lock to see that none of its rows are there.
CREATE FUNCTION run_journal_ensure_partitions(weeks integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    first timestamptz;
    partition text;
    made integer := 0;
BEGIN
    LOCK TABLE run_journal IN SHARE UPDATE EXCLUSIVE MODE;  -- one maker at a time; appends go on
    FOR week IN -1..weeks LOOP
        first := (date_trunc('week', now() AT TIME ZONE 'UTC') + week * interval '1 week') AT TIME ZONE 'UTC';
        partition := 'run_journal_' || to_char(first AT TIME ZONE 'UTC', 'YYYYMMDD');
        CONTINUE WHEN EXISTS (SELECT FROM pg_inherits JOIN pg_class ON oid = inhrelid
                              WHERE inhparent = 'run_journal'::regclass AND relname = partition);
        EXECUTE format('CREATE TABLE %I (LIKE run_journal INCLUDING ALL)', partition);
        EXECUTE format('ALTER TABLE run_journal ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                       partition, uuid_v7_floor(first), uuid_v7_floor(first + interval '7 days'));
        made := made + 1;
    END LOOP;
    RETURN made;
END $$;

-- The next statement that drops a partition that ends before `before` and of which every run ended before it; no row if there
-- is none. A partition is detached, maybe in two steps, and then dropped: the last statement. What was begun comes first. Last
-- week's stays, for instances whose clock is behind.
CREATE FUNCTION run_journal_next_drop(before timestamptz) RETURNS TABLE (statement text, is_last boolean)
LANGUAGE sql STABLE AS $$
    WITH weeks AS (
        SELECT relname, inhdetachpending AS is_pending, inhrelid IS NULL AS is_detached,
            to_date(right(relname, 8), 'YYYYMMDD')::timestamp AT TIME ZONE 'UTC' AS first
        FROM pg_class LEFT JOIN pg_inherits ON inhrelid = pg_class.oid
        WHERE relkind = 'r' AND relname ~ '^run_journal_[0-9]{8}$'
            AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'run_journal'::regclass)
    )
    SELECT CASE
            WHEN is_detached THEN format('DROP TABLE %I', relname)
            WHEN is_pending THEN format('ALTER TABLE run_journal DETACH PARTITION %I FINALIZE', relname)
            ELSE format('ALTER TABLE run_journal DETACH PARTITION %I CONCURRENTLY', relname)
        END,
        is_detached
    FROM weeks
    WHERE is_detached OR is_pending OR (
        first + interval '7 days' <= before
        AND first < (date_trunc('week', now() AT TIME ZONE 'UTC') - interval '1 week') AT TIME ZONE 'UTC'
        AND NOT EXISTS (SELECT FROM runs WHERE id >= uuid_v7_floor(first) AND id < uuid_v7_floor(first + interval '7 days')
                        AND (ended_at IS NULL OR ended_at >= before))
    )
    ORDER BY is_detached DESC, is_pending DESC, relname
    LIMIT 1
$$;

SELECT run_journal_ensure_partitions(4);

CREATE TABLE blobs (
    digest        bytea       PRIMARY KEY CHECK (octet_length(digest) = 32),  -- BLAKE3 of the content
    content       bytea       NOT NULL,
    size_bytes    bigint      GENERATED ALWAYS AS (octet_length(content)) STORED,
    referenced_at timestamptz NOT NULL DEFAULT now()    -- when the last entry that refers to it was written, to the hour
);
COMMENT ON TABLE blobs IS 'Payloads that are too large for the journal, addressed by their content. Deleted when no entry refers to them';
