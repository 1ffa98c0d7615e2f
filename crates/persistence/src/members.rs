//! The members of projects: listed, added, given another role, removed. A project always keeps an owner.

use chrono::{DateTime, Utc};
use diesel::dsl::exists;
use diesel::prelude::*;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use gathering_auth::{AuditEvent, AuditKind, Origin, ProjectRole};
use gathering_domain::{Email, ProjectId, UserId};
use serde_json::json;
use uuid::Uuid;

use crate::audit;
use crate::error::DatabaseError;
use crate::projects::{ProjectError, ProjectRefusal, Projects, missing_or, parse_role};
use crate::schema::{project_members, projects, users};

/// A member of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Who.
    pub user: UserId,
    /// Their e-mail.
    pub email: Email,
    /// What people call them.
    pub name: String,
    /// What they may do there.
    pub role: ProjectRole,
    /// Since when, in UTC.
    pub created_at: DateTime<Utc>,
}

/// What became of putting a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberPut {
    /// They are a member now.
    Added,
    /// They had another role before.
    RoleChanged,
    /// They had this role before.
    Unchanged,
}

/// Who changes what: a change of a membership, for the audit record.
struct Change {
    project: ProjectId,
    user: UserId,
    by: UserId,
    origin: Origin,
}

impl Change {
    fn event(&self, kind: AuditKind, role: ProjectRole) -> AuditEvent {
        let detail = json!({ "project": self.project, "role": role.as_str(), "by": self.by });
        AuditEvent::new(kind, Some(self.user), self.origin).with_detail(detail)
    }
}

impl Projects {
    /// At most `limit` members with their accounts, in the order in which these were made. `after` is the last of the
    /// page before.
    ///
    /// # Errors
    /// [`DatabaseError::Unavailable`] or [`DatabaseError::Corrupt`].
    pub async fn list_members(
        &self,
        id: ProjectId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<Membership>, DatabaseError> {
        let conn = self.pool.get().await?;
        let rows: Vec<(Uuid, String, String, String, DateTime<Utc>)> = project_members::table
            .inner_join(users::table)
            .filter(project_members::project_id.eq(id.as_uuid()))
            .filter(project_members::user_id.gt(after.map_or(Uuid::nil(), UserId::as_uuid)))
            .order(project_members::user_id)
            .limit(i64::try_from(limit).unwrap_or(i64::MAX))
            .select((
                project_members::user_id,
                users::email,
                users::name,
                project_members::role,
                project_members::created_at,
            ))
            .load(&mut &*conn)
            .await
            .map_err(|error| DatabaseError::query("listing members", error))?;
        rows.into_iter()
            .map(|(user, email, name, role, created_at)| {
                let email = Email::accepted_before(email);
                Ok(Membership { user: user.into(), email, name, role: parse_role(&role)?, created_at })
            })
            .collect()
    }

    /// Makes the user a member with this role, or gives a member this role, and records what changed.
    ///
    /// # Errors
    /// [`ProjectRefusal::LastOwner`]; [`DatabaseError::Missing`] if the project or the user is not there. Nothing was
    /// changed.
    pub async fn put_member(
        &self,
        project: ProjectId,
        user: UserId,
        role: ProjectRole,
        by: UserId,
        origin: Origin,
    ) -> Result<MemberPut, ProjectError> {
        let change = Change { project, user, by, origin };
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let put = conn.transaction(async |conn| put(conn, &change, role).await).await;
        match put.map_err(|error| missing_or("changing a member", error))? {
            None => Err(DatabaseError::Missing { what: "the project" }.into()),
            Some(put) => Ok(put?),
        }
    }

    /// Takes a membership away, and records that. Answers whether there was one.
    ///
    /// # Errors
    /// [`ProjectRefusal::LastOwner`], or the database's; nothing was changed.
    pub async fn remove_member(
        &self,
        project: ProjectId,
        user: UserId,
        by: UserId,
        origin: Origin,
    ) -> Result<bool, ProjectError> {
        let change = Change { project, user, by, origin };
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let removed = conn.transaction(async |conn| remove(conn, &change).await).await;
        Ok(removed.map_err(|error| DatabaseError::query("removing a member", error))??)
    }
}

/// Adds a membership; within whatever transaction the connection is in.
pub(crate) async fn insert(
    mut conn: &AsyncPgConnection,
    project: ProjectId,
    user: UserId,
    role: ProjectRole,
) -> QueryResult<()> {
    diesel::insert_into(project_members::table)
        .values((
            project_members::project_id.eq(project.as_uuid()),
            project_members::user_id.eq(user.as_uuid()),
            project_members::role.eq(role.as_str()),
        ))
        .execute(&mut conn)
        .await?;
    Ok(())
}

/// `None` if there is no such project.
async fn put(
    mut conn: &AsyncPgConnection,
    change: &Change,
    role: ProjectRole,
) -> QueryResult<Option<Result<MemberPut, ProjectRefusal>>> {
    if !lock_project(conn, change.project).await? {
        return Ok(None);
    }
    let (put, kind) = match load_role(conn, change).await? {
        Some(before) if before == role => return Ok(Some(Ok(MemberPut::Unchanged))),
        Some(ProjectRole::Owner) if is_last_owner(conn, change).await? => {
            return Ok(Some(Err(ProjectRefusal::LastOwner)));
        }
        Some(_) => {
            diesel::update(project_members::table.find((change.project.as_uuid(), change.user.as_uuid())))
                .set(project_members::role.eq(role.as_str()))
                .execute(&mut conn)
                .await?;
            (MemberPut::RoleChanged, AuditKind::MemberRoleChanged)
        }
        None => {
            insert(conn, change.project, change.user, role).await?;
            (MemberPut::Added, AuditKind::MemberAdded)
        }
    };
    audit::insert(conn, &change.event(kind, role)).await?;
    Ok(Some(Ok(put)))
}

async fn remove(mut conn: &AsyncPgConnection, change: &Change) -> QueryResult<Result<bool, ProjectRefusal>> {
    lock_project(conn, change.project).await?;
    let Some(role) = load_role(conn, change).await? else {
        return Ok(Ok(false));
    };
    if role == ProjectRole::Owner && is_last_owner(conn, change).await? {
        return Ok(Err(ProjectRefusal::LastOwner));
    }
    diesel::delete(project_members::table.find((change.project.as_uuid(), change.user.as_uuid())))
        .execute(&mut conn)
        .await?;
    audit::insert(conn, &change.event(AuditKind::MemberRemoved, role)).await?;
    Ok(Ok(true))
}

/// Keeps others from changing its members until the end of the transaction; runs are accepted meanwhile. Answers
/// whether there is such a project.
async fn lock_project(mut conn: &AsyncPgConnection, project: ProjectId) -> QueryResult<bool> {
    let found: Option<Uuid> = projects::table
        .find(project.as_uuid())
        .select(projects::id)
        .for_no_key_update()
        .first(&mut conn)
        .await
        .optional()?;
    Ok(found.is_some())
}

async fn load_role(mut conn: &AsyncPgConnection, change: &Change) -> QueryResult<Option<ProjectRole>> {
    let role: Option<String> = project_members::table
        .find((change.project.as_uuid(), change.user.as_uuid()))
        .select(project_members::role)
        .first(&mut conn)
        .await
        .optional()?;
    let role = role.map(|role| parse_role(&role)).transpose();
    role.map_err(|error| diesel::result::Error::DeserializationError(error.into()))
}

async fn is_last_owner(mut conn: &AsyncPgConnection, change: &Change) -> QueryResult<bool> {
    let others = project_members::table
        .filter(project_members::project_id.eq(change.project.as_uuid()))
        .filter(project_members::user_id.ne(change.user.as_uuid()))
        .filter(project_members::role.eq(ProjectRole::Owner.as_str()));
    diesel::select(diesel::dsl::not(exists(others.select(project_members::user_id))))
        .get_result(&mut conn)
        .await
}
