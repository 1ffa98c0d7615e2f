//! For tests and examples: the in-memory twin of the port, and the cases that every implementation must pass.
//!
//! An implementation runs the cases with [`account_store_suite!`](crate::account_store_suite).

mod memory;
pub mod suite;

use async_trait::async_trait;

use crate::{AccountStore, AuditEvent};

pub use memory::MemoryAccounts;

/// What the cases need besides the port.
#[async_trait]
pub trait InspectAccounts: AccountStore {
    /// At least the first hundred audit events, in the order in which they were written.
    async fn audit_trail(&self) -> Vec<AuditEvent>;
}

/// Expands to one `#[tokio::test]` for each case of [`suite`].
///
/// Takes an async function without arguments that returns an empty store: an [`InspectAccounts`], or anything that
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
            accounts_are_listed_newest_first_in_pages,
            an_account_is_changed_and_what_changed_is_recorded,
            an_unknown_account_is_not_changed,
            disabling_ends_every_session_for_good,
            a_disabled_account_gets_no_tokens,
            the_last_active_admin_stays_one,
            of_two_admins_who_demote_each_other_at_once_one_remains,
            who_is_no_active_admin_any_more_changes_no_account,
            a_refresh_token_is_spent_once,
            a_token_spent_twice_revokes_its_session_and_no_other,
            of_two_who_spend_a_token_at_once_one_gets_the_next,
            an_expired_refresh_token_is_refused,
            an_unknown_refresh_token_is_refused,
            a_logout_ends_its_session_and_may_be_repeated,
            a_logout_forgets_no_token_before_its_time,
            a_logout_ends_the_named_refresh_tokens_session,
            a_logout_leaves_other_accounts_alone,
            a_changed_password_ends_every_session_but_one,
            a_password_is_changed_only_from_the_expected_one,
            of_two_password_changes_at_once_one_holds,
            a_hash_made_anew_leaves_sessions_alone,
            a_budget_pays_its_burst_and_then_refuses,
            a_spent_budget_comes_back_with_time,
            charges_are_paid_together_or_not_at_all,
            charges_at_once_never_exceed_the_burst,
            charges_at_once_in_any_order_are_paid,
            a_session_gives_its_charges_back,
            a_changed_password_gives_its_charges_back,
            a_refund_is_no_credit,
            an_api_key_is_found_by_its_secret,
            api_keys_are_listed_newest_first,
            an_api_key_is_revoked_by_its_owner_once,
            an_expired_api_key_is_over_and_listed,
            an_api_key_stands_as_its_account_does,
            an_account_has_so_many_api_keys_and_no_more,
            a_session_that_is_over_makes_no_api_key,
            the_same_request_makes_one_api_key,
            of_two_same_requests_at_once_one_makes_an_api_key,
            a_refused_request_uses_no_idempotency_key,
            every_change_is_in_the_audit_trail_with_its_origin,
            audit_events_are_listed_newest_first_in_pages,
            audit_events_are_listed_by_account_kind_and_time,
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
