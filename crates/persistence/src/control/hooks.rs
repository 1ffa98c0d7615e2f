//! Hooks: their rows, found, listed, created, changed, deleted.

pub(crate) mod deliver;
pub(crate) mod ledger;
pub(crate) mod secrets;

use chrono::{DateTime, Utc};
use diesel::dsl::not;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_auth::AuditEvent;
use gathering_control::{
    ControlError, Creation, Found, Hook, HookChange, HookChangeRule, HookSpec, HookTarget, HookVerification,
    KnownHook, NewHook,
};
use gathering_domain::{Digest, HookId, Pointer, ProjectId, UserId};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::accounts::audit;
use crate::accounts::idempotency::{self, Claim, Kind};
use crate::control::hooks::secrets::SecretColumns;
use crate::control::projects::{hidden_projects, is_of_accounts, parse_role};
use crate::db::clock::clock_timestamp;
use crate::db::error::{Aborted, DatabaseError, Refusal, violated};
use crate::db::schema::{hooks, project_members, projects};
use crate::db::stored_json::StoredJson;

/// The hook, and the role of this account in its project; nothing if the project is not one of accounts.
pub(crate) async fn find_as(
    mut conn: &AsyncPgConnection,
    id: HookId,
    user: UserId,
) -> Result<Option<Found<Hook>>, DatabaseError> {
    let membership =
        project_members::project_id.eq(hooks::project_id).and(project_members::user_id.eq(user.as_uuid()));
    let row: Option<(Row, Option<String>)> = hooks::table
        .inner_join(projects::table)
        .left_join(project_members::table.on(membership))
        .filter(hooks::id.eq(id.as_uuid()).and(is_of_accounts()))
        .select((Row::as_select(), project_members::role.nullable()))
        .first(&mut conn)
        .await
        .optional()
        .map_err(|error| DatabaseError::query("looking for a hook", error))?;
    row.map(|(row, role)| {
        let membership = role.map(|role| parse_role(&role)).transpose()?;
        Ok(Found { thing: KnownHook::try_from(row)?.hook, membership })
    })
    .transpose()
}

/// At most `limit` hooks, the newest first, of projects that the user is a member of (absent: all) and of this project
/// (absent: any). `before` is the last of the previous page.
pub(crate) async fn list(
    mut conn: &AsyncPgConnection,
    visible_to: Option<UserId>,
    project: Option<ProjectId>,
    before: Option<HookId>,
    limit: usize,
) -> Result<Vec<Hook>, DatabaseError> {
    let mut query = hooks::table.filter(not(hooks::project_id.eq_any(hidden_projects()))).into_boxed();
    if let Some(user) = visible_to {
        let own = project_members::table
            .filter(project_members::user_id.eq(user.as_uuid()))
            .select(project_members::project_id);
        query = query.filter(hooks::project_id.eq_any(own));
    }
    if let Some(project) = project {
        query = query.filter(hooks::project_id.eq(project.as_uuid()));
    }
    if let Some(before) = before {
        query = query.filter(hooks::id.lt(before.as_uuid()));
    }
    let rows: Vec<Row> = query
        .order(hooks::id.desc())
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select(Row::as_select())
        .load(&mut conn)
        .await
        .map_err(|error| DatabaseError::query("listing hooks", error))?;
    rows.into_iter().map(|row| KnownHook::try_from(row).map(|known| known.hook)).collect()
}

/// The hook whose token has this digest, and the time of the database.
pub(crate) async fn find_called(
    mut conn: &AsyncPgConnection,
    token: &Digest,
) -> Result<(Option<KnownHook>, DateTime<Utc>), DatabaseError> {
    let failed = |error| DatabaseError::query("looking for a called hook", error);
    let found: Option<(Row, DateTime<Utc>)> = hooks::table
        .filter(hooks::token_hash.eq(token.as_bytes().as_slice()))
        .filter(not(hooks::project_id.eq_any(hidden_projects())))
        .select((Row::as_select(), clock_timestamp()))
        .first(&mut conn)
        .await
        .optional()
        .map_err(failed)?;
    match found {
        Some((row, now)) => Ok((Some(row.try_into()?), now)),
        None => Ok((None, Utc::now())),
    }
}

/// Creates a hook, unless the request's idempotency key says otherwise.
pub(crate) async fn create(
    mut conn: &AsyncPgConnection,
    project: ProjectId,
    by: Option<UserId>,
    new: &NewHook,
) -> Result<Creation<Hook>, Aborted<ControlError>> {
    let id = new.hook.id.as_uuid();
    if let Some(user) = by {
        match idempotency::claim(conn, user, Kind::Hook, new.once.as_ref(), id).await? {
            Claim::Granted => {}
            Claim::CreatedBefore(id) => {
                let earlier: Option<Row> = hooks::table
                    .filter(hooks::id.eq(id).and(hooks::project_id.eq(project.as_uuid())))
                    .select(Row::as_select())
                    .first(&mut conn)
                    .await
                    .optional()?;
                let earlier = earlier.map(KnownHook::try_from).transpose().map_err(refused)?;
                return Ok(earlier.map_or(Creation::Deleted, |known| Creation::Repeated(known.hook)));
            }
            Claim::OtherRequest => return Ok(Creation::OtherRequest),
        }
    }
    let now: DateTime<Utc> = diesel::select(clock_timestamp()).get_result(&mut conn).await?;
    let inserted = diesel::insert_into(hooks::table)
        .values((
            hooks::id.eq(id),
            hooks::project_id.eq(project.as_uuid()),
            hooks::token_hash.eq(new.token.as_bytes().as_slice()),
            hooks::created_at.eq(now),
            hooks::updated_at.eq(now),
            Written::of(&new.hook.spec),
            SecretColumns::of(new.secrets.clone()),
        ))
        .execute(&mut conn)
        .await;
    inserted.map_err(|error| match violated(&error, Refusal::ForeignKey) {
        Some("hooks_project_id_fkey") => Aborted::Refused(ControlError::NotFound),
        _ => Aborted::Query(error),
    })?;
    audit::insert(conn, &new.audit).await?;
    Ok(Creation::Created(new.at(now)))
}

pub(crate) fn refused(error: DatabaseError) -> Aborted<ControlError> {
    Aborted::Refused(error.into())
}

/// Applies a rule to the hook under its lock.
pub(crate) async fn change(
    mut conn: &AsyncPgConnection,
    id: HookId,
    rule: &HookChangeRule<'_>,
) -> Result<Hook, Aborted<ControlError>> {
    let row: Option<Row> = hooks::table
        .find(id.as_uuid())
        .select(Row::as_select())
        .for_no_key_update()
        .first(&mut conn)
        .await
        .optional()?;
    let known = row.ok_or(Aborted::Refused(ControlError::NotFound))?.try_into().map_err(refused)?;
    let HookChange { hook, secrets, audit } = rule(known).map_err(Aborted::Refused)?;
    let now: DateTime<Utc> = diesel::select(clock_timestamp()).get_result(&mut conn).await?;
    diesel::update(hooks::table.find(id.as_uuid()))
        .set((Written::of(&hook.spec), SecretColumns::of(secrets), hooks::updated_at.eq(now)))
        .execute(&mut conn)
        .await?;
    if let Some(event) = audit {
        audit::insert(conn, &event).await?;
    }
    Ok(Hook { updated_at: now, ..hook })
}

/// Deletes the hook with its ledger.
pub(crate) async fn delete(
    mut conn: &AsyncPgConnection,
    id: HookId,
    event: &AuditEvent,
) -> Result<(), Aborted<ControlError>> {
    if diesel::delete(hooks::table.find(id.as_uuid())).execute(&mut conn).await? > 0 {
        audit::insert(conn, event).await?;
    }
    Ok(())
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = hooks)]
pub(crate) struct Row {
    id: Uuid,
    project_id: Uuid,
    name: String,
    #[diesel(deserialize_as = StoredJson)]
    target: Value,
    scheme: String,
    token_header: String,
    #[diesel(embed)]
    secrets: SecretColumns,
    #[diesel(deserialize_as = StoredJson)]
    rules: Value,
    max_body_bytes: i32,
    max_per_minute: i32,
    is_enabled: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<Row> for KnownHook {
    type Error = DatabaseError;

    fn try_from(row: Row) -> Result<Self, DatabaseError> {
        let target = HookTarget::read(&row.target, &Pointer::root())
            .map_err(|error| DatabaseError::corrupt("the target of a hook", error))?;
        let scheme = row.scheme.parse();
        let scheme = scheme.map_err(|error: String| DatabaseError::corrupt("the scheme of a hook", error))?;
        let secrets = row.secrets.into_secrets();
        let mut rules = row.rules;
        let mut rule = |name: &str| rules.get_mut(name).map(Value::take);
        let when = rule("when").and_then(|when| when.as_str().map(str::to_owned));
        let spec = HookSpec {
            name: row.name,
            target,
            verification: HookVerification { scheme, header: row.token_header },
            when,
            map: rule("map"),
            max_body_bytes: row.max_body_bytes.unsigned_abs(),
            max_per_minute: row.max_per_minute.unsigned_abs(),
            enabled: row.is_enabled,
        };
        let hook = Hook {
            id: row.id.into(),
            project: row.project_id.into(),
            spec,
            n_secrets: secrets.len(),
            created_at: row.created_at,
            updated_at: row.updated_at,
        };
        Ok(KnownHook { hook, secrets })
    }
}

/// What people write of a hook.
#[derive(Insertable, AsChangeset)]
#[diesel(table_name = hooks)]
struct Written {
    name: String,
    target: Value,
    scheme: &'static str,
    token_header: String,
    rules: Value,
    max_body_bytes: i32,
    max_per_minute: i32,
    is_enabled: bool,
}

impl Written {
    fn of(spec: &HookSpec) -> Self {
        let stored = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        let mut rules = serde_json::Map::new();
        rules.extend(spec.when.as_ref().map(|when| ("when".to_owned(), json!(when))));
        rules.extend(spec.map.as_ref().map(|map| ("map".to_owned(), map.clone())));
        Self {
            name: spec.name.clone(),
            target: spec.target.to_json(),
            scheme: spec.verification.scheme.as_str(),
            token_header: spec.verification.header.clone(),
            rules: Value::Object(rules),
            max_body_bytes: stored(spec.max_body_bytes),
            max_per_minute: stored(spec.max_per_minute),
            is_enabled: spec.enabled,
        }
    }
}
