//! A store that records its calls, and can run code just before a call.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use gathering_auth::testing::{InspectAccounts, MemoryAccounts};
use gathering_auth::{
    Account, AccountChange, AccountRecord, AccountStore, ApiKey, AuditEvent, AuditFilter, AuditRecord,
    Charge, Charged, KeyStatus, NewAccount, NewApiKey, NewProject, NewSession, Origin, PasswordChange,
    PasswordHash, RefreshRotation, Rotation, SessionEnd, SessionId, StoreError, TokenId, TokenStatus,
};
use gathering_domain::{ApiKeyId, Digest, Email, UserId};

type Happening = Pin<Box<dyn Future<Output = ()> + Send>>;

pub struct Watched {
    /// The store itself, whose calls are not recorded.
    pub inner: Arc<MemoryAccounts>,
    calls: Mutex<Vec<&'static str>>,
    before: Mutex<Option<(&'static str, Happening)>>,
    next_is_disabled: AtomicBool,
}

impl Watched {
    pub fn new() -> Self {
        Self {
            inner: Arc::default(),
            calls: Mutex::default(),
            before: Mutex::default(),
            next_is_disabled: AtomicBool::new(false),
        }
    }

    /// The names of the calls since the last check.
    pub fn calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    /// Runs code before the next call of this name.
    pub fn before(&self, call: &'static str, happening: impl Future<Output = ()> + Send + 'static) {
        *self.before.lock().unwrap() = Some((call, Box::pin(happening)));
    }

    /// Reports the account as disabled in the next token status, without revoking its session.
    pub fn disable_next_standing(&self) {
        self.next_is_disabled.store(true, Ordering::Relaxed);
    }

    async fn called(&self, call: &'static str) {
        self.calls.lock().unwrap().push(call);
        let happening = self.before.lock().unwrap().take_if(|(waited_for, _)| *waited_for == call);
        if let Some((_, happening)) = happening {
            happening.await;
        }
    }
}

macro_rules! watch {
    ($($name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl AccountStore for Watched {
            async fn find_token_status(
                &self,
                user: UserId,
                session: SessionId,
                token: TokenId,
            ) -> Result<Option<TokenStatus>, StoreError> {
                self.called("find_token_status").await;
                let status = self.inner.find_token_status(user, session, token).await?;
                let is_disabled = self.next_is_disabled.swap(false, Ordering::Relaxed);
                Ok(status.map(|status| TokenStatus { is_active: !is_disabled, ..status }))
            }
        $(
            async fn $name(&self, $($argument: $type),*) -> Result<$answer, StoreError> {
                self.called(stringify!($name)).await;
                self.inner.$name($($argument),*).await
            }
        )*}
    };
}

watch! {
    create_account(account: NewAccount, project: NewProject, audit: AuditEvent) -> Account;
    find_account_by_email(email: &Email) -> Option<AccountRecord>;
    find_account(user: UserId) -> Option<AccountRecord>;
    list_accounts(before: Option<UserId>, limit: usize) -> Vec<Account>;
    update_account(user: UserId, change: AccountChange, origin: Origin) -> Account;
    change_password(change: PasswordChange, audit: AuditEvent) -> bool;
    replace_password_hash(user: UserId, expected: PasswordHash, hash: PasswordHash) -> ();
    charge(charges: &[Charge]) -> Charged;
    begin_session(session: NewSession, refund: &[Charge], audit: AuditEvent) -> ();
    rotate_refresh_token(rotation: RefreshRotation, origin: Origin) -> Rotation;
    end_session(end: SessionEnd, audit: AuditEvent) -> ();
    create_api_key(key: NewApiKey, audit: AuditEvent) -> ApiKey;
    list_api_keys(user: UserId) -> Vec<ApiKey>;
    revoke_api_key(user: UserId, key: ApiKeyId, audit: AuditEvent) -> bool;
    find_key_status(secret: Digest) -> Option<KeyStatus>;
    record_audit(audit: AuditEvent) -> ();
    list_audit_events(filter: &AuditFilter, limit: usize) -> Vec<AuditRecord>;
}

#[async_trait]
impl InspectAccounts for Watched {
    async fn audit_trail(&self) -> Vec<AuditEvent> {
        self.inner.audit_trail().await
    }
}
