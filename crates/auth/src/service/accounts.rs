//! Accounts: how one comes to be, and what an admin does with it.

use std::time::Duration;

use gathering_domain::{Email, Pointer, Problems, ProjectId, Secret, UserId};

use super::{Auth, Registration, checked_name};
use crate::{
    Account, AccountChange, AuditEvent, AuditKind, AuthError, Caller, NewAccount, NewProject, Origin,
    Passwords, Role, RoleAtCreation, StoreError, authorize_admin,
};

/// How long the store's part of a registration takes at least. A taken e-mail leads to other writes than a free one;
/// both take a few milliseconds on a healthy database, and this is well above them, so that the writes do not show in
/// the time of an answer that was lost, cut short or hidden by whoever embeds this. Beside the password's hash, ten
/// times as long, it is no burden.
const STORE_PART_OF_A_REGISTRATION: Duration = Duration::from_millis(25);

/// What somebody sends to get an account.
#[derive(Debug, Clone)]
pub struct RegistrationRequest {
    /// The e-mail as it was typed.
    pub email: String,
    /// What people shall call them.
    pub name: String,
    /// The password.
    pub password: Secret,
}

impl Auth {
    /// Creates an account for whoever asks, with a default project; the first account of all is admin.
    ///
    /// # Errors
    /// [`AuthError::RegistrationClosed`], [`AuthError::Invalid`] with every problem, [`AuthError::AccountExists`],
    /// [`AuthError::Overloaded`], or the store's; no account was created.
    pub async fn register(&self, request: RegistrationRequest, origin: Origin) -> Result<Account, AuthError> {
        match self.settings.registration {
            Registration::Open => self.create_account(request, RoleAtCreation::AdminIfFirst, origin).await,
            Registration::Closed => {
                let refused = AuditEvent::new(AuditKind::RegistrationFailed, None, origin);
                self.store.record_audit(refused.because("registration_closed")).await?;
                Err(AuthError::RegistrationClosed)
            }
        }
    }

    /// Creates an account for the operator, whether registration is open or not.
    ///
    /// # Errors
    /// As [`register`](Self::register), except that it is never closed.
    pub async fn create_account(
        &self,
        request: RegistrationRequest,
        role: RoleAtCreation,
        origin: Origin,
    ) -> Result<Account, AuthError> {
        let (email, name) = checked(&request).map_err(AuthError::Invalid)?;
        // Before the store is asked: whether the e-mail is taken must not show in the time that it takes.
        let password_hash = self.passwords.hash(request.password).await?;
        let account = NewAccount { id: UserId::new(), email, name, password_hash, role };
        let (created, ()) = tokio::join!(
            self.create_or_record(account, origin),
            tokio::time::sleep(STORE_PART_OF_A_REGISTRATION)
        );
        created
    }

    async fn create_or_record(&self, account: NewAccount, origin: Origin) -> Result<Account, AuthError> {
        let project = NewProject { id: ProjectId::new(), name: "Default".to_owned() };
        let audit = AuditEvent::new(AuditKind::AccountRegistered, Some(account.id), origin);
        match self.store.create_account(account, project, audit).await {
            Err(StoreError::AccountExists) => {
                let refused = AuditEvent::new(AuditKind::RegistrationFailed, None, origin);
                self.store.record_audit(refused.because("account_exists")).await?;
                Err(AuthError::AccountExists)
            }
            created => Ok(created?),
        }
    }

    /// The caller's own account.
    ///
    /// # Errors
    /// [`AuthError::Revoked`] if it is gone, or the store's.
    pub async fn me(&self, caller: &Caller) -> Result<Account, AuthError> {
        let record = self.store.find_account(caller.user).await?;
        record.map(|record| record.account).ok_or(AuthError::Revoked)
    }

    /// At most `limit` accounts, disabled ones too, the newest first. `before` is the last of the page before. For
    /// admins.
    ///
    /// # Errors
    /// [`AuthError::Denied`], or the store's.
    pub async fn list_accounts(
        &self,
        caller: &Caller,
        before: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<Account>, AuthError> {
        authorize_admin(caller)?;
        Ok(self.store.list_accounts(before, limit).await?)
    }

    /// Changes an account's role or activity; what is absent stays. For admins, on their own account too.
    ///
    /// Disabling ends every session of the account for good; its API keys are refused for as long as it is disabled.
    ///
    /// # Errors
    /// [`AuthError::Denied`], also if the caller is no admin any more, [`AuthError::Revoked`] if their account is
    /// disabled by now, [`AuthError::NoAccount`], [`AuthError::LastAdmin`], or the store's; nothing was changed.
    pub async fn change_account(
        &self,
        caller: &Caller,
        user: UserId,
        role: Option<Role>,
        is_active: Option<bool>,
    ) -> Result<Account, AuthError> {
        authorize_admin(caller)?;
        let change = AccountChange { role, is_active, by: caller.user };
        Ok(self.store.update_account(user, change, caller.origin).await?)
    }
}

/// The parts of a registration, or everything that is wrong with it.
fn checked(request: &RegistrationRequest) -> Result<(Email, String), Problems> {
    let at = |field: &str| Pointer::root().join(field);
    let mut problems = Problems::new();
    let email = request.email.parse::<Email>().map_err(|error| problems.add(at("email"), error.to_string()));
    let name = checked_name(&request.name).map_err(|message| problems.add(at("name"), message));
    problems.extend(Passwords::problems(&request.password, &at("password")));
    match (email, name) {
        (Ok(email), Ok(name)) if problems.is_empty() => Ok((email, name)),
        _ => Err(problems),
    }
}
