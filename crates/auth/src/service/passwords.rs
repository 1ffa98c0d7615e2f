//! Passwords: changing one, and keeping hashes at the configured cost.

use gathering_domain::{Pointer, Secret};

use super::{Auth, needed_session};
use crate::{
    AccountRecord, AuditEvent, AuditKind, AuthError, Caller, Charge, PasswordChange, PasswordError,
    PasswordHash, Passwords,
};

impl Auth {
    /// Changes the caller's password. Every other session of the account ends for good; the caller's own goes on, and
    /// API keys stay.
    ///
    /// The attempt is charged as a login with the account's e-mail would be, and given back when it succeeds; it is not
    /// charged when too many wait. When the password was changed by somebody else in the meantime, the current one is another one now.
    ///
    /// # Errors
    /// [`AuthError::SessionNeeded`] to an API key, [`AuthError::Invalid`] with the new password's problems at
    /// `/new_password`, [`AuthError::Throttled`], [`AuthError::WrongPassword`], [`AuthError::Overloaded`],
    /// [`AuthError::Revoked`] if the account is disabled or gone, or the store's; nothing was changed.
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

    /// Makes the hash of a verified password anew if it was made at another cost than the configured one. Gives the
    /// hash that is stored then, unless somebody else replaced it first.
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
            // That is no reason to refuse who knows the password: the next login tries again.
            Err(PasswordError::Overloaded) => Ok(stored.clone()),
            Err(error) => Err(error.into()),
        }
    }
}
