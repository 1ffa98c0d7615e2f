//! Accounts: created, found, listed, changed.

use chrono::{DateTime, Utc};
use diesel::dsl::{exists, now};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use gathering_auth::{
    Account, AccountChange, AccountRecord, AuditEvent, NewAccount, NewProject, Origin, PasswordChange,
    PasswordHash, ProjectRole, Role, RoleAtCreation, StoreError,
};
use gathering_domain::{Email, UserId};
use uuid::Uuid;

use crate::accounts::{audit, sessions, throttle};
use crate::control::members;
use crate::db::error::DatabaseError;
use crate::db::keys::pg_advisory_xact_lock;
use crate::db::schema::{projects, users};

/// Creates an account, its default project and its membership.
pub(crate) async fn create(
    mut conn: &AsyncPgConnection,
    first_account: i64,
    account: &NewAccount,
    project: &NewProject,
    audit: &AuditEvent,
) -> QueryResult<Account> {
    let role = match account.role {
        RoleAtCreation::Given(role) => role,
        RoleAtCreation::AdminIfFirst => role_at_registration(conn, first_account).await?,
    };
    let row: Row = diesel::insert_into(users::table)
        .values((
            users::id.eq(account.id.as_uuid()),
            users::email.eq(account.email.as_str()),
            users::name.eq(&account.name),
            users::password_hash.eq(account.password_hash.expose()),
            users::role.eq(role.as_str()),
        ))
        .returning(Row::as_returning())
        .get_result(&mut conn)
        .await?;
    diesel::insert_into(projects::table)
        .values((
            projects::id.eq(project.id.as_uuid()),
            projects::name.eq(&project.name),
            projects::default_for.eq(account.id.as_uuid()),
        ))
        .execute(&mut conn)
        .await?;
    members::insert(conn, project.id, account.id, ProjectRole::Owner).await?;
    audit::insert(conn, audit).await?;
    account_of(row)
}

/// Admin for the very first account. While there is none, creations wait for each other, so that exactly one is first.
async fn role_at_registration(mut conn: &AsyncPgConnection, first_account: i64) -> QueryResult<Role> {
    let is_any = || diesel::select(diesel::dsl::exists(users::table.select(users::id)));
    if is_any().get_result(&mut conn).await? {
        return Ok(Role::Member);
    }
    diesel::select(pg_advisory_xact_lock(first_account)).execute(&mut conn).await?;
    let is_any: bool = is_any().get_result(&mut conn).await?;
    Ok(if is_any { Role::Member } else { Role::Admin })
}

/// The account, locked until the end of the transaction: who changes it, its sessions or its keys does this first.
pub(crate) async fn lock(mut conn: &AsyncPgConnection, user: UserId) -> QueryResult<Option<Account>> {
    let row: Option<Row> = users::table
        .find(user.as_uuid())
        .select(Row::as_select())
        .for_no_key_update()
        .first(&mut conn)
        .await
        .optional()?;
    row.map(account_of).transpose()
}

/// The account, which nobody changes until the end of the transaction; others may look at it like this meanwhile.
pub(crate) async fn hold(mut conn: &AsyncPgConnection, user: UserId) -> QueryResult<Option<Account>> {
    let held = users::table.find(user.as_uuid()).select(Row::as_select()).for_share();
    let row: Option<Row> = held.first(&mut conn).await.optional()?;
    row.map(account_of).transpose()
}

pub(crate) async fn find_by_email(
    mut conn: &AsyncPgConnection,
    email: &Email,
) -> Result<Option<AccountRecord>, DatabaseError> {
    let row: Option<(Row, String)> = users::table
        .filter(users::email.eq(email.as_str()))
        .select((Row::as_select(), users::password_hash))
        .first(&mut conn)
        .await
        .optional()
        .map_err(|error| DatabaseError::query("looking for an account", error))?;
    row.map(record).transpose()
}

pub(crate) async fn find(
    mut conn: &AsyncPgConnection,
    user: UserId,
) -> Result<Option<AccountRecord>, DatabaseError> {
    let row: Option<(Row, String)> = users::table
        .find(user.as_uuid())
        .select((Row::as_select(), users::password_hash))
        .first(&mut conn)
        .await
        .optional()
        .map_err(|error| DatabaseError::query("looking for an account", error))?;
    row.map(record).transpose()
}

pub(crate) async fn list(
    mut conn: &AsyncPgConnection,
    before: Option<UserId>,
    limit: usize,
) -> Result<Vec<Account>, DatabaseError> {
    let mut query = users::table.select(Row::as_select()).order(users::id.desc()).into_boxed();
    if let Some(before) = before {
        query = query.filter(users::id.lt(before.as_uuid()));
    }
    let rows: Vec<Row> = query
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .load(&mut conn)
        .await
        .map_err(|error| DatabaseError::query("listing accounts", error))?;
    rows.into_iter().map(Account::try_from).collect()
}

/// Changes role and activity. The lock `admins` makes such changes follow each other, so that each counts the admins
/// that the one before left, and is made by one of them.
pub(crate) async fn update(
    mut conn: &AsyncPgConnection,
    admins: i64,
    user: UserId,
    change: &AccountChange,
    origin: Origin,
) -> QueryResult<Result<Account, StoreError>> {
    diesel::select(pg_advisory_xact_lock(admins)).execute(&mut conn).await?;
    // Not locked: no other transaction changes its role or activity before this transaction ends.
    let by = users::table.find(change.by.as_uuid()).select(Row::as_select());
    let by: Option<Row> = by.first(&mut conn).await.optional()?;
    if let Err(refused) = AccountChange::permitted(by.map(account_of).transpose()?.as_ref()) {
        return Ok(Err(refused));
    }
    let Some(before) = lock(conn, user).await? else {
        return Ok(Err(StoreError::NoAccount));
    };
    let after = change.of(&before);
    let is_admin = |account: &Account| account.is_active && account.role == Role::Admin;
    if is_admin(&before) && !is_admin(&after) && !is_other_admin(conn, user).await? {
        return Ok(Err(StoreError::LastAdmin));
    }
    if after != before {
        diesel::update(users::table.find(user.as_uuid()))
            .set((
                users::role.eq(after.role.as_str()),
                users::is_active.eq(after.is_active),
                users::updated_at.eq(now),
            ))
            .execute(&mut conn)
            .await?;
    }
    // When it is enabled, too: a login that was under way as it was disabled may have begun a session since.
    if after.is_active != before.is_active {
        sessions::revoke_all(conn, user).await?;
    }
    for event in change.audit_events(&before, origin) {
        audit::insert(conn, &event).await?;
    }
    Ok(Ok(after))
}

async fn is_other_admin(mut conn: &AsyncPgConnection, than: UserId) -> QueryResult<bool> {
    let others = users::table
        .filter(users::role.eq(Role::Admin.as_str()).and(users::is_active))
        .filter(users::id.ne(than.as_uuid()));
    diesel::select(exists(others.select(users::id))).get_result(&mut conn).await
}

/// Answers whether the hash was the expected one, and is another now.
pub(crate) async fn change_password(
    conn: &AsyncPgConnection,
    change: &PasswordChange,
    audit: &AuditEvent,
) -> QueryResult<bool> {
    // Locks the account's row, if it changes it.
    if !replace_hash(conn, change.user, &change.expected, &change.hash).await? {
        return Ok(false);
    }
    sessions::revoke_others(conn, change.user, change.keep).await?;
    audit::insert(conn, audit).await?;
    throttle::refund(conn, &change.refund).await?;
    Ok(true)
}

/// Answers whether the hash was the expected one.
pub(crate) async fn replace_hash(
    mut conn: &AsyncPgConnection,
    user: UserId,
    expected: &PasswordHash,
    hash: &PasswordHash,
) -> QueryResult<bool> {
    let n_rows = diesel::update(users::table.find(user.as_uuid()))
        .filter(users::password_hash.eq(expected.expose()))
        .set((users::password_hash.eq(hash.expose()), users::updated_at.eq(now)))
        .execute(&mut conn)
        .await?;
    Ok(n_rows == 1)
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = users)]
struct Row {
    id: Uuid,
    email: String,
    name: String,
    role: String,
    is_active: bool,
    created_at: DateTime<Utc>,
}

impl TryFrom<Row> for Account {
    type Error = DatabaseError;

    fn try_from(row: Row) -> Result<Self, DatabaseError> {
        Ok(Self {
            id: row.id.into(),
            email: Email::accepted_before(row.email),
            name: row.name,
            role: row.role.parse().map_err(|error: gathering_auth::UnknownRole| {
                DatabaseError::corrupt("the role of an account", error)
            })?,
            is_active: row.is_active,
            created_at: row.created_at,
        })
    }
}

fn record((row, hash): (Row, String)) -> Result<AccountRecord, DatabaseError> {
    Ok(AccountRecord { account: row.try_into()?, password_hash: PasswordHash::from(hash) })
}

fn account_of(row: Row) -> QueryResult<Account> {
    Account::try_from(row).map_err(|error| diesel::result::Error::DeserializationError(error.into()))
}
