-- Secrets of hooks, encrypted by the server before they come here.

ALTER TABLE hooks
    ADD COLUMN sealed_secrets bytea[] NOT NULL DEFAULT '{}' CHECK (cardinality(sealed_secrets) <= 2),  -- the latest first: nonce, encrypted value, tag; bound to the hook and its project
    ADD COLUMN secret_key_ids text[]  NOT NULL DEFAULT '{}',  -- of the key that each is encrypted with; the keys themselves are not here
    DROP CONSTRAINT hooks_check,
    ADD CONSTRAINT hooks_key_ids CHECK (cardinality(secret_key_ids) = cardinality(sealed_secrets)),
    -- `secrets` has those of earlier versions, until a server encrypts them: at its start, and hourly.
    ADD CONSTRAINT hooks_one_kind CHECK (cardinality(secrets) = 0 OR cardinality(sealed_secrets) = 0),
    ADD CONSTRAINT hooks_scheme CHECK ((scheme = 'none') = (cardinality(secrets) + cardinality(sealed_secrets) = 0));
