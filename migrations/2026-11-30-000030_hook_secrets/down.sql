-- Only a server can decrypt: a hook whose secrets are gone could verify nobody, so it goes with them.
DELETE FROM hooks WHERE cardinality(sealed_secrets) > 0;
ALTER TABLE hooks
    DROP CONSTRAINT hooks_scheme,
    DROP CONSTRAINT hooks_one_kind,
    DROP CONSTRAINT hooks_key_ids,
    DROP COLUMN sealed_secrets,
    DROP COLUMN secret_key_ids,
    ADD CONSTRAINT hooks_check CHECK ((scheme = 'none') = (cardinality(secrets) = 0));
