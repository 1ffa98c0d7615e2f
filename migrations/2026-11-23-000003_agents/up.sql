-- Agents, the circles that they work in, and the tasks given to circles.
-- The composite foreign keys keep a circle, its members and its tasks within one project.

CREATE TABLE agents (
    id              uuid        PRIMARY KEY,
    project_id      uuid        NOT NULL REFERENCES projects ON DELETE CASCADE,
    name            text        NOT NULL,
    role            text        NOT NULL DEFAULT '',    -- what it is in a team, in words
    instructions    text        NOT NULL DEFAULT '',    -- its system prompt
    provider        text        NOT NULL,               -- name of a configured provider
    model           text        NOT NULL,               -- the provider's name of the model
    temperature     double precision,                   -- null: the provider's default
    tools           text[]      NOT NULL DEFAULT '{}',  -- names of the tools that it may call
    competencies    text[]      NOT NULL DEFAULT '{}',  -- what tasks are routed by
    max_steps       integer     CHECK (max_steps > 0),  -- model calls per task; null: the server's default
    max_tokens      bigint      CHECK (max_tokens > 0), -- tokens per task; null: the server's default
    timeout_seconds integer     CHECK (timeout_seconds > 0),
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE (project_id, id)
);
COMMENT ON TABLE agents IS 'Instructions, a model and tools';

CREATE TABLE circles (
    id                   uuid        PRIMARY KEY,
    project_id           uuid        NOT NULL REFERENCES projects ON DELETE CASCADE,
    name                 text        NOT NULL,
    description          text        NOT NULL DEFAULT '',
    require_review       boolean     NOT NULL DEFAULT false,  -- a task's result waits for a person
    auto_route           boolean     NOT NULL DEFAULT true,   -- the server chooses the member
    max_concurrent_tasks integer     NOT NULL DEFAULT 4 CHECK (max_concurrent_tasks > 0),
    created_at           timestamptz NOT NULL DEFAULT now(),
    updated_at           timestamptz NOT NULL DEFAULT now(),
    UNIQUE (project_id, id)
);
COMMENT ON TABLE circles IS 'Teams of agents';

CREATE TABLE circle_members (
    circle_id  uuid        NOT NULL,
    agent_id   uuid        NOT NULL,
    project_id uuid        NOT NULL REFERENCES projects ON DELETE CASCADE,
    role       text        NOT NULL DEFAULT '',         -- what the agent is in this circle, in words
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (circle_id, agent_id),
    FOREIGN KEY (project_id, circle_id) REFERENCES circles (project_id, id) ON DELETE CASCADE,
    FOREIGN KEY (project_id, agent_id) REFERENCES agents (project_id, id) ON DELETE CASCADE
);
COMMENT ON TABLE circle_members IS 'Which agents work in a circle';
CREATE INDEX circle_members_agent ON circle_members (agent_id);
CREATE INDEX circle_members_project ON circle_members (project_id);

CREATE TABLE tasks (
    id                    uuid        PRIMARY KEY,
    project_id            uuid        NOT NULL REFERENCES projects ON DELETE CASCADE,
    circle_id             uuid        NOT NULL,
    agent_id              uuid,                         -- who does it; null: not routed yet, or the agent is gone
    title                 text        NOT NULL,
    description           text        NOT NULL DEFAULT '',
    priority              integer     NOT NULL DEFAULT 5 CHECK (priority BETWEEN 1 AND 10),  -- 10 is the most urgent
    required_competencies text[]      NOT NULL DEFAULT '{}',
    state                 text        NOT NULL DEFAULT 'queued'
                                      CHECK (state IN ('queued', 'running', 'in_review', 'succeeded', 'failed', 'cancelled', 'timed_out')),
    result                json,                         -- the output of its last run
    rejection             text,                         -- the reason of the last reviewer who sent it back
    created_at            timestamptz NOT NULL DEFAULT now(),
    updated_at            timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (project_id, circle_id) REFERENCES circles (project_id, id) ON DELETE CASCADE,
    FOREIGN KEY (project_id, agent_id) REFERENCES agents (project_id, id) ON DELETE SET NULL (agent_id)
);
COMMENT ON TABLE tasks IS 'Work given to a circle';
CREATE INDEX tasks_circle ON tasks (circle_id, id DESC);
CREATE INDEX tasks_project ON tasks (project_id, id DESC);
CREATE INDEX tasks_agent ON tasks (agent_id, state);  -- also: how busy an agent is
