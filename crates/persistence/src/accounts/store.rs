//! The port of authentication: each of its methods is one transaction. What they do is in the file of its noun.

use async_trait::async_trait;
use diesel_async::{AsyncConnection, AsyncPgConnection};
use gathering_auth::{
    Account, AccountChange, AccountRecord, AccountStore, ApiKey, AuditEvent, AuditFilter, AuditRecord,
    Charge, Charged, KeyStatus, NewAccount, NewApiKey, NewProject, NewSession, Origin, PasswordChange,
    PasswordHash, RefreshRotation, Rotation, SessionEnd, SessionId, StoreError, TokenId, TokenStatus,
};
use gathering_domain::{ApiKeyId, Digest, Email, UserId};

use crate::accounts::{account, api_keys, audit, sessions, throttle};
use crate::db::error::{DatabaseError, Refusal, violated};
use crate::db::keys::{LockOf, lock_key};
use crate::db::pool::Pool;

/// [`AccountStore`] on PostgreSQL. Cloning is cheap and shares the pool.
///
/// A change of an account, its sessions or its keys locks the account's row first, and login budgets last. So changes
/// of one account follow each other, and no two transactions deadlock.
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
        let first = lock_key(self.pool.schema(), LockOf::FirstAccount);
        let created =
            conn.transaction(async |conn| account::create(conn, first, &account, &project, &audit).await);
        created.await.map_err(|error| match violated(&error, Refusal::Unique) {
            Some("users_email_key") => StoreError::AccountExists,
            _ => DatabaseError::query("creating an account", error).into(),
        })
    }

    async fn find_account_by_email(&self, email: &Email) -> Result<Option<AccountRecord>, StoreError> {
        let conn = self.pool.get().await?;
        Ok(account::find_by_email(&conn, email).await?)
    }

    async fn find_account(&self, user: UserId) -> Result<Option<AccountRecord>, StoreError> {
        let conn = self.pool.get().await?;
        Ok(account::find(&conn, user).await?)
    }

    async fn list_accounts(&self, before: Option<UserId>, limit: usize) -> Result<Vec<Account>, StoreError> {
        let conn = self.pool.get().await?;
        Ok(account::list(&conn, before, limit).await?)
    }

    async fn update_account(
        &self,
        user: UserId,
        change: AccountChange,
        origin: Origin,
    ) -> Result<Account, StoreError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let admins = lock_key(self.pool.schema(), LockOf::Admins);
        let updated =
            conn.transaction(async |conn| account::update(conn, admins, user, &change, origin).await);
        updated.await.map_err(|error| DatabaseError::query("changing an account", error))?
    }

    async fn change_password(&self, change: PasswordChange, audit: AuditEvent) -> Result<bool, StoreError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let changed = conn.transaction(async |conn| account::change_password(conn, &change, &audit).await);
        Ok(changed.await.map_err(|error| DatabaseError::query("changing a password", error))?)
    }

    async fn replace_password_hash(
        &self,
        user: UserId,
        expected: PasswordHash,
        hash: PasswordHash,
    ) -> Result<(), StoreError> {
        let conn = self.pool.get().await?;
        let replaced = account::replace_hash(&conn, user, &expected, &hash).await;
        replaced.map_err(|error| DatabaseError::query("replacing a password hash", error))?;
        Ok(())
    }

    async fn charge(&self, charges: &[Charge]) -> Result<Charged, StoreError> {
        let mut conn = self.pool.get().await?;
        Ok(throttle::charge(&mut conn, charges).await?)
    }

    async fn begin_session(
        &self,
        session: NewSession,
        refund: &[Charge],
        audit: AuditEvent,
    ) -> Result<(), StoreError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let begun = conn.transaction(async |conn| sessions::begin(conn, &session, refund, &audit).await);
        Ok(begun.await.map_err(|error| DatabaseError::query("beginning a session", error))?)
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
        let ended = conn.transaction(async |conn| sessions::end(conn, &end, audit).await).await;
        Ok(ended.map_err(|error| DatabaseError::query("ending a session", error))?)
    }

    async fn find_token_status(
        &self,
        user: UserId,
        session: SessionId,
        token: TokenId,
    ) -> Result<Option<TokenStatus>, StoreError> {
        let conn = self.pool.get().await?;
        Ok(sessions::find_token_status(&conn, user, session, token).await?)
    }

    async fn create_api_key(&self, key: NewApiKey, audit: AuditEvent) -> Result<ApiKey, StoreError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let created = conn.transaction(async |conn| api_keys::create(conn, &key, &audit).await).await;
        created.map_err(|aborted| aborted.into_error("creating an API key"))
    }

    async fn list_api_keys(&self, user: UserId) -> Result<Vec<ApiKey>, StoreError> {
        let conn = self.pool.get().await?;
        Ok(api_keys::list(&conn, user).await?)
    }

    async fn revoke_api_key(
        &self,
        user: UserId,
        key: ApiKeyId,
        audit: AuditEvent,
    ) -> Result<bool, StoreError> {
        let mut conn = self.pool.get().await?;
        let conn: &mut AsyncPgConnection = &mut conn;
        let revoked = conn.transaction(async |conn| api_keys::revoke(conn, user, key, &audit).await).await;
        Ok(revoked.map_err(|error| DatabaseError::query("revoking an API key", error))?)
    }

    async fn find_key_status(&self, secret: Digest) -> Result<Option<KeyStatus>, StoreError> {
        let conn = self.pool.get().await?;
        Ok(api_keys::find_token_status(&conn, secret).await?)
    }

    async fn record_audit(&self, audit: AuditEvent) -> Result<(), StoreError> {
        let conn = self.pool.get().await?;
        let recorded = audit::insert(&conn, &audit).await;
        Ok(recorded.map_err(|error| DatabaseError::query("recording an audit event", error))?)
    }

    async fn list_audit_events(
        &self,
        filter: &AuditFilter,
        limit: usize,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        let conn = self.pool.get().await?;
        Ok(audit::list(&conn, filter, limit).await?)
    }
}
