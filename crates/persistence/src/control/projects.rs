//! Projects: made, found, listed, changed and deleted. Who is a member of one is [`members`](crate::control::members)' noun.
//!
//! What may not happen to a project ([`ProjectRefusal`]) is decided under a lock on its row, and what did happen is in
//! the audit record by the same transaction. To accounts, whatever they are, the projects of the local command line are not
//! there ([`is_of_accounts`]): their files are a directory of the operator.

use chrono::{DateTime, Utc};
use diesel::dsl::exists;
use diesel::prelude::*;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use gathering_auth::{AuditEvent, AuditKind, Denied, Origin, ProjectRole};
use gathering_control::{Found, LocalProject};
use gathering_domain::{ProjectId, RunState, UserId};
use serde_json::json;
use uuid::Uuid;

use crate::accounts::audit;
use crate::control::deletions::{self, Hidden};
use crate::control::members;
use crate::db::error::{DatabaseError, Refusal, violated};
use crate::db::exactly_one::exactly_one;
use crate::db::pool::Pool;
use crate::db::schema::{project_members, projects, runs};

/// A project as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Which.
    pub id: ProjectId,
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Where its files are, if it is of the local command line; else the server's own root decides.
    pub workspace_path: Option<String>,
    /// Since when, in UTC.
    pub created_at: DateTime<Utc>,
    /// When it was last changed, in UTC.
    pub updated_at: DateTime<Utc>,
}

/// A project, and what one account is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectSeen {
    /// The project.
    pub project: Project,
    /// The role of whom it is shown to; `None` if they are no member.
    pub role: Option<ProjectRole>,
}

/// Whom a list of projects is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Viewer {
    /// Sees the projects that they are a member of.
    Member(UserId),
    /// Sees every project.
    Admin(UserId),
}

/// Why something is not done to a project; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProjectRefusal {
    /// It would have no owner.
    #[error("the last owner of a project stays one")]
    LastOwner,
    /// It is somebody's default project.
    #[error("a default project is not deleted")]
    DefaultProject,
    /// Runs of it have not ended.
    #[error("the project has runs that have not ended")]
    RunsActive,
}

/// Why a project or its members are not changed.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// It may not be done now.
    #[error(transparent)]
    Refused(#[from] ProjectRefusal),
    /// The caller may not do it, or not any more.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The caller's account is disabled or gone.
    #[error("the caller's account no longer holds")]
    Revoked,
    /// The database did not do it; [`DatabaseError::Missing`] if the project or the account is not there.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// The projects. Cloning is cheap and shares the pool.
#[derive(Debug, Clone)]
pub struct Projects {
    pub(crate) pool: Pool,
}

impl Projects {
    /// The projects where `pool` leads.
    pub const fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// Creates a project with `by` as its owner, and records that.
    ///
    /// # Errors
    /// [`DatabaseError::Missing`] if there is no such user; nothing was created.
    pub async fn create(
        &self,
        id: ProjectId,
        name: &str,
        description: &str,
        by: UserId,
        origin: Origin,
    ) -> Result<Project, DatabaseError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let created = conn.transaction(async |conn| {
            let row = diesel::insert_into(projects::table)
                .values((
                    projects::id.eq(id.as_uuid()),
                    projects::name.eq(name),
                    projects::description.eq(description),
                ))
                .returning(Row::as_returning())
                .get_result::<Row>(conn)
                .await?;
            members::insert(conn, id, by, ProjectRole::Owner).await?;
            let detail = json!({ "project": id, "role": ProjectRole::Owner.as_str(), "by": by });
            let event = AuditEvent::new(AuditKind::ProjectCreated, Some(by), origin).with_detail(detail);
            audit::insert(conn, &event).await?;
            Ok(row)
        });
        created.await.map(Into::into).map_err(|error| missing_or("creating a project", error))
    }

    /// The project, without a check of access: for what the server does by itself. One that is being deleted is not
    /// found. [`Projects::find_access`] tells what an account may do.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`].
    pub async fn find(&self, id: ProjectId) -> Result<Option<Project>, DatabaseError> {
        let conn = self.pool.get().await?;
        let row: Option<Row> = projects::table
            .find(id.as_uuid())
            .filter(projects::deleting_at.is_null())
            .select(Row::as_select())
            .first(&mut &*conn)
            .await
            .optional()
            .map_err(|error| DatabaseError::query("looking for a project", error))?;
        Ok(row.map(Into::into))
    }

    /// What this account is in the project: `None` if to accounts there is no such project, `Some(None)` if it is no
    /// member.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] or [`DatabaseError::Corrupt`].
    pub async fn find_access(
        &self,
        id: ProjectId,
        user: UserId,
    ) -> Result<Option<Option<ProjectRole>>, DatabaseError> {
        let conn = self.pool.get().await?;
        let role: Option<Option<String>> = projects::table
            .left_join(project_members::table.on(membership_of(user.as_uuid())))
            .filter(projects::id.eq(id.as_uuid()).and(is_of_accounts()))
            .select(project_members::role.nullable())
            .first(&mut &*conn)
            .await
            .optional()
            .map_err(|error| DatabaseError::query("looking for the access to a project", error))?;
        role.map(|role| role.map(|role| parse_role(&role)).transpose()).transpose()
    }

    /// The project, and what this account is in it; also if it is no member.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] or [`DatabaseError::Corrupt`].
    pub async fn find_for(&self, id: ProjectId, user: UserId) -> Result<Option<ProjectSeen>, DatabaseError> {
        let conn = self.pool.get().await?;
        let row: Option<SeenRow> = projects::table
            .left_join(project_members::table.on(membership_of(user.as_uuid())))
            .filter(projects::id.eq(id.as_uuid()).and(is_of_accounts()))
            .select((Row::as_select(), project_members::role.nullable()))
            .first(&mut &*conn)
            .await
            .optional()
            .map_err(|error| DatabaseError::query("looking for a project", error))?;
        row.map(seen).transpose()
    }

    /// Where a create call of this user lands that names no project.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`].
    pub async fn find_default(&self, user: UserId) -> Result<Option<ProjectId>, DatabaseError> {
        let conn = self.pool.get().await?;
        find_default(&conn, user).await
    }

    /// At most `limit` projects, the newest first, each with what the viewer is in it. `before` is the last of the page
    /// before.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] or [`DatabaseError::Corrupt`].
    pub async fn list(
        &self,
        viewer: Viewer,
        before: Option<ProjectId>,
        limit: usize,
    ) -> Result<Vec<ProjectSeen>, DatabaseError> {
        let conn = self.pool.get().await?;
        let (Viewer::Member(user) | Viewer::Admin(user)) = viewer;
        let mut query = projects::table
            .left_join(project_members::table.on(membership_of(user.as_uuid())))
            .filter(is_of_accounts())
            .select((Row::as_select(), project_members::role.nullable()))
            .order(projects::id.desc())
            .limit(i64::try_from(limit).unwrap_or(i64::MAX))
            .into_boxed();
        if let Viewer::Member(_) = viewer {
            // Makes the join an inner one, led by the memberships.
            query = query.filter(project_members::user_id.eq(user.as_uuid()));
        }
        if let Some(before) = before {
            query = query.filter(projects::id.lt(before.as_uuid()));
        }
        let rows: Vec<SeenRow> =
            query.load(&mut &*conn).await.map_err(|error| DatabaseError::query("listing projects", error))?;
        rows.into_iter().map(seen).collect()
    }

    /// Changes what is given.
    ///
    /// # Errors
    /// [`DatabaseError::Missing`] if there is no such project.
    pub async fn update(
        &self,
        id: ProjectId,
        name: Option<&str>,
        description: Option<&str>,
    ) -> Result<Project, DatabaseError> {
        let conn = self.pool.get().await?;
        let row: Option<Row> = diesel::update(projects::table.find(id.as_uuid()).filter(is_of_accounts()))
            .set((
                name.map(|name| projects::name.eq(name)),
                description.map(|description| projects::description.eq(description)),
                projects::updated_at.eq(diesel::dsl::now),
            ))
            .returning(Row::as_returning())
            .get_results(&mut &*conn)
            .await
            .and_then(exactly_one)
            .optional()
            .map_err(|error| DatabaseError::query("changing a project", error))?;
        row.map(Into::into).ok_or(DatabaseError::Missing { what: "the project" })
    }

    /// Deletes a project with everything in it but its files, and records that. Answers whether there was one.
    ///
    /// Once this returns, nobody finds the project and no run of it starts; [`finish_deletions`] removes what is left of
    /// its rows. The journals of its runs leave with their partitions.
    ///
    /// [`finish_deletions`]: crate::finish_deletions
    ///
    /// # Errors
    /// [`ProjectRefusal::DefaultProject`] or [`ProjectRefusal::RunsActive`], or the database's; nothing was deleted.
    pub async fn delete(&self, id: ProjectId, by: UserId, origin: Origin) -> Result<bool, ProjectError> {
        let is_hidden = {
            let mut conn = self.pool.get().await?;
            let conn: &mut AsyncPgConnection = &mut conn;
            let hidden = conn.transaction(async |conn| hide(conn, id, by, origin).await).await;
            hidden.map_err(|error| DatabaseError::query("deleting a project", error))??
        };
        if is_hidden {
            deletions::begin(&self.pool, Hidden::Project(id.as_uuid())).await;
        }
        Ok(is_hidden)
    }

    /// What this user may do in this project, if they are a member.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] or [`DatabaseError::Corrupt`].
    pub async fn find_role(&self, id: ProjectId, user: UserId) -> Result<Option<ProjectRole>, DatabaseError> {
        Ok(self.find_access(id, user).await?.flatten())
    }
}

/// The project, and the role of this account in it; nothing if the project is not one of accounts.
pub(crate) async fn find_as(
    mut conn: &AsyncPgConnection,
    id: ProjectId,
    user: UserId,
) -> Result<Option<Found<ProjectId>>, DatabaseError> {
    let role: Option<Option<String>> = projects::table
        .left_join(project_members::table.on(membership_of(user.as_uuid())))
        .filter(projects::id.eq(id.as_uuid()).and(is_of_accounts()))
        .select(project_members::role.nullable())
        .first(&mut conn)
        .await
        .optional()
        .map_err(|error| DatabaseError::query("looking for a project", error))?;
    role.map(|role| {
        let membership = role.map(|role| parse_role(&role)).transpose()?;
        Ok(Found { thing: id, membership })
    })
    .transpose()
}

/// The project that is this account's default one.
pub(crate) async fn find_default(
    mut conn: &AsyncPgConnection,
    user: UserId,
) -> Result<Option<ProjectId>, DatabaseError> {
    let id: Option<Uuid> = projects::table
        .filter(projects::default_for.eq(user.as_uuid()))
        .select(projects::id)
        .first(&mut conn)
        .await
        .optional()
        .map_err(|error| DatabaseError::query("looking for the default project", error))?;
    Ok(id.map(Into::into))
}

/// Two statements, the first of which changes nothing when the project is there: repeating both is safe.
pub(crate) async fn ensure_local(
    mut conn: &AsyncPgConnection,
    new: LocalProject,
) -> Result<LocalProject, DatabaseError> {
    let failed = |error| DatabaseError::query("making the local project", error);
    diesel::insert_into(projects::table)
        .values((
            projects::id.eq(new.id.as_uuid()),
            projects::name.eq(&new.name),
            projects::workspace_path.eq(&new.workspace_path),
        ))
        .on_conflict_do_nothing()
        .execute(&mut conn)
        .await
        .map_err(failed)?;
    let (id, name): (Uuid, String) = projects::table
        .filter(projects::workspace_path.eq(&new.workspace_path))
        .select((projects::id, projects::name))
        .first(&mut conn)
        .await
        .map_err(failed)?;
    Ok(LocalProject { id: id.into(), name, workspace_path: new.workspace_path })
}

/// The lock is the strong one: it waits for runs that are being accepted, and those that come later find the mark.
async fn hide(
    mut conn: &AsyncPgConnection,
    id: ProjectId,
    by: UserId,
    origin: Origin,
) -> QueryResult<Result<bool, ProjectRefusal>> {
    let project = projects::table.find(id.as_uuid());
    let found = project.filter(projects::deleting_at.is_null()).select(projects::default_for).for_update();
    let default_for: Option<Option<Uuid>> = found.first(&mut conn).await.optional()?;
    match default_for {
        None => return Ok(Ok(false)),
        Some(Some(_)) => return Ok(Err(ProjectRefusal::DefaultProject)),
        Some(None) => {}
    }
    let of_project = runs::table.filter(runs::project_id.eq(id.as_uuid()));
    let active_states = RunState::ALL.into_iter().filter(|state| !state.is_terminal()).map(RunState::as_str);
    let is_active = of_project.filter(runs::state.eq_any(active_states)).select(runs::id);
    if diesel::select(exists(is_active)).get_result(&mut conn).await? {
        return Ok(Err(ProjectRefusal::RunsActive));
    }
    diesel::update(project).set(projects::deleting_at.eq(diesel::dsl::now)).execute(&mut conn).await?;
    let event = AuditEvent::new(AuditKind::ProjectDeleted, Some(by), origin)
        .with_detail(json!({ "project": id, "by": by }));
    audit::insert(conn, &event).await?;
    Ok(Ok(true))
}

/// What joins a project with the membership of one account.
#[diesel::dsl::auto_type]
fn membership_of(user: Uuid) -> _ {
    project_members::project_id.eq(projects::id).and(project_members::user_id.eq(user))
}

/// Whether accounts can see a project at all. One that is being deleted is hidden, and so are those of the local command
/// line: they are the operator's, who alone decides which directory of the machine is theirs.
#[diesel::dsl::auto_type]
pub(crate) fn is_of_accounts() -> _ {
    projects::workspace_path.is_null().and(projects::deleting_at.is_null())
}

/// The projects that no account can see: few, if any, and read once by a statement.
#[diesel::dsl::auto_type]
pub(crate) fn hidden_projects() -> _ {
    projects::table
        .filter(projects::workspace_path.is_not_null().or(projects::deleting_at.is_not_null()))
        .select(projects::id)
}

/// A write that refers to a project or an account that is not there.
pub(crate) fn missing_or(doing: &'static str, error: diesel::result::Error) -> DatabaseError {
    match violated(&error, Refusal::ForeignKey) {
        Some("project_members_user_id_fkey") => DatabaseError::Missing { what: "the user" },
        Some(_) => DatabaseError::Missing { what: "the project" },
        None => DatabaseError::query(doing, error),
    }
}

pub(crate) fn parse_role(role: &str) -> Result<ProjectRole, DatabaseError> {
    role.parse()
        .map_err(|error: gathering_auth::UnknownRole| DatabaseError::corrupt("the role of a member", error))
}

type SeenRow = (Row, Option<String>);

fn seen((row, role): SeenRow) -> Result<ProjectSeen, DatabaseError> {
    let role = role.map(|role| parse_role(&role)).transpose()?;
    Ok(ProjectSeen { project: row.into(), role })
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = projects)]
struct Row {
    id: Uuid,
    name: String,
    description: String,
    workspace_path: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Row> for Project {
    fn from(row: Row) -> Self {
        Self {
            id: row.id.into(),
            name: row.name,
            description: row.description,
            workspace_path: row.workspace_path,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}
