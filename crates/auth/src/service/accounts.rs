//! Accounts: registration, and changes by admins.

use std::time::Duration;

use gathering_domain::{Email, Pointer, Problems, ProjectId, Secret, UserId};

use super::{Auth, Registration, checked_name};
use crate::{
    Account, AccountChange, AuditEvent, AuditKind, AuthError, Caller, NewAccount, NewProject, Origin,
    Passwords, Role, RoleAtCreation, StoreError, authorize_admin,
};

/// The minimum time of the store's part of a registration. A taken e-mail causes other writes than a free one. Both
/// take a few milliseconds on a healthy database. This minimum is well above that, so the time of an answer does not
/// reveal which it was, even if an embedding program hides the answer itself. Hashing the password takes ten times as
/// long.
const STORE_PART_OF_A_REGISTRATION: Duration = Duration::from_millis(25);

/// A request for an account.
#[derive(Debug, Clone)]
pub struct RegistrationRequest {
    /// The e-mail as it was typed.
    pub email: String,
    /// The display name.
    pub name: String,
    /// The password.
    pub password: Secret,
}

impl Auth {
    /// Registers an account with a default project. The very first account is admin.
    ///
    /// # Errors
    /// [`AuthError::RegistrationClosed`], [`AuthError::Invalid`] with every problem, [`AuthError::AccountExists`],
    /// [`AuthError::Overloaded`], or an error of the store; no account was created.
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

    /// Creates an account for the operator, even if registration is closed.
    ///
    /// # Errors
    /// As [`register`](Self::register), except [`AuthError::RegistrationClosed`].
    pub async fn create_account(
        &self,
        request: RegistrationRequest,
        role: RoleAtCreation,
        origin: Origin,
    ) -> Result<Account, AuthError> {
        let (email, name) = checked(&request).map_err(AuthError::Invalid)?;
        // Before the store is called: the duration must not reveal whether the e-mail is taken.
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
    /// [`AuthError::Revoked`] if it is gone, or an error of the store.
    pub async fn me(&self, caller: &Caller) -> Result<Account, AuthError> {
        let record = self.store.find_account(caller.user).await?;
        record.map(|record| record.account).ok_or(AuthError::Revoked)
    }

    /// At most `limit` accounts, including disabled ones, the newest first. `before` is the last one of the previous
    /// page.
    /// For admins.
    ///
    /// # Errors
    /// [`AuthError::Denied`], or an error of the store.
    pub async fn list_accounts(
        &self,
        caller: &Caller,
        before: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<Account>, AuthError> {
        authorize_admin(caller)?;
        Ok(self.store.list_accounts(before, limit).await?)
    }

    /// Changes an account's role or activity. Absent fields stay. For admins, who may also change their own account.
    ///
    /// Disabling ends every session of the account permanently. Its API keys are refused while it is disabled.
    ///
    /// # Errors
    /// [`AuthError::Denied`], also if the caller is no longer an admin; [`AuthError::Revoked`] if the caller's account
    /// is disabled by now; [`AuthError::NoAccount`]; [`AuthError::LastAdmin`]; or an error of the store. Nothing was
    /// changed.
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

/// The parts of a registration, or every problem with it.
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
