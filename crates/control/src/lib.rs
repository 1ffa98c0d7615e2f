//! What may be done with projects, pipelines and runs, and by whom.
//!
//! Owns the rules: who sees and changes what, which version of a pipeline runs, what may be rerun, who may decide an
//! approval; and where the files of a project are. Never knows SQL or HTTP: it keeps everything through the port
//! [`ControlStore`], and every call comes with the [`Caller`](gathering_auth::Caller).

mod access;
mod agents;
mod budgets;
mod control;
mod error;
mod events;
mod graphs;
mod hooks;
mod idempotency;
mod mcp_servers;
mod pipelines;
mod projects;
mod questions;
mod revision;
mod runs;
mod schedules;
mod secrets;
mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod tools;
mod workspaces;

pub use access::{
    CurrentAccess, Found, OfProject, Operator, Scoped, authorize_credential, right, visible_to,
};
pub use agents::{
    Agent, AgentControl, AgentsOfRuns, Chat, DefineAgent, NewAgent, PlannedAgentChange, PlannedAgentDeletion,
};
pub use budgets::{
    Bounds, Budget, BudgetControl, Held, Payer, Period, Recorded, Reservation, Share, TopUp,
    WOKEN_BY_SETTLEMENT, reserve, settle,
};
pub use control::Control;
pub use error::{Conflict, ControlError};
pub use events::{
    Audience, EventControl, EventFeed, EventFeedService, EventFilter, EventPage, EventSeq, EventType,
    EventsOf, FeedEvent, FeedSettings, FollowEvents, Followed, FollowedEvents, InvalidEventType,
    InvalidTypePattern, LoggedEvent, MAX_EVENT_DATA_BYTES, MAX_EVENT_TYPE_BYTES, MAX_POSTED_EVENTS, NewEvent,
    PostEvent, PostEvents, PostedEvent, TypePatterns, cloud_event_of, cloud_event_of_headers,
    read_cloud_event,
};
pub use graphs::{GraphSummary, Graphs, RunRules};
pub use hooks::{
    CallRefused, CalledHook, DEFAULT_HOOK_BODY_BYTES, DEFAULT_HOOK_CALLS, DefineHook, Delivered,
    DeliveryOutcome, FilterReason, Hook, HookAnswer, HookChange, HookChangeRule, HookControl, HookDelivery,
    HookSealRule, HookSecret, HookSecrets, HookSpec, HookTarget, HookVerification, KnownHook,
    MAX_HOOK_BODY_BYTES, MAX_HOOK_CALLS, NewHook, PlannedAct, PlannedDelivery, REFUSALS_PER_HOUR,
    ReceivedCall, Refusal, RefusalLog, RefusalLogService, RefusalReason, ResealedHooks, SecretChange,
    StoredCall, SubmittedHook,
};
pub use idempotency::Creation;
pub use mcp_servers::{
    AllowedMount, MAX_MCP_PINS_BYTES, MAX_MCP_SERVERS, McpGeneration, McpHttpAuth, McpMount, McpPins,
    McpReach, McpRules, McpServerControl, McpSettings, OtherMount, PlannedAcceptance, PlannedMount,
    SecretText, StoredMcpServers, pins_bytes, pins_digest,
};
pub use pipelines::{
    ChangePipeline, DefinePipeline, DefinedPipeline, Definitions, MAX_PIPELINE_TOOLS, NewPipeline, Pipeline,
    PipelineControl, PipelineHead, PipelineTool, PipelineVersion, PlannedChange, PlannedDeletion,
    SubmittedDefinition, VersionsPage,
};
pub use projects::{
    ChangeProject, CreateProject, FilesRoot, LocalProject, LockedMember, LockedProject, Member, MemberChange,
    PlannedProject, Project, ProjectControl,
};
pub use questions::{
    Answer, AnswerOutcome, AskedQuestions, MAX_OPEN_QUESTIONS, MAX_QUESTIONS, NewAnswer, Question,
    QuestionState,
};
pub use revision::ExpectedRevision;
pub use runs::{
    AcceptedRerun, DEFAULT_PRIORITY, Decide, DecideOutcome, DecisionOutcome, LocalFile, NewDecision,
    NewOutcome, NodeRuns, PipelineToStart, PlannedRun, ProjectPipelines, Rerun, RerunLocal, Run, RunControl,
    RunDetails, StartRun, Startable, StartedBy,
};
pub use schedules::{
    Agenda, AgendaFire, AgendaRange, BackfillRange, Calendars, Cause, Cut, DefineSchedule, EventMatching,
    EventRule, Fire, FireRule, LedgerEntry, LockedSchedule, MAX_CAUSES, MatchRound, NewSchedule, OnFailure,
    OpenFire, PauseReason, Schedule, ScheduleControl, ScheduleFiring, ScheduleNews, ScheduleSpec,
    ScheduleStep, ScheduledAction, StepRule, SubmittedSchedule, UpcomingDue,
};
pub use secrets::{
    MAX_SECRET_BYTES, MAX_SECRETS, MAX_SECRETS_BYTES, MIN_SECRET_BYTES, OtherSecrets, PlannedSecret,
    ProjectSecret, ResealedBatch, SealRule, SealedSecret, SecretControl, SecretSources, SecretUse,
    SecretUseService, SecretUser, StoredSecrets,
};
pub use store::{
    AgentStore, BudgetStore, ControlStore, EventStore, HookStore, McpServerStore, PipelineStore,
    ProjectStore, QuestionStore, ScheduleStore, SecretStore,
};
pub use tools::{CallTool, ToolControl};
pub use workspaces::{OpenWorkspaceError, RemoveWorkspaceError, WorkspaceSettings, Workspaces};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
