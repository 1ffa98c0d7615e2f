//! The words of the API's enums, as its document shows them.

use crate::mounts::ToolStatus;
use gathering_auth::{ProjectRole, Role, Scope};
use gathering_control::{
    DeliveryOutcome, FilterReason, Fire, McpGeneration, PauseReason, Period, QuestionState, RefusalReason,
};
use gathering_dag_engine::{DecidedOutcome, JournalEvent, NodeState, NotKeptReason};
use gathering_domain::{EffectClass, RunState, WaitingFor};
use gathering_scheduler::{CatchUp, Overlap, SkipReason};
use gathering_tools::WebhookScheme;

/// The name of the last event of a run's stream.
pub(super) const RUN_ENDED: &str = "run_ended";

/// The name of the event of a run's stream that says what a tool tells.
pub(super) const TOOL_NOTICE: &str = "tool_notice";

gathering_edge::enum_schemas! {
    /// What an account may do on the whole server.
    RoleSchema "Role": Role::ALL.map(Role::as_str);
    /// What a member may do in a project.
    ProjectRoleSchema "ProjectRole": ProjectRole::ALL.map(ProjectRole::as_str);
    /// What an API key may do where its owner may. Each implies `read`; `admin` implies all.
    ScopeSchema "Scope": Scope::ALL.map(Scope::as_str);
    /// The state of a run.
    RunStateSchema "RunState": RunState::ALL.map(RunState::as_str);
    /// What a waiting run waits for.
    WaitingForSchema "WaitingFor": WaitingFor::ALL.map(WaitingFor::as_str);
    /// The state of a node in a run.
    NodeStateSchema "NodeState": [
        NodeState::Pending, NodeState::Running, NodeState::Retrying, NodeState::Waiting, NodeState::Succeeded,
        NodeState::Failed, NodeState::Skipped, NodeState::Cancelled, NodeState::TimedOut,
    ].map(NodeState::as_str);
    /// Why the result of a node is not kept in a rerun.
    NotKeptReasonSchema "NotKeptReason": NotKeptReason::NAMES;
    /// How often a budget is reset.
    PeriodSchema "BudgetPeriod": Period::ALL.map(Period::as_str);
    /// What a person decides about a node whose end nobody knows.
    DecidedOutcomeSchema "DecidedOutcome": DecidedOutcome::ALL.map(DecidedOutcome::as_str);
    /// What a repeated call of a tool may do: nothing, nothing more than one call, or as much again.
    EffectClassSchema "EffectClass": EffectClass::ALL.map(EffectClass::as_str);
    /// How an MCP server is reached.
    McpTransportSchema "McpTransportType": ["stdio", "http"];
    /// How requests to an MCP server are authenticated.
    McpAuthSchema "McpAuthType": ["none", "bearer", "client_credentials"];
    /// The generation of the protocol that an MCP server speaks.
    McpGenerationSchema "McpProtocol": McpGeneration::ALL.map(McpGeneration::as_str);
    /// The connection of this instance to an MCP server.
    McpConnectionSchema "McpConnectionState": ["not_connected", "connecting", "connected", "down"];
    /// Whether a tool of an MCP server may be called.
    McpToolStatusSchema "McpToolStatus": ToolStatus::ALL.map(ToolStatus::as_str);
    /// What an entry of a run's journal says.
    JournalKindSchema "JournalKind": JournalEvent::KINDS;
    /// The name of the last event of a run's stream.
    RunEndedSchema "RunEndedName": [RUN_ENDED];
    /// The name of the event that says what a tool tells.
    ToolNoticeNameSchema "ToolNoticeName": [TOOL_NOTICE];
    /// What became of a question of a tool.
    QuestionStateSchema "QuestionState": QuestionState::ALL.map(QuestionState::as_str);
    /// What happens to due times that passed while nothing fired.
    CatchUpSchema "CatchUp": CatchUp::ALL.iter().map(|policy| policy.as_str());
    /// What happens at a due time while an earlier run has not ended.
    OverlapSchema "Overlap": Overlap::ALL.iter().map(|policy| policy.as_str());
    /// Why a schedule is paused.
    PauseReasonSchema "PauseReason": PauseReason::ALL.map(PauseReason::as_str);
    /// The state of a schedule.
    ScheduleStateSchema "ScheduleState": ["active", "paused", "ended"];
    /// What became of a due time.
    FireOutcomeSchema "FireOutcome": Fire::OUTCOMES;
    /// Why a due time started nothing.
    SkipReasonSchema "SkipReason": SkipReason::ALL.iter().map(|reason| reason.as_str());
    /// How calls of a hook are verified.
    WebhookSchemeSchema "WebhookScheme": WebhookScheme::ALL.map(WebhookScheme::as_str);
    /// What became of a call of a hook.
    DeliveryOutcomeSchema "DeliveryOutcome": DeliveryOutcome::ALL.map(DeliveryOutcome::as_str);
    /// Why nothing came of a call of a hook.
    DeliveryReasonSchema "DeliveryReason": FilterReason::ALL.map(FilterReason::as_str).into_iter()
        .chain(RefusalReason::ALL.map(RefusalReason::as_str));
    /// The kind of an entry of a workspace.
    FileKindSchema "FileKind": ["file", "directory"];
    /// The state of an instance.
    InstanceStateSchema "InstanceState": ["active", "draining"];
    /// The form in which events are read.
    EventFormatSchema "EventFormat": ["json", "sse", "cloudevents"];
    /// The kind of a security event.
    AuditKindSchema "AuditKind": gathering_auth::AuditKind::ALL.iter().map(|kind| kind.as_str());
}
