//! Accounts, and the port of authentication as a whole: each of its methods is one transaction.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use gathering_auth::{
    Account, AccountRecord, AccountStore, AuditEvent, NewAccount, NewProject, NewSession, Origin,
    PasswordHash, ProjectRole, RefreshRotation, Role, RoleAtCreation, Rotation, SessionEnd, SessionId,
    Standing, StoreError, TokenId,
};
use gathering_domain::{Email, UserId};
use uuid::Uuid;

use crate::error::{DatabaseError, Refusal, violated};
use crate::keys::{LockOf, lock_key};
use crate::pool::Pool;
use crate::schema::{project_members, projects, users};
use crate::{audit, sessions};

diesel::define_sql_function! {
    /// Takes the lock until the end of the transaction; waits for it.
    fn pg_advisory_xact_lock(key: diesel::sql_types::BigInt);
}

/// [`AccountStore`] on PostgreSQL. Cloning is cheap and shares the pool.
#[derive(Debug, Clone)]
pub struct PgAccountStore {
    pool: Pool,
}

impl PgAccountStore {
    /// Keeps accounts where `pool` leads.
    pub const fn new(pool: Pool) -> Self {
        Self { pool }
    }
}

#[async_trait]
impl AccountStore for PgAccountStore {
    async fn create_account(
        &self,
        account: NewAccount,
        project: NewProject,
        audit: AuditEvent,
    ) -> Result<Account, StoreError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let first_account = lock_key(self.pool.schema(), LockOf::FirstAccount);
        let created = conn
            .transaction(async |conn| create(conn, first_account, &account, &project, &audit).await)
            .await;
        match created {
            Ok(row) => Ok(row.try_into()?),
            Err(error) => match violated(&error, Refusal::Unique) {
                Some("users_email_key") => Err(StoreError::AccountExists),
                _ => Err(DatabaseError::query("creating an account", error).into()),
            },
        }
    }

    async fn find_account_by_email(&self, email: &Email) -> Result<Option<AccountRecord>, StoreError> {
        let conn = self.pool.get().await?;
        let row: Option<(Row, String)> = users::table
            .filter(users::email.eq(email.as_str()))
            .select((Row::as_select(), users::password_hash))
            .first(&mut &*conn)
            .await
            .optional()
            .map_err(|error| DatabaseError::query("looking for an account", error))?;
        let record = row.map(|(row, hash)| {
            Account::try_from(row)
                .map(|account| AccountRecord { account, password_hash: PasswordHash::from(hash) })
        });
        Ok(record.transpose()?)
    }

    async fn find_account(&self, user: UserId) -> Result<Option<Account>, StoreError> {
        let conn = self.pool.get().await?;
        let row: Option<Row> = users::table
            .find(user.as_uuid())
            .select(Row::as_select())
            .first(&mut &*conn)
            .await
            .optional()
            .map_err(|error| DatabaseError::query("looking for an account", error))?;
        Ok(row.map(Account::try_from).transpose()?)
    }

    async fn begin_session(&self, session: NewSession, audit: AuditEvent) -> Result<(), StoreError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let begun = conn.transaction(async |conn| sessions::begin(conn, &session, &audit).await).await;
        Ok(begun.map_err(|error| DatabaseError::query("beginning a session", error))?)
    }

    async fn rotate_refresh_token(
        &self,
        rotation: RefreshRotation,
        origin: Origin,
    ) -> Result<Rotation, StoreError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let rotated = conn.transaction(async |conn| sessions::rotate(conn, &rotation, origin).await).await;
        Ok(rotated.map_err(|error| DatabaseError::query("spending a refresh token", error))?)
    }

    async fn end_session(&self, end: SessionEnd, audit: AuditEvent) -> Result<(), StoreError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let ended = conn.transaction(async |conn| sessions::end(conn, &end, &audit).await).await;
        Ok(ended.map_err(|error| DatabaseError::query("ending a session", error))?)
    }

    async fn find_standing(
        &self,
        user: UserId,
        session: SessionId,
        token: TokenId,
    ) -> Result<Option<Standing>, StoreError> {
        let conn = self.pool.get().await?;
        Ok(sessions::find_standing(&conn, user, session, token).await?)
    }

    async fn record_audit(&self, audit: AuditEvent) -> Result<(), StoreError> {
        let conn = self.pool.get().await?;
        let recorded = audit::insert(&conn, &audit).await;
        Ok(recorded.map_err(|error| DatabaseError::query("recording an audit event", error))?)
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = users)]
pub(crate) struct Row {
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
            email: row.email.parse().map_err(|error: gathering_domain::InvalidEmail| {
                DatabaseError::corrupt("the e-mail of an account", error)
            })?,
            name: row.name,
            role: row.role.parse().map_err(|error: gathering_auth::UnknownRole| {
                DatabaseError::corrupt("the role of an account", error)
            })?,
            is_active: row.is_active,
            created_at: row.created_at,
        })
    }
}

async fn create(
    mut conn: &AsyncPgConnection,
    first_account: i64,
    account: &NewAccount,
    project: &NewProject,
    audit: &AuditEvent,
) -> QueryResult<Row> {
    let role = match account.role {
        RoleAtCreation::Given(role) => role,
        RoleAtCreation::AdminIfFirst => role_at_registration(conn, first_account).await?,
    };
    let row = diesel::insert_into(users::table)
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
    diesel::insert_into(project_members::table)
        .values((
            project_members::project_id.eq(project.id.as_uuid()),
            project_members::user_id.eq(account.id.as_uuid()),
            project_members::role.eq(ProjectRole::Owner.as_str()),
        ))
        .execute(&mut conn)
        .await?;
    audit::insert(conn, audit).await?;
    Ok(row)
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
