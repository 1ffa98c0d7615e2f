//! For tests and examples: the in-memory twin of the port, and the cases that every implementation of it must pass.
//!
//! An implementation runs the cases with [`control_store_suite!`](crate::control_store_suite).

mod memory;
pub mod suite;

use std::sync::Arc;

use async_trait::async_trait;
use chrono::Utc;
use gathering_auth::{Account, AuditEvent, Caller, Credential, Origin, ProjectRole, Role, Scope, Scopes};
use gathering_dag_engine::{BudgetLedger, ChildRuns, RunStore};
use gathering_domain::{ApiKeyId, Email, InstanceId, ProjectId, SessionId, TokenId, UserId};

use crate::{ControlStore, CreateProject, ProjectControl};

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

/// The caller with an API key of the same account that has these scopes.
pub fn with_scopes(caller: &Caller, scopes: &[Scope]) -> Caller {
    let scopes: Scopes = scopes.iter().copied().collect();
    let role = if scopes.contains(Scope::Admin) { caller.role } else { Role::Member };
    let credential = Credential::ApiKey { key: ApiKeyId::new(), scopes };
    Caller { user: caller.user, role, credential, origin: caller.origin }
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

    /// Where calls reserve and settle what they cost, in the same store.
    fn budget_ledger(&self) -> Arc<dyn BudgetLedger>;

    /// A new account of this role with its default project, and a session of it.
    async fn account(&self, role: Role) -> Caller;

    /// Gives an account another role, and enables or disables it.
    async fn change_account(&self, account: &Caller, role: Role, is_active: bool);

    /// The audit record, the oldest event first.
    async fn audit_trail(&self) -> Vec<AuditEvent>;

    /// An instance that can claim runs.
    async fn instance(&self) -> InstanceId;

    /// A new project with this owner.
    ///
    /// # Panics
    /// If the store does not create it.
    #[expect(clippy::expect_used, reason = "a test that cannot prepare has failed")]
    async fn project(&self, owner: &Caller) -> ProjectId {
        let create = CreateProject { name: "project".to_owned(), description: String::new(), once: None };
        let created = ProjectControl::new(self.store()).create(owner, create).await;
        created.expect("a project is created").id
    }

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
            pipelines_that_say_so_are_tools_of_their_members,
            a_change_of_an_agent_makes_a_version,
            changes_of_an_agent_at_once_are_all_made,
            an_invalid_agent_is_refused_with_every_problem,
            agents_are_seen_by_members_only,
            an_agent_is_created_once_per_key,
            a_run_keeps_the_version_of_its_agent,
            a_message_to_an_agent_is_a_run_of_its_own_kind,
            a_call_of_a_tool_is_a_run_of_its_own_kind,
            a_call_with_bad_parameters_starts_nothing,
            a_tool_of_one_project_is_there_for_its_members_only,
            a_repeated_call_of_a_tool_is_the_same_run,
            the_failure_of_a_call_is_that_of_its_node,
            an_input_is_completed_or_refused_when_a_run_is_started,
            the_input_of_a_rerun_is_checked_as_well,
            a_schedule_starts_nothing_whose_input_does_not_fit,
            a_hook_starts_nothing_whose_input_does_not_fit,
            a_trusted_call_starts_a_run_that_names_it,
            a_call_that_comes_again_is_answered_with_the_first,
            of_calls_with_one_id_at_once_one_starts_a_run,
            a_call_becomes_an_event_of_the_hooks_type,
            a_cloud_event_is_in_the_log_once,
            untrusted_calls_learn_nothing_and_are_noted,
            refused_calls_are_noted_one_by_one_up_to_a_bound,
            a_filter_and_a_mapping_decide_about_a_call,
            a_call_whose_pipeline_is_disabled_is_taken_when_it_comes_again,
            a_kept_call_is_sent_again_as_a_new_delivery,
            a_disabled_hook_keeps_calls_and_does_nothing,
            a_secret_is_replaced_without_a_gap,
            a_hook_is_created_once_for_one_key,
            a_stranger_finds_no_hook_and_a_viewer_changes_none,
            a_wrong_hook_is_refused_with_every_problem,
            a_deleted_hook_is_unknown_to_its_callers,
            secrets_of_hooks_are_stored_encrypted,
            after_a_rotation_the_secrets_of_hooks_are_of_the_new_key,
            a_call_of_a_hook_without_its_key_is_to_be_sent_again,
            a_set_secret_is_listed_without_its_value,
            a_viewer_sees_the_names_of_secrets_and_a_stranger_nothing,
            who_lost_the_right_sets_no_secret,
            a_project_has_a_bounded_number_of_secrets,
            of_two_that_set_one_secret_at_once_the_later_stands,
            a_node_gets_the_value_of_this_moment,
            a_value_opens_only_as_the_secret_that_it_is,
            a_value_without_its_key_is_named_and_the_others_are_read,
            after_a_rotation_everything_is_encrypted_with_the_new_key,
            a_run_that_uses_a_secret_is_recorded_once,
            a_projects_own_secret_wins_over_files_and_those_over_variables,
            a_mounted_server_is_found_until_it_is_unmounted,
            accepted_definitions_replace_the_ones_that_were_seen,
            a_viewer_sees_mcp_servers_and_a_stranger_nothing,
            a_server_is_mounted_only_as_the_operator_and_the_bounds_allow,
            a_due_schedule_starts_a_run_of_its_pipeline,
            i6_of_several_that_fire_at_once_one_starts_a_run,
            a_due_time_is_skipped_while_an_earlier_run_goes_on,
            a_queued_due_time_starts_when_the_earlier_run_has_ended,
            the_previous_run_is_cancelled_where_the_policy_says_so,
            what_becomes_due_during_a_pause_is_skipped,
            a_schedule_is_triggered_by_hand,
            i6_a_range_is_backfilled_once,
            a_due_time_whose_pipeline_is_disabled_is_skipped,
            a_schedule_pauses_itself_after_failures_in_a_row,
            a_changed_trigger_counts_from_the_change,
            a_schedule_is_created_once_for_one_key,
            a_schedule_of_a_version_starts_that_version,
            the_agenda_has_the_schedules_that_somebody_sees,
            schedules_tell_in_the_log_what_happened_to_them,
            an_event_that_fits_starts_a_run_with_it,
            i6_each_event_fires_a_schedule_once,
            i6_more_events_than_a_round_takes_all_fire,
            an_event_can_wait_until_the_earlier_run_has_ended,
            a_paused_schedule_fires_for_no_event,
            an_event_schedule_ends_after_its_fires,
            a_schedule_changes_from_times_to_events_and_back,
            a_wrong_event_schedule_is_refused_with_every_problem,
            a_stranger_finds_no_schedule_and_a_viewer_changes_none,
            a_wrong_schedule_is_refused_with_every_problem,
            a_schedule_follows_its_calendar,
            a_broken_calendar_leaves_the_days_as_they_are,
            a_calendar_of_the_only_days_ends_a_schedule_and_revives_it,
            a_calendar_that_cannot_be_read_is_refused_at_its_place,
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
            a_local_run_is_found_by_its_file_and_continued,
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
            a_rerun_of_another_version_keeps_the_nodes_that_are_the_same,
            a_preview_of_a_rerun_starts_nothing,
            the_same_key_and_body_rerun_a_run_once,
            a_question_is_answered_once,
            an_answer_has_what_its_question_asks_for,
            a_question_is_open_under_the_claim_that_opened_it,
            nobody_is_asked_in_vain,
            who_may_run_things_answers_questions,
            an_approver_decides_once,
            the_end_of_a_node_is_decided_once,
            only_a_node_whose_end_is_unknown_is_decided,
            a_rerun_begins_with_what_was_decided,
            only_an_approver_decides_where_a_node_names_them,
            only_a_node_that_waits_for_an_approval_is_decided,
            what_names_no_project_goes_into_the_default_one,
            a_project_is_seen_by_its_members_and_by_admins,
            projects_are_listed_in_pages_the_newest_first,
            a_created_project_belongs_to_its_creator_and_an_api_key_needs_the_scope,
            the_same_key_and_body_create_one_project,
            of_two_creations_with_one_key_at_once_one_creates_a_project,
            a_key_of_another_project_or_of_a_deleted_one_creates_nothing,
            what_is_absent_of_a_change_stays_and_only_an_owner_changes_a_project,
            a_deleted_project_is_absent_to_everybody,
            a_default_project_is_not_deleted,
            a_project_is_deleted_only_when_its_runs_have_ended,
            the_files_of_a_project_are_the_servers_or_the_operators,
            what_changes_of_a_project_is_recorded_and_nothing_else,
            nothing_is_recorded_of_what_is_refused_or_missing,
            members_are_listed_with_their_accounts_in_pages,
            every_member_may_leave_but_the_last_owner,
            of_two_owners_who_leave_at_once_one_remains,
            who_lost_the_right_changes_no_members,
            an_owner_sets_the_budget_that_members_see,
            a_call_is_reserved_and_settled_once,
            a_refused_call_goes_on_when_the_budget_allows_it,
            what_an_ended_run_left_reserved_is_spent,
            a_run_tree_shares_its_allowance_and_no_other_run_has_it,
            only_an_owner_tops_up_a_run_that_waits_for_its_budget,
            posted_events_are_in_the_log_of_their_project,
            an_event_with_a_key_is_posted_once,
            members_read_events_and_those_who_run_things_post_them,
            a_batch_is_posted_whole_or_not_at_all,
            a_reader_goes_on_where_a_page_ended,
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
