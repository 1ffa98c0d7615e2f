//! Reading the audit record.

use super::Auth;
use crate::{AuditFilter, AuditRecord, AuthError, Caller, authorize_admin};

impl Auth {
    /// At most `limit` audit events that match the filter, the newest first. For admins.
    ///
    /// # Errors
    /// [`AuthError::Denied`], or an error of the store.
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
