//! For tests and examples: the in-memory twin of the port, and the cases that every implementation of it must pass.
//!
//! An implementation runs the cases with [`control_store_suite!`](crate::control_store_suite).

mod memory;
pub mod suite;

use std::sync::Arc;

use async_trait::async_trait;
use chrono::Utc;
use gathering_auth::{Account, Caller, Credential, Origin, ProjectRole, Role, Scope, Scopes};
use gathering_dag_engine::{ChildRuns, RunStore};
use gathering_domain::{ApiKeyId, Email, InstanceId, ProjectId, SessionId, TokenId, UserId};

use crate::ControlStore;

pub use memory::MemoryControl;

/// A caller with a session of this account.
pub fn session_caller(user: UserId, role: Role) -> Caller {
    let (session, token) = (SessionId::new(), TokenId::new());
    let credential = Credential::Session { session, token, expires_at: Utc::now() };
    Caller { user, role, credential, origin: Origin::default() }
}

/// The account of this caller with this role, as a store keeps it.
pub fn account_of(caller: &Caller, role: Role) -> Account {
    Account {
        id: caller.user,
        email: Email::accepted_before(format!("{}@example.org", caller.user)),
        name: "Somebody".to_owned(),
        role,
        is_active: true,
        created_at: Utc::now(),
    }
}

/// A member with a session.
pub fn member() -> Caller {
    session_caller(UserId::new(), Role::Member)
}

/// A caller with an API key that has these scopes.
pub fn key_caller(role: Role, scopes: &[Scope]) -> Caller {
    let scopes: Scopes = scopes.iter().copied().collect();
    let credential = Credential::ApiKey { key: ApiKeyId::new(), scopes };
    Caller { user: UserId::new(), role, credential, origin: Origin::default() }
}

/// What the cases need beside the port itself.
#[async_trait]
pub trait ControlFixture: Send + Sync {
    /// The port.
    fn store(&self) -> Arc<dyn ControlStore>;

    /// The engine's store, where the graphs and journals of the same runs are.
    fn run_store(&self) -> Arc<dyn RunStore>;

    /// Where nodes start runs of the same store.
    fn child_runs(&self) -> Arc<dyn ChildRuns>;

    /// A new account of this role, with a session.
    async fn account(&self, role: Role) -> Caller;

    /// An instance that can claim runs.
    async fn instance(&self) -> InstanceId;

    /// A new project with this owner.
    async fn project(&self, owner: &Caller) -> ProjectId;

    /// Makes the caller a member of the project.
    async fn join(&self, project: ProjectId, member: &Caller, role: ProjectRole);
}

/// Makes one `#[tokio::test]` of each case of [`suite`].
///
/// Takes an async function without arguments that gives a [`ControlFixture`] on an empty store. The crate must depend
/// on tokio with `macros`.
#[macro_export]
macro_rules! control_store_suite {
    ($fixture:path) => {
        $crate::control_store_suite! { $fixture:
            a_started_run_is_queued_and_names_who_started_it,
            a_run_ends_in_the_time_that_its_definition_allows,
            a_stranger_finds_no_pipeline_and_a_viewer_starts_none,
            an_admin_starts_a_run_in_any_project,
            a_disabled_pipeline_starts_no_run,
            a_run_has_the_latest_version_unless_another_is_named,
            the_same_key_and_body_start_one_run,
            of_two_starts_with_one_key_at_once_one_is_accepted,
            a_key_with_another_body_is_refused,
            a_repeated_start_is_answered_whatever_became_of_the_pipeline,
            a_run_is_found_by_the_members_of_its_project,
            a_node_runs_the_pipelines_of_its_own_project_only,
            a_local_project_is_the_same_each_time_and_hidden_from_accounts,
            a_pipeline_is_found_as_it_was_defined,
            a_pipeline_belongs_to_the_default_project_unless_another_is_named,
            an_invalid_definition_is_refused_with_every_problem,
            a_viewer_sees_pipelines_and_changes_none,
            another_definition_is_a_new_version_and_the_same_one_is_none,
            a_pipeline_that_was_changed_since_is_neither_changed_nor_deleted,
            of_two_changes_at_once_that_expect_the_same_revision_one_is_made,
            a_deleted_pipeline_is_gone_once_its_runs_have_ended,
            pipelines_are_listed_newest_first_to_those_who_see_their_project,
            versions_are_listed_latest_first_with_their_authors,
            the_same_key_and_body_define_one_pipeline,
            of_two_definitions_with_one_key_at_once_one_is_created,
            a_key_defines_no_second_pipeline,
            a_cancelled_run_ends_and_is_not_cancelled_twice,
            a_viewer_neither_cancels_nor_reruns_nor_decides,
            a_rerun_refers_to_the_run_that_ended_and_keeps_what_stands,
            a_run_that_goes_on_or_belongs_to_a_disabled_pipeline_is_not_rerun,
            a_rerun_from_a_node_needs_that_node,
            the_same_key_and_body_rerun_a_run_once,
            an_approver_decides_once,
            only_an_approver_decides_where_a_node_names_them,
            only_a_node_that_waits_for_an_approval_is_decided,
            what_names_no_project_goes_into_the_default_one,
        }
    };
    ($fixture:path: $($case:ident,)+) => {$(
        #[tokio::test]
        async fn $case() {
            let fixture = $fixture().await;
            $crate::testing::suite::$case(&fixture).await;
        }
    )+};
}
