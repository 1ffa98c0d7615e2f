//! One mounted server: its tools, and the calls of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gathering_domain::Digest;
use gathering_tools::{Outbound, ToolContext, ToolQuestions};
use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::McpError;
use crate::catalogue::{McpCatalogue, McpTool};
use crate::config::McpServerConfig;
use crate::connection::Connection;
use crate::hidden::Hidden;
use crate::mounted::MountedTool;
use crate::notices::McpNotices;
use crate::peer::Peer;
use crate::pins::ToolPins;
use crate::result::McpResult;
use crate::supervisor::{Supervisor, supervise};
use crate::tool_call::ToolCall;

/// How much longer than a start it may take until the task says how it went: a process that failed is ended first.
const SETTLING: Duration = Duration::from_secs(10);

/// What a mounted server uses of its embedder.
#[derive(Clone)]
pub struct McpServices {
    /// Sends the requests of servers over HTTP, to the addresses that the operator allows.
    pub outbound: Outbound,
    /// Answers the questions of servers in calls that have no respondent of their own. Without it servers are told that
    /// nobody answers.
    pub questions: Option<ToolQuestions>,
    /// Takes what servers tell.
    pub notices: McpNotices,
}

impl McpServices {
    /// Services without a person to ask.
    pub fn new(outbound: Outbound) -> Self {
        Self { outbound, questions: None, notices: McpNotices::default() }
    }
}

/// A mounted server. Its task keeps it connected until it is stopped or dropped. Clones share it.
#[derive(Clone)]
pub struct McpServer {
    shared: Arc<Shared>,
    owner: Arc<Owner>,
}

/// Stops the task when the last clone is dropped.
struct Owner {
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What the server and its task share.
pub(crate) struct Shared {
    pub(crate) config: McpServerConfig,
    pub(crate) pins: Mutex<ToolPins>,
    pub(crate) state: watch::Sender<State>,
    /// Calls in flight.
    slots: Semaphore,
}

/// Whether the server can be used.
#[derive(Clone)]
pub(crate) enum State {
    /// The task is connecting.
    Connecting,
    Ready(Ready),
    /// The task waits before it tries again.
    Down(Arc<McpError>),
    Stopped,
}

/// Whether a server can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum McpStatus {
    /// It is being connected.
    Connecting,
    /// It is connected, and its tools are known.
    Connected,
    /// It is not connected; the next try follows by itself.
    Down {
        /// Why.
        reason: String,
    },
    /// It was stopped.
    Stopped,
}

/// A connection and the tools that were listed over it.
#[derive(Clone)]
pub(crate) struct Ready {
    pub(crate) connection: Arc<Connection>,
    pub(crate) catalogue: Arc<McpCatalogue>,
}

impl McpServer {
    /// Mounts a server. Its task connects at once, and again whenever the connection ends.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`McpError::Config`]. Whether the server answers is seen by [`McpServer::ready`].
    pub fn mount(config: McpServerConfig, services: McpServices) -> Result<Self, McpError> {
        config.check()?;
        let peer = Arc::new(Peer {
            server: config.name.clone(),
            questions: services.questions,
            notices: services.notices,
            hidden: Hidden::of(&config),
            tools_changed: tokio::sync::Notify::new(),
        });
        let shared = Arc::new(Shared {
            pins: Mutex::new(config.pins.clone()),
            slots: Semaphore::new(config.limits.max_calls),
            config,
            state: watch::Sender::new(State::Connecting),
        });
        let stop = CancellationToken::new();
        let supervisor =
            Supervisor { shared: Arc::clone(&shared), outbound: services.outbound, peer, stop: stop.clone() };
        let task = Mutex::new(Some(tokio::spawn(supervise(supervisor))));
        Ok(Self { shared, owner: Arc::new(Owner { stop, task }) })
    }

    /// The server's name in the settings.
    pub fn name(&self) -> &str {
        &self.shared.config.name
    }

    /// Waits until the server is connected, and returns its tools.
    ///
    /// # Errors
    /// [`McpError::NotReady`] if the last try failed, with the reason. The task tries again.
    pub async fn ready(&self) -> Result<Arc<McpCatalogue>, McpError> {
        self.connected().await.map(|ready| ready.catalogue)
    }

    /// The tools as they were listed last; `None` while the server is not connected.
    pub fn catalogue(&self) -> Option<Arc<McpCatalogue>> {
        match &*self.shared.state.borrow() {
            State::Ready(ready) => Some(Arc::clone(&ready.catalogue)),
            _ => None,
        }
    }

    /// Whether the server can be used now.
    pub fn status(&self) -> McpStatus {
        match &*self.shared.state.borrow() {
            State::Connecting => McpStatus::Connecting,
            State::Ready(_) => McpStatus::Connected,
            State::Down(error) => McpStatus::Down { reason: gathering_domain::with_causes(&**error) },
            State::Stopped => McpStatus::Stopped,
        }
    }

    /// Waits until the next try of a server that is down has begun, for at most `limit`. [`McpServer::ready`] and calls
    /// wait for how it goes.
    pub async fn retried(&self, limit: Duration) {
        let mut state = self.shared.state.subscribe();
        // Whatever it is then, the next call says so.
        let _ = tokio::time::timeout(limit, state.wait_for(|state| !matches!(state, State::Down(_)))).await;
    }

    /// Accepts other definitions, at once and for all later lists.
    pub fn set_pins(&self, pins: ToolPins) {
        self.shared.set_pins(pins);
    }

    /// The tools that may be called now, to be registered in a toolbox.
    ///
    /// # Errors
    /// As [`McpServer::ready`].
    pub async fn tools(&self) -> Result<Vec<MountedTool>, McpError> {
        let catalogue = self.ready().await?;
        Ok(catalogue.callable().map(|tool| MountedTool::new(self.clone(), tool)).collect())
    }

    /// Calls a tool by the server's name.
    ///
    /// Cancel: safe; the server is told, and what it answers nevertheless is dropped. The call may have taken effect.
    ///
    /// # Errors
    /// [`McpError`]; it says whether the call may have taken effect.
    pub async fn call(&self, tool: &str, arguments: Value) -> Result<McpResult, McpError> {
        self.call_as(tool, arguments, None, &ToolContext::new()).await
    }

    /// As [`McpServer::call`], if the server still describes the tool by a definition with this digest. What the server
    /// tells of the call goes to the notices of `context`, and what it asks to its questions.
    ///
    /// # Errors
    /// As [`McpServer::call`].
    pub async fn call_defined(
        &self,
        tool: &str,
        arguments: Value,
        digest: Digest,
        context: &ToolContext,
    ) -> Result<McpResult, McpError> {
        self.call_as(tool, arguments, Some(digest), context).await
    }

    async fn call_as(
        &self,
        tool: &str,
        arguments: Value,
        digest: Option<Digest>,
        context: &ToolContext,
    ) -> Result<McpResult, McpError> {
        let _slot = self.slot().await?;
        let mut is_repeated = false;
        loop {
            let Ready { connection, catalogue } = self.connected().await?;
            let found = callable(&catalogue, tool, digest)?;
            check(found, &arguments)?;
            let headers = found.headers.of_call(&arguments).map_err(McpError::InvalidArguments)?;
            let (notices, questions) = (context.notices.clone(), context.questions.clone());
            let call = Arc::new(ToolCall::new(tool, headers, notices, questions));
            let _ends = call.ends_with();
            let answer = match connection.call(&call, &arguments).await {
                // The server did not accept the call, and its task connects anew.
                Err(McpError::SessionLost) if !is_repeated => {
                    is_repeated = true;
                    self.replaced(&connection).await;
                    continue;
                }
                Err(error) => {
                    if matches!(error, McpError::TimedOut { .. }) {
                        connection.doubt.notify_one();
                    }
                    return Err(error);
                }
                Ok(answer) => answer,
            };
            let limit_bytes = self.shared.config.limits.max_result_bytes;
            if answer.size_bytes > limit_bytes {
                return Err(McpError::TooLarge { limit_bytes });
            }
            return McpResult::read(answer.result, found.output.as_deref());
        }
    }

    /// Stops the server in order: calls in flight get the time of the settings to end, then its processes are
    /// terminated. Later calls fail.
    pub async fn stop(&self) {
        self.owner.stop.cancel();
        let task = self.owner.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(server = self.name(), %error, "the task of an MCP server failed");
        }
    }

    async fn slot(&self) -> Result<tokio::sync::SemaphorePermit<'_>, McpError> {
        let limits = &self.shared.config.limits;
        let slot = tokio::time::timeout(limits.call, self.shared.slots.acquire()).await;
        slot.ok().and_then(Result::ok).ok_or_else(|| McpError::NotReady {
            reason: format!("{} calls are in flight, and none of them ended", limits.max_calls),
        })
    }

    async fn connected(&self) -> Result<Ready, McpError> {
        let mut state = self.shared.state.subscribe();
        let deadline = Instant::now() + self.shared.config.limits.startup + SETTLING;
        let settled = state.wait_for(|state| !matches!(state, State::Connecting));
        let not_ready = |reason: String| Err(McpError::NotReady { reason });
        match timeout_at(deadline, settled).await {
            Ok(Ok(state)) => match &*state {
                State::Ready(ready) => Ok(ready.clone()),
                State::Down(error) => not_ready(gathering_domain::with_causes(&**error)),
                State::Connecting | State::Stopped => Err(McpError::Stopped),
            },
            Ok(Err(_)) => Err(McpError::Stopped),
            Err(_) => not_ready("it is still starting".to_owned()),
        }
    }

    /// Waits until the task has seen that `connection` is of no use any more.
    async fn replaced(&self, connection: &Arc<Connection>) {
        let mut state = self.shared.state.subscribe();
        let is_other = |state: &State| match state {
            State::Ready(ready) => !Arc::ptr_eq(&ready.connection, connection),
            _ => true,
        };
        let deadline = Instant::now() + self.shared.config.limits.startup + SETTLING;
        // An error means that the task has ended; the next call says so.
        let _ = timeout_at(deadline, state.wait_for(is_other)).await;
    }
}

impl std::fmt::Debug for McpServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("McpServer").field("name", &self.name()).finish_non_exhaustive()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    fn set_pins(&self, pins: ToolPins) {
        let mut current = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        self.state.send_if_modified(|state| match state {
            State::Ready(ready) => {
                ready.catalogue = Arc::new(ready.catalogue.with_pins(&pins));
                true
            }
            _ => false,
        });
        *current = pins;
    }
}

fn callable<'a>(
    catalogue: &'a McpCatalogue,
    tool: &str,
    digest: Option<Digest>,
) -> Result<&'a McpTool, McpError> {
    let found = catalogue.find(tool).ok_or_else(|| McpError::UnknownTool { name: tool.to_owned() })?;
    if let Some(reason) = &found.not_callable {
        return Err(McpError::NotCallable { tool: tool.to_owned(), reason: reason.clone() });
    }
    match digest {
        Some(digest) if digest != found.digest => {
            Err(McpError::NotCallable { tool: tool.to_owned(), reason: crate::NotCallable::Outdated })
        }
        _ => Ok(found),
    }
}

fn check(tool: &McpTool, arguments: &Value) -> Result<(), McpError> {
    match &tool.input {
        Some(schema) => schema.check(arguments).map_err(McpError::InvalidArguments),
        None => Ok(()),
    }
}
