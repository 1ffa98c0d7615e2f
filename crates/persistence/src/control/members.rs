//! The rows of the members of projects.

use chrono::{DateTime, Utc};
use diesel::dsl::exists;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_auth::{Caller, ProjectRole};
use gathering_control::{ControlError, CurrentAccess, LockedMember, Member, MemberChange};
use gathering_domain::{Email, ProjectId, UserId};
use uuid::Uuid;

use crate::accounts::{account, audit};
use crate::control::projects::{is_of_accounts, parse_role};
use crate::db::error::{Aborted, DatabaseError};
use crate::db::schema::{project_members, projects, users};

/// At most `limit` members with their accounts, in the order of the accounts' ids.
pub(crate) async fn list(
    mut conn: &AsyncPgConnection,
    project: ProjectId,
    after: Option<UserId>,
    limit: usize,
) -> Result<Vec<Member>, DatabaseError> {
    let rows: Vec<(Uuid, String, String, String, DateTime<Utc>)> = project_members::table
        .inner_join(users::table)
        .filter(project_members::project_id.eq(project.as_uuid()))
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
        .load(&mut conn)
        .await
        .map_err(|error| DatabaseError::query("listing members", error))?;
    rows.into_iter()
        .map(|(user, email, name, role, created_at)| {
            let email = Email::accepted_before(email);
            Ok(Member { user: user.into(), email, name, role: parse_role(&role)?, created_at })
        })
        .collect()
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

/// Changes a membership as [`MemberChange::check`] allows under the lock of the project.
pub(crate) async fn change(
    conn: &AsyncPgConnection,
    by: &Caller,
    change: &MemberChange,
) -> Result<(), Aborted<ControlError>> {
    let MemberChange { project, user, role } = *change;
    if !lock_project(conn, project).await? {
        return Err(Aborted::Refused(ControlError::NotFound));
    }
    let now = LockedMember {
        caller: load_access(conn, project, by.user).await?,
        role: load_role(conn, project, user).await?,
        has_other_owner: has_other_owner(conn, project, user).await?,
    };
    if let Some(event) = change.check(by, &now).map_err(Aborted::Refused)? {
        write(conn, (project, user), now.role, role).await?;
        audit::insert(conn, &event).await?;
    }
    Ok(())
}

async fn write(
    mut conn: &AsyncPgConnection,
    (project, user): (ProjectId, UserId),
    before: Option<ProjectRole>,
    after: Option<ProjectRole>,
) -> QueryResult<()> {
    let row = project_members::table.find((project.as_uuid(), user.as_uuid()));
    match (before, after) {
        (None, Some(role)) => return insert(conn, project, user, role).await,
        (Some(_), Some(role)) => {
            let update = diesel::update(row).set(project_members::role.eq(role.as_str()));
            update.execute(&mut conn).await?
        }
        (_, None) => diesel::delete(row).execute(&mut conn).await?,
    };
    Ok(())
}

/// What an account may do in a project now. The account does not change until the end of the transaction, nor does the
/// membership if the project is locked.
pub(crate) async fn load_access(
    conn: &AsyncPgConnection,
    project: ProjectId,
    user: UserId,
) -> QueryResult<CurrentAccess> {
    let account = account::hold(conn, user).await?;
    Ok(CurrentAccess { account, membership: load_role(conn, project, user).await? })
}

/// Keeps others from changing its members until the end of the transaction; runs are accepted meanwhile. Answers
/// whether accounts have such a project.
pub(crate) async fn lock_project(mut conn: &AsyncPgConnection, project: ProjectId) -> QueryResult<bool> {
    let found: Option<Uuid> = projects::table
        .find(project.as_uuid())
        .filter(is_of_accounts())
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

/// Whether the project has an owner beside this account.
async fn has_other_owner(
    mut conn: &AsyncPgConnection,
    project: ProjectId,
    user: UserId,
) -> QueryResult<bool> {
    let others = project_members::table
        .filter(project_members::project_id.eq(project.as_uuid()))
        .filter(project_members::user_id.ne(user.as_uuid()))
        .filter(project_members::role.eq(ProjectRole::Owner.as_str()));
    diesel::select(exists(others.select(project_members::user_id))).get_result(&mut conn).await
}
