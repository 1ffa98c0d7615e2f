-- What tools ask people while a node executes: the call waits for the answer.

CREATE TABLE node_questions (
    id         uuid        PRIMARY KEY,
    run_id     uuid        NOT NULL REFERENCES runs ON DELETE CASCADE,
    node_id    text        NOT NULL,
    attempt    integer     NOT NULL,
    owner      uuid        NOT NULL,                    -- the claim of the run: a question is open only under it
    epoch      bigint      NOT NULL,
    tool       text        NOT NULL,
    asked_by   text        NOT NULL,                    -- for a tool of an MCP server, the server
    message    text        NOT NULL CHECK (octet_length(message) <= 8192),
    form       json,                                    -- the schema of the answer
    url        text,                                    -- the address that the person is to open
    asked_at   timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,                             -- not answered afterwards
    answer     text        CHECK (answer IN ('accepted', 'declined', 'cancelled')),
    content    json,                                    -- of an accepted form, until the call has taken it
    decided_by uuid        REFERENCES users ON DELETE SET NULL,
    decided_as text,                                    -- the account's name then: it outlives the account
    decided_at timestamptz,
    CONSTRAINT node_questions_request CHECK ((form IS NULL) <> (url IS NULL)),
    CONSTRAINT node_questions_decided CHECK ((answer IS NULL) = (decided_at IS NULL)),
    CONSTRAINT node_questions_content CHECK (content IS NULL OR (answer = 'accepted' AND form IS NOT NULL))
);
COMMENT ON TABLE node_questions IS 'What tools asked people while a node executed, and the answers';
CREATE INDEX node_questions_run ON node_questions (run_id, id);
CREATE INDEX node_questions_user ON node_questions (decided_by) WHERE decided_by IS NOT NULL;
