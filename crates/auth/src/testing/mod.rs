//! For tests and examples: the in-memory twin of the port, and the cases that every implementation of it must pass.
//!
//! An implementation runs the cases with [`account_store_suite!`](crate::account_store_suite).

mod memory;
pub mod suite;

use async_trait::async_trait;
use gathering_domain::UserId;

use crate::{AccountStore, AuditEvent};

pub use memory::MemoryAccounts;

/// What the cases need beside the port itself.
#[async_trait]
pub trait InspectAccounts: AccountStore {
    /// Every audit event in the order in which it was written.
    async fn audit_trail(&self) -> Vec<AuditEvent>;

    /// Disables an account.
    async fn disable_account(&self, user: UserId);
}

/// Makes one `#[tokio::test]` of each case of [`suite`].
///
/// Takes an async function without arguments that gives an empty store, an [`InspectAccounts`], or anything that
/// dereferences to one and keeps alive what the store needs. The crate must depend on tokio with `macros`.
#[macro_export]
macro_rules! account_store_suite {
    ($empty_store:path) => {
        $crate::account_store_suite! { $empty_store:
            the_first_account_is_admin_and_the_next_is_not,
            of_two_first_accounts_at_once_one_is_admin,
            a_given_role_is_kept,
            an_email_has_one_account_in_any_case,
            of_two_accounts_with_one_email_at_once_one_is_created,
            an_account_is_found_as_it_was_created,
            nothing_is_found_where_nothing_is,
            a_refresh_token_is_spent_once,
            a_token_spent_twice_revokes_its_session_and_no_other,
            of_two_who_spend_a_token_at_once_one_gets_the_next,
            an_expired_refresh_token_is_refused,
            an_unknown_refresh_token_is_refused,
            a_logout_ends_its_session_and_may_be_repeated,
            a_logout_forgets_no_token_before_its_time,
            a_logout_ends_the_named_refresh_tokens_session,
            a_logout_leaves_other_accounts_alone,
            a_disabled_account_is_refused_everywhere,
            every_change_is_in_the_audit_trail_with_its_origin,
        }
    };
    ($empty_store:path: $($case:ident,)+) => {$(
        #[tokio::test]
        async fn $case() {
            let store = $empty_store().await;
            $crate::testing::suite::$case(&*store).await;
        }
    )+};
}
