//! The rows of projects. [`members`](crate::control::members) has those of their members.
//!
//! To accounts, the projects of the local command line and those that are being deleted are absent
//! ([`is_of_accounts`]): the former are directories of the operator.

use chrono::{DateTime, Utc};
use diesel::dsl::exists;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_auth::ProjectRole;
use gathering_control::{
    ChangeProject, ControlError, Creation, CurrentAccess, FilesRoot, Found, LocalProject, LockedProject,
    PlannedProject, Project, Scoped, right,
};
use gathering_domain::{ProjectId, UserId};
use uuid::Uuid;

use crate::accounts::audit;
use crate::accounts::idempotency::{self, Claim, Kind};
use crate::control::members;
use crate::db::error::{Aborted, DatabaseError};
use crate::db::exactly_one::exactly_one;
use crate::db::schema::{active_runs, project_members, projects};

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

/// As [`find_as`], with the whole row.
pub(crate) async fn find_whole_as(
    mut conn: &AsyncPgConnection,
    id: ProjectId,
    user: UserId,
) -> Result<Option<Found<Project>>, DatabaseError> {
    let row: Option<FoundRow> = projects::table
        .left_join(project_members::table.on(membership_of(user.as_uuid())))
        .filter(projects::id.eq(id.as_uuid()).and(is_of_accounts()))
        .select((Row::as_select(), project_members::role.nullable()))
        .first(&mut conn)
        .await
        .optional()
        .map_err(|error| DatabaseError::query("looking for a project", error))?;
    row.map(found).transpose()
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

/// Where the files of a project are; the operator's too.
pub(crate) async fn find_files_root(
    mut conn: &AsyncPgConnection,
    id: ProjectId,
) -> Result<Option<FilesRoot>, DatabaseError> {
    let path: Option<Option<String>> = projects::table
        .find(id.as_uuid())
        .filter(projects::deleting_at.is_null())
        .select(projects::workspace_path)
        .first(&mut conn)
        .await
        .optional()
        .map_err(|error| DatabaseError::query("looking for the files of a project", error))?;
    Ok(path.map(|path| path.map_or(FilesRoot::Server, FilesRoot::Operator)))
}

/// At most `limit` projects, the newest first, each with the role of `user` in it: those of the member `of`, or all.
pub(crate) async fn list(
    mut conn: &AsyncPgConnection,
    user: UserId,
    of: Option<UserId>,
    before: Option<ProjectId>,
    limit: usize,
) -> Result<Vec<Found<Project>>, DatabaseError> {
    let mut query = projects::table
        .left_join(project_members::table.on(membership_of(user.as_uuid())))
        .filter(is_of_accounts())
        .select((Row::as_select(), project_members::role.nullable()))
        .order(projects::id.desc())
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .into_boxed();
    if let Some(of) = of {
        // Makes the join an inner one, led by the memberships.
        query = query.filter(project_members::user_id.eq(of.as_uuid()));
    }
    if let Some(before) = before {
        query = query.filter(projects::id.lt(before.as_uuid()));
    }
    let rows: Vec<FoundRow> =
        query.load(&mut conn).await.map_err(|error| DatabaseError::query("listing projects", error))?;
    rows.into_iter().map(found).collect()
}

/// Creates a project with this owner, and its event; once for an idempotency key.
pub(crate) async fn create(
    mut conn: &AsyncPgConnection,
    planned: &PlannedProject,
    owner: UserId,
) -> Result<Creation<Found<Project>>, Aborted<ControlError>> {
    let (id, once) = (planned.id, planned.once.as_ref());
    match idempotency::claim(conn, owner, Kind::Project, once, id.as_uuid()).await? {
        Claim::Granted => {}
        Claim::CreatedBefore(id) => {
            let found = find_whole_as(conn, id.into(), owner).await;
            let found = found.map_err(|error| Aborted::Refused(error.into()))?;
            return Ok(found.map_or(Creation::Deleted, Creation::Repeated));
        }
        Claim::OtherRequest => return Ok(Creation::OtherRequest),
    }
    let row: Row = diesel::insert_into(projects::table)
        .values((
            projects::id.eq(id.as_uuid()),
            projects::name.eq(&planned.name),
            projects::description.eq(&planned.description),
        ))
        .returning(Row::as_returning())
        .get_result(&mut conn)
        .await?;
    members::insert(conn, id, owner, ProjectRole::Owner).await?;
    audit::insert(conn, &planned.audit).await?;
    Ok(Creation::Created(Found { thing: row.into(), membership: Some(ProjectRole::Owner) }))
}

/// Changes what is given; nothing if the project is not there.
pub(crate) async fn change(
    mut conn: &AsyncPgConnection,
    id: ProjectId,
    change: &ChangeProject,
) -> Result<Option<Project>, DatabaseError> {
    let row: Option<Row> = diesel::update(projects::table.find(id.as_uuid()).filter(is_of_accounts()))
        .set((
            change.name.as_ref().map(|name| projects::name.eq(name)),
            change.description.as_ref().map(|description| projects::description.eq(description)),
            projects::updated_at.eq(diesel::dsl::now),
        ))
        .returning(Row::as_returning())
        .get_results(&mut conn)
        .await
        .and_then(exactly_one)
        .optional()
        .map_err(|error| DatabaseError::query("changing a project", error))?;
    Ok(row.map(Into::into))
}

/// Marks a project as deleted, and writes the event. The lock is the strong one: it waits for runs that are being
/// accepted, and those that come later find the mark.
pub(crate) async fn hide(
    mut conn: &AsyncPgConnection,
    scoped: &Scoped<ProjectId, right::Manage>,
) -> Result<(), Aborted<ControlError>> {
    let id = *scoped.thing();
    let project = projects::table.find(id.as_uuid());
    let found = project.filter(is_of_accounts()).select(projects::default_for).for_update();
    let default_for: Option<Option<Uuid>> = found.first(&mut conn).await.optional()?;
    let default_for = default_for.ok_or(Aborted::Refused(ControlError::NotFound))?;
    let caller = match scoped.user() {
        Some(user) => members::load_access(conn, id, user).await?,
        None => CurrentAccess::default(),
    };
    let is_default = default_for.is_some();
    let locked = LockedProject { caller, is_default, has_active_runs: has_active_runs(conn, id).await? };
    let event = locked.check_deletion(scoped).map_err(Aborted::Refused)?;
    diesel::update(project).set(projects::deleting_at.eq(diesel::dsl::now)).execute(&mut conn).await?;
    audit::insert(conn, &event).await?;
    Ok(())
}

async fn has_active_runs(mut conn: &AsyncPgConnection, id: ProjectId) -> QueryResult<bool> {
    let active = active_runs::table.filter(active_runs::project_id.eq(id.as_uuid()));
    diesel::select(exists(active.select(active_runs::run_id))).get_result(&mut conn).await
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

pub(crate) fn parse_role(role: &str) -> Result<ProjectRole, DatabaseError> {
    role.parse()
        .map_err(|error: gathering_auth::UnknownRole| DatabaseError::corrupt("the role of a member", error))
}

type FoundRow = (Row, Option<String>);

fn found((row, role): FoundRow) -> Result<Found<Project>, DatabaseError> {
    let membership = role.map(|role| parse_role(&role)).transpose()?;
    Ok(Found { thing: row.into(), membership })
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = projects)]
struct Row {
    id: Uuid,
    name: String,
    description: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Row> for Project {
    fn from(row: Row) -> Self {
        let Row { id, name, description, created_at, updated_at } = row;
        Self { id: id.into(), name, description, created_at, updated_at }
    }
}
