//! The members of projects: listed, added, given another role, removed. A project always keeps an owner.

use chrono::{DateTime, Utc};
use diesel::dsl::exists;
use diesel::prelude::*;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use gathering_auth::{Action, AuditEvent, AuditKind, Caller, ProjectRole, authorize};
use gathering_domain::{Email, ProjectId, UserId};
use serde_json::json;
use uuid::Uuid;

use crate::accounts::{account, audit};
use crate::control::projects::{ProjectError, ProjectRefusal, Projects, missing_or, parse_role};
use crate::db::error::DatabaseError;
use crate::db::schema::{project_members, projects, users};

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

/// Who changes what: a change of a membership.
struct Change<'a> {
    project: ProjectId,
    user: UserId,
    by: &'a Caller,
}

impl Change<'_> {
    fn event(&self, kind: AuditKind, role: ProjectRole) -> AuditEvent {
        let detail = json!({ "project": self.project, "role": role.as_str(), "by": self.by.user });
        AuditEvent::new(kind, Some(self.user), self.by.origin).with_detail(detail)
    }

    /// What the caller must be allowed: everybody may leave.
    fn action_of_removal(&self) -> Action {
        if self.user == self.by.user { Action::Read } else { Action::Manage }
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
    /// [`ProjectError::Denied`] or [`ProjectError::Revoked`] for a caller who may not do it, or not any more;
    /// [`ProjectRefusal::LastOwner`]; [`DatabaseError::Missing`] if the project or the user is not there. Nothing was
    /// changed.
    pub async fn put_member(
        &self,
        project: ProjectId,
        user: UserId,
        role: ProjectRole,
        by: &Caller,
    ) -> Result<MemberPut, ProjectError> {
        let change = Change { project, user, by };
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let put = conn.transaction(async |conn| put(conn, &change, role).await).await;
        put.map_err(|error| missing_or("changing a member", error))?
    }

    /// Takes a membership away, and records that. Answers whether there was one.
    ///
    /// # Errors
    /// [`ProjectError::Denied`] or [`ProjectError::Revoked`] for a caller who may not do it, or not any more;
    /// [`ProjectRefusal::LastOwner`], or the database's; nothing was changed.
    pub async fn remove_member(
        &self,
        project: ProjectId,
        user: UserId,
        by: &Caller,
    ) -> Result<bool, ProjectError> {
        let change = Change { project, user, by };
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let removed = conn.transaction(async |conn| remove(conn, &change).await).await;
        removed.map_err(|error| DatabaseError::query("removing a member", error))?
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

async fn put(
    mut conn: &AsyncPgConnection,
    change: &Change<'_>,
    role: ProjectRole,
) -> QueryResult<Result<MemberPut, ProjectError>> {
    if !lock_project(conn, change.project).await? {
        return Ok(Err(DatabaseError::Missing { what: "the project" }.into()));
    }
    if let Err(refused) = still_may(conn, change.project, change.by, Action::Manage).await? {
        return Ok(Err(refused));
    }
    let (put, kind) = match load_role(conn, change.project, change.user).await? {
        Some(before) if before == role => return Ok(Ok(MemberPut::Unchanged)),
        Some(ProjectRole::Owner) if is_last_owner(conn, change).await? => {
            return Ok(Err(ProjectRefusal::LastOwner.into()));
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
    Ok(Ok(put))
}

async fn remove(
    mut conn: &AsyncPgConnection,
    change: &Change<'_>,
) -> QueryResult<Result<bool, ProjectError>> {
    if !lock_project(conn, change.project).await? {
        return Ok(Ok(false));
    }
    if let Err(refused) = still_may(conn, change.project, change.by, change.action_of_removal()).await? {
        return Ok(Err(refused));
    }
    let Some(role) = load_role(conn, change.project, change.user).await? else {
        return Ok(Ok(false));
    };
    if role == ProjectRole::Owner && is_last_owner(conn, change).await? {
        return Ok(Err(ProjectRefusal::LastOwner.into()));
    }
    diesel::delete(project_members::table.find((change.project.as_uuid(), change.user.as_uuid())))
        .execute(&mut conn)
        .await?;
    audit::insert(conn, &change.event(AuditKind::MemberRemoved, role)).await?;
    Ok(Ok(true))
}

/// Whether the caller may do it now. Their account and, under the lock of the project, their membership do not change
/// until the end of the transaction. The scopes of an API key still limit the role of its owner.
pub(crate) async fn still_may(
    conn: &AsyncPgConnection,
    project: ProjectId,
    by: &Caller,
    action: Action,
) -> QueryResult<Result<(), ProjectError>> {
    let account = account::hold(conn, by.user).await?.filter(|account| account.is_active);
    let Some(account) = account else { return Ok(Err(ProjectError::Revoked)) };
    let membership = load_role(conn, project, by.user).await?;
    let now = Caller { role: by.role.min(account.role), ..by.clone() };
    Ok(authorize(&now, membership, action).map_err(ProjectError::from))
}

/// Keeps others from changing its members until the end of the transaction; runs are accepted meanwhile. Answers
/// whether there is such a project.
pub(crate) async fn lock_project(mut conn: &AsyncPgConnection, project: ProjectId) -> QueryResult<bool> {
    let found: Option<Uuid> = projects::table
        .find(project.as_uuid())
        .select(projects::id)
        .for_no_key_update()
        .first(&mut conn)
        .await
        .optional()?;
    Ok(found.is_some())
}

async fn load_role(
    mut conn: &AsyncPgConnection,
    project: ProjectId,
    user: UserId,
) -> QueryResult<Option<ProjectRole>> {
    let role: Option<String> = project_members::table
        .find((project.as_uuid(), user.as_uuid()))
        .select(project_members::role)
        .first(&mut conn)
        .await
        .optional()?;
    let role = role.map(|role| parse_role(&role)).transpose();
    role.map_err(|error| diesel::result::Error::DeserializationError(error.into()))
}

async fn is_last_owner(mut conn: &AsyncPgConnection, change: &Change<'_>) -> QueryResult<bool> {
    let others = project_members::table
        .filter(project_members::project_id.eq(change.project.as_uuid()))
        .filter(project_members::user_id.ne(change.user.as_uuid()))
        .filter(project_members::role.eq(ProjectRole::Owner.as_str()));
    diesel::select(diesel::dsl::not(exists(others.select(project_members::user_id))))
        .get_result(&mut conn)
        .await
}
