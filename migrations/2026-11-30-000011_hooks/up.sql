-- Hooks: addresses that other programs call, and the ledgers of their calls.

CREATE TABLE hooks (
    id             uuid        PRIMARY KEY,
    project_id     uuid        NOT NULL REFERENCES projects ON DELETE CASCADE,
    name           text        NOT NULL,
    target         json        NOT NULL,                -- an event type, or a pipeline: what a call becomes
    token_hash     bytea       NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),  -- of the last part of its address; the token itself is stored nowhere
    scheme         text        NOT NULL CHECK (scheme IN ('none', 'token', 'gitlab', 'github', 'stripe', 'slack', 'standard')),
    token_header   text        NOT NULL,                -- the header of the scheme `token`, in lower case
    secrets        text[]      NOT NULL DEFAULT '{}' CHECK (cardinality(secrets) <= 2),  -- the latest first; a signature is verified with the secret itself
    rules          json        NOT NULL DEFAULT '{}',   -- the filter `when` and the mapping `map`, as their author wrote them
    max_body_bytes integer     NOT NULL CHECK (max_body_bytes > 0),
    max_per_minute integer     NOT NULL CHECK (max_per_minute > 0),
    is_enabled     boolean     NOT NULL DEFAULT true,
    refused_since  timestamptz NOT NULL DEFAULT now(),  -- the beginning of the hour in which refused calls are counted
    n_refused      integer     NOT NULL DEFAULT 0,      -- entries of refused calls in that hour
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),  -- by people
    CHECK ((scheme = 'none') = (cardinality(secrets) = 0))
) WITH (fillfactor = 80);
COMMENT ON TABLE hooks IS 'Addresses that other programs call, to start runs or to post events';
CREATE INDEX hooks_project ON hooks (project_id, id DESC);

CREATE TABLE hook_deliveries (
    id            uuid        PRIMARY KEY,              -- UUIDv7: sorts by time
    hook_id       uuid        NOT NULL REFERENCES hooks ON DELETE CASCADE,
    key           text,                                 -- the sender's id of the delivery
    outcome       text        NOT NULL CHECK (outcome IN ('accepted', 'filtered', 'refused')),
    reason        text,
    detail        text,                                 -- what is wrong, with its place in the hook
    run_id        uuid,                                 -- no foreign key: the ledger outlives its runs
    event_seq     bigint,                               -- no foreign key: and its events
    redelivery_of uuid,                                 -- the first delivery; no foreign key: it may be deleted before
    call          json,                                 -- headers and body, to be sent again
    size_bytes    bigint      NOT NULL,                 -- of the body
    n_repeats     bigint      NOT NULL DEFAULT 0,       -- how often it came again
    n_calls       bigint      NOT NULL DEFAULT 1,       -- refused calls for which the entry stands
    received_at   timestamptz NOT NULL DEFAULT now(),
    CHECK ((outcome = 'accepted') = (reason IS NULL)),
    CHECK (outcome = 'accepted' OR (run_id IS NULL AND event_seq IS NULL))
) WITH (fillfactor = 90);
COMMENT ON TABLE hook_deliveries IS 'The ledger of the calls of hooks: what became of each';
-- A delivery does something once. A refused one does not take its id, and what is sent again by hand does not count.
CREATE UNIQUE INDEX hook_deliveries_key ON hook_deliveries (hook_id, key)
    WHERE key IS NOT NULL AND redelivery_of IS NULL AND outcome <> 'refused';
CREATE INDEX hook_deliveries_hook ON hook_deliveries (hook_id, id DESC);
CREATE INDEX hook_deliveries_refused ON hook_deliveries (hook_id, reason, id DESC) WHERE outcome = 'refused';
CREATE INDEX hook_deliveries_received ON hook_deliveries USING brin (received_at) WITH (autosummarize = on);

ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_kind_check,
    ADD CONSTRAINT idempotency_keys_kind_check CHECK (kind IN ('project', 'pipeline', 'api_key', 'schedule', 'hook'));
