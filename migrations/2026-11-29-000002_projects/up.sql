-- Projects own pipelines and runs; membership decides who may see and change them.

CREATE TABLE projects (
    id             uuid        PRIMARY KEY,
    name           text        NOT NULL,
    description    text        NOT NULL DEFAULT '',
    default_for    uuid        UNIQUE REFERENCES users ON DELETE SET NULL,  -- the account whose default project it is: a create call without a project lands there
    workspace_path text        UNIQUE,                     -- absolute path of its files, for runs of the local command line; null: the server's own root decides
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    deleting_at    timestamptz                          -- since when it is being deleted: hidden, and without new runs
);
CREATE INDEX projects_deleting ON projects (id) WHERE deleting_at IS NOT NULL;
COMMENT ON TABLE projects IS 'The unit of ownership and of access';

CREATE TABLE project_members (
    project_id uuid        NOT NULL REFERENCES projects ON DELETE CASCADE,
    user_id    uuid        NOT NULL REFERENCES users ON DELETE CASCADE,
    role       text        NOT NULL CHECK (role IN ('owner', 'editor', 'viewer')),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, user_id)
);
COMMENT ON TABLE project_members IS 'Who may see and change a project';
CREATE INDEX project_members_user ON project_members (user_id, project_id);
