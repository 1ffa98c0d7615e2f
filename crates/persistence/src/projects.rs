//! Projects and who is a member of them.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use gathering_auth::ProjectRole;
use gathering_domain::{ProjectId, UserId};
use uuid::Uuid;

use crate::error::{DatabaseError, Refusal, violated};
use crate::pool::Pool;
use crate::schema::{project_members, projects};

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

/// A member of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Who.
    pub user: UserId,
    /// What they may do there.
    pub role: ProjectRole,
    /// Since when, in UTC.
    pub created_at: DateTime<Utc>,
}

/// The projects. Cloning is cheap and shares the pool.
#[derive(Debug, Clone)]
pub struct Projects {
    pool: Pool,
}

impl Projects {
    /// The projects where `pool` leads.
    pub const fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// Creates a project with its first member, as owner.
    ///
    /// # Errors
    /// [`DatabaseError::Missing`] if there is no such user; nothing was created.
    pub async fn create(
        &self,
        id: ProjectId,
        name: &str,
        description: &str,
        owner: UserId,
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
            put_member(conn, id, owner, ProjectRole::Owner).await?;
            Ok(row)
        });
        created.await.map(Into::into).map_err(|error| refused("creating a project", error))
    }

    /// Creates, or finds, the project of the local command line for the files below `workspace_path` (absolute).
    /// It has no member. Repeats: safe; of two at once both get the same.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`].
    pub async fn ensure_local(&self, name: &str, workspace_path: &str) -> Result<Project, DatabaseError> {
        let failed = |error| DatabaseError::query("making the local project", error);
        let conn = self.pool.get().await?;
        diesel::insert_into(projects::table)
            .values((
                projects::id.eq(ProjectId::new().as_uuid()),
                projects::name.eq(name),
                projects::workspace_path.eq(workspace_path),
            ))
            .on_conflict_do_nothing()
            .execute(&mut &*conn)
            .await
            .map_err(failed)?;
        let row: Row = projects::table
            .filter(projects::workspace_path.eq(workspace_path))
            .select(Row::as_select())
            .first(&mut &*conn)
            .await
            .map_err(failed)?;
        Ok(row.into())
    }

    /// The project, whoever asks.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`].
    pub async fn find(&self, id: ProjectId) -> Result<Option<Project>, DatabaseError> {
        let conn = self.pool.get().await?;
        let row: Option<Row> = projects::table
            .find(id.as_uuid())
            .select(Row::as_select())
            .first(&mut &*conn)
            .await
            .optional()
            .map_err(|error| DatabaseError::query("looking for a project", error))?;
        Ok(row.map(Into::into))
    }

    /// Where a create call of this user lands that names no project.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`].
    pub async fn find_default(&self, user: UserId) -> Result<Option<ProjectId>, DatabaseError> {
        let conn = self.pool.get().await?;
        let id: Option<Uuid> = projects::table
            .filter(projects::default_for.eq(user.as_uuid()))
            .select(projects::id)
            .first(&mut &*conn)
            .await
            .optional()
            .map_err(|error| DatabaseError::query("looking for the default project", error))?;
        Ok(id.map(Into::into))
    }

    /// At most `limit` projects, the newest first: those that the user is a member of or, without a user, all of them.
    /// `before` is the last of the page before.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`].
    pub async fn list(
        &self,
        visible_to: Option<UserId>,
        before: Option<ProjectId>,
        limit: usize,
    ) -> Result<Vec<Project>, DatabaseError> {
        let conn = self.pool.get().await?;
        let mut query = projects::table.into_boxed();
        if let Some(user) = visible_to {
            let own = project_members::table
                .filter(project_members::user_id.eq(user.as_uuid()))
                .select(project_members::project_id);
            query = query.filter(projects::id.eq_any(own));
        }
        if let Some(before) = before {
            query = query.filter(projects::id.lt(before.as_uuid()));
        }
        let rows: Vec<Row> = query
            .order(projects::id.desc())
            .limit(i64::try_from(limit).unwrap_or(i64::MAX))
            .select(Row::as_select())
            .load(&mut &*conn)
            .await
            .map_err(|error| DatabaseError::query("listing projects", error))?;
        Ok(rows.into_iter().map(Into::into).collect())
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
        let row: Option<Row> = diesel::update(projects::table.find(id.as_uuid()))
            .set((
                name.map(|name| projects::name.eq(name)),
                description.map(|description| projects::description.eq(description)),
                projects::updated_at.eq(diesel::dsl::now),
            ))
            .returning(Row::as_returning())
            .get_result(&mut &*conn)
            .await
            .optional()
            .map_err(|error| DatabaseError::query("changing a project", error))?;
        row.map(Into::into).ok_or(DatabaseError::Missing { what: "the project" })
    }

    /// Deletes a project with everything in it. Answers whether there was one.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`]; nothing was deleted.
    pub async fn delete(&self, id: ProjectId) -> Result<bool, DatabaseError> {
        let conn = self.pool.get().await?;
        let n_rows = diesel::delete(projects::table.find(id.as_uuid()))
            .execute(&mut &*conn)
            .await
            .map_err(|error| DatabaseError::query("deleting a project", error))?;
        Ok(n_rows == 1)
    }

    /// What this user may do in this project, if they are a member.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] or [`DatabaseError::Corrupt`].
    pub async fn find_role(&self, id: ProjectId, user: UserId) -> Result<Option<ProjectRole>, DatabaseError> {
        let conn = self.pool.get().await?;
        let role: Option<String> = project_members::table
            .find((id.as_uuid(), user.as_uuid()))
            .select(project_members::role)
            .first(&mut &*conn)
            .await
            .optional()
            .map_err(|error| DatabaseError::query("looking for a membership", error))?;
        role.map(|role| parse_role(&role)).transpose()
    }

    /// The members, at most 1000, by the time they were added.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] or [`DatabaseError::Corrupt`].
    pub async fn list_members(&self, id: ProjectId) -> Result<Vec<Membership>, DatabaseError> {
        let conn = self.pool.get().await?;
        let rows: Vec<(Uuid, String, DateTime<Utc>)> = project_members::table
            .filter(project_members::project_id.eq(id.as_uuid()))
            .order((project_members::created_at, project_members::user_id))
            .limit(1000)
            .select((project_members::user_id, project_members::role, project_members::created_at))
            .load(&mut &*conn)
            .await
            .map_err(|error| DatabaseError::query("listing members", error))?;
        rows.into_iter()
            .map(|(user, role, created_at)| {
                Ok(Membership { user: user.into(), role: parse_role(&role)?, created_at })
            })
            .collect()
    }

    /// Makes the user a member with this role, or gives a member this role.
    ///
    /// # Errors
    /// [`DatabaseError::Missing`] if the project or the user is not there.
    pub async fn put_member(
        &self,
        id: ProjectId,
        user: UserId,
        role: ProjectRole,
    ) -> Result<(), DatabaseError> {
        let conn = self.pool.get().await?;
        put_member(&conn, id, user, role).await.map_err(|error| refused("changing a member", error))
    }

    /// Takes a membership away. Answers whether there was one.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`].
    pub async fn remove_member(&self, id: ProjectId, user: UserId) -> Result<bool, DatabaseError> {
        let conn = self.pool.get().await?;
        let n_rows = diesel::delete(project_members::table.find((id.as_uuid(), user.as_uuid())))
            .execute(&mut &*conn)
            .await
            .map_err(|error| DatabaseError::query("removing a member", error))?;
        Ok(n_rows == 1)
    }
}

async fn put_member(
    mut conn: &AsyncPgConnection,
    id: ProjectId,
    user: UserId,
    role: ProjectRole,
) -> QueryResult<()> {
    diesel::insert_into(project_members::table)
        .values((
            project_members::project_id.eq(id.as_uuid()),
            project_members::user_id.eq(user.as_uuid()),
            project_members::role.eq(role.as_str()),
        ))
        .on_conflict((project_members::project_id, project_members::user_id))
        .do_update()
        .set(project_members::role.eq(role.as_str()))
        .execute(&mut conn)
        .await?;
    Ok(())
}

fn refused(doing: &'static str, error: diesel::result::Error) -> DatabaseError {
    match violated(&error, Refusal::ForeignKey) {
        Some("project_members_user_id_fkey") => DatabaseError::Missing { what: "the user" },
        Some(_) => DatabaseError::Missing { what: "the project" },
        None => DatabaseError::query(doing, error),
    }
}

fn parse_role(role: &str) -> Result<ProjectRole, DatabaseError> {
    role.parse()
        .map_err(|error: gathering_auth::UnknownRole| DatabaseError::corrupt("the role of a member", error))
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
