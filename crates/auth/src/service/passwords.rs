//! Passwords: changes, and hashes of the configured cost.

use gathering_domain::{Pointer, Secret};

use super::{Auth, needed_session};
use crate::{
    AccountRecord, AuditEvent, AuditKind, AuthError, Caller, Charge, PasswordChange, PasswordError,
    PasswordHash, Passwords,
};

impl Auth {
    /// Changes the caller's password. Every other session of the account ends permanently. The caller's session
    /// continues, and API keys stay valid.
    ///
    /// The attempt is charged like a login with the account's e-mail, and refunded on success. It is not charged if too
    /// many passwords wait. If somebody else changed the password meanwhile, the caller's current password is wrong.
    ///
    /// # Errors
    /// [`AuthError::SessionNeeded`] for an API key, [`AuthError::Invalid`] with the new password's problems at
    /// `/new_password`, [`AuthError::Throttled`], [`AuthError::WrongPassword`], [`AuthError::Overloaded`],
    /// [`AuthError::Revoked`] if the account is disabled or gone, or an error of the store. Nothing was changed.
    pub async fn change_password(
        &self,
        caller: &Caller,
        current: Secret,
        new: Secret,
    ) -> Result<(), AuthError> {
        let keep = needed_session(caller)?;
        let pointer = Pointer::root().join("new_password");
        Passwords::problems(&new, &pointer).into_result().map_err(AuthError::Invalid)?;
        let record = self.store.find_account(caller.user).await?;
        let Some(AccountRecord { account, password_hash: expected }) =
            record.filter(|record| record.account.is_active)
        else {
            return Err(AuthError::Revoked);
        };
        let place = self.passwords.place()?;
        let event = |kind| AuditEvent::new(kind, Some(account.id), caller.origin);
        let failed = event(AuditKind::PasswordChangeFailed);
        let charges = Charge::for_login(account.email.as_str(), caller.origin.address);
        self.charge_attempt(&charges, failed.clone()).await?;
        if !self.passwords.verify_at(&place, current, Some(&expected)).await? {
            self.store.record_audit(failed.because("wrong_password")).await?;
            return Err(AuthError::WrongPassword);
        }
        let hash = self.passwords.hash_at(&place, new).await?;
        drop(place);
        let change = PasswordChange { user: account.id, expected, hash, keep, refund: charges.to_vec() };
        if self.store.change_password(change, event(AuditKind::PasswordChanged)).await? {
            return Ok(());
        }
        self.store.record_audit(failed.because("changed_meanwhile")).await?;
        Err(AuthError::WrongPassword)
    }

    /// Renews the hash of a verified password if its cost is not the configured one. Returns the stored hash, unless
    /// somebody else replaced it first.
    pub(super) async fn at_configured_cost(
        &self,
        record: &AccountRecord,
        password: &Secret,
    ) -> Result<PasswordHash, AuthError> {
        let stored = &record.password_hash;
        if self.passwords.is_of_configured_cost(stored) {
            return Ok(stored.clone());
        }
        match self.passwords.hash(password.clone()).await {
            Ok(hash) => {
                self.store.replace_password_hash(record.account.id, stored.clone(), hash.clone()).await?;
                Ok(hash)
            }
            // That is no reason to refuse a correct password: the next login tries again.
            Err(PasswordError::Overloaded) => Ok(stored.clone()),
            Err(error) => Err(error.into()),
        }
    }
}
