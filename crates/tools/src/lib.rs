//! Tools with JSON Schema parameters, workspaces and guarded outgoing HTTP.
//!
//! Owns how a tool is described, checked and called, which paths are valid in a workspace, and which addresses an
//! outgoing request may reach. Never knows runs, users, a database or the caller.

mod builtin;
mod command;
mod cut;
mod mail;
mod notices;
mod outbound;
mod pool;
mod questions;
mod result_limit;
mod spec;
mod tool;
mod toolbox;
mod webhook;
mod workspace;

pub use builtin::{
    EditFile, HttpRequest, ListFiles, NotificationChannels, Now, ReadFile, ReadTable, RowFilter, RowFilters,
    RunCommand, SearchFiles, SendNotification, ToolSetup, WaitSeconds, WriteFile,
};
pub use command::{CommandSetupError, Confinement, Launcher, RunCommandPolicy, run_launcher};
pub use gathering_domain::EffectClass;
pub use gathering_schema::{InvalidSchema, JsonSchema};
pub use mail::{
    Attachment, InvalidMailAddress, InvalidSmtpTls, Mail, MailAddress, MailError, Mailer, RefusedRecipient,
    SentMail, SmtpLogin, SmtpSettings, SmtpTls,
};
pub use notices::{ToolListener, ToolNotice, ToolNotices};
pub use outbound::{
    InvalidNetwork, Network, Outbound, OutboundError, OutboundPolicy, OutboundRequest, OutboundResponse,
    OutboundStream, is_refusal,
};
pub use pool::{BlockingPool, BlockingWorkPanicked};
pub use questions::{
    DeclineQuestions, QuestionRequest, ToolAnswer, ToolQuestion, ToolQuestions, ToolRespondent,
};
pub use spec::{ToolSource, ToolSpec};
pub use tool::{BlockingTool, Tool, ToolContext, ToolError};
pub use toolbox::{RegisterToolError, Toolbox};
pub use webhook::{
    HOOK_TOKEN_HEADER, InvalidWebhookKey, InvalidWebhookKeys, InvalidWebhookSignature, ReceivedHeaders,
    ReceivedWebhook, SignedWebhook, UntrustedWebhook, WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP,
    WebhookKey, WebhookKeys, WebhookScheme, sign_webhook, verify_webhook,
};
pub use workspace::{
    DirectoryCache, Entry, EntryKind, FileContent, FileVersion, InvalidPattern, ListOptions, Listing,
    OpenFile, Precondition, Search, SearchOptions, SearchStop, TextMatch, Upload, Workspace, WorkspaceError,
    WorkspacePath, Written,
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
