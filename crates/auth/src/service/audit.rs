//! The audit record: reading it.

use super::Auth;
use crate::{AuditFilter, AuditRecord, AuthError, Caller, authorize_admin};

impl Auth {
    /// At most `limit` events of the audit record that pass the filter, the newest first. For admins.
    ///
    /// # Errors
    /// [`AuthError::Denied`], or the store's.
    pub async fn audit_events(
        &self,
        caller: &Caller,
        filter: &AuditFilter,
        limit: usize,
    ) -> Result<Vec<AuditRecord>, AuthError> {
        authorize_admin(caller)?;
        Ok(self.store.list_audit_events(filter, limit).await?)
    }
}
