//! Pipeline files as tools of an MCP client, without a server: a call does what `gathering run FILE` does.
//!
//! Owns the runs that were started here, and drives them. Never knows how a message is read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{FuturesUnordered, StreamExt as _};
use gathering_control::{ControlError, Run, Scoped, right};
use gathering_domain::{InvalidId, RunId, RunState};
use gathering_mcp::offer::{
    Called, McpOffer, OfferError, OfferedCall, OfferedResult, OfferedTask, OfferedToolPage, ResourceContent,
    ResourceTemplate, TaskAnswer, TaskState,
};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::tools::{LocalAction, LocalTool};
use crate::command::run::{Driven, LocalRuns};
use crate::mcp::{self, LONG_WAIT, SHORT_WAIT};

/// The most runs that go on at once: each has an instance of its own. Further calls are refused.
const MAX_RUNS: usize = 8;

/// How many runs are remembered; the oldest is forgotten.
const MAX_REMEMBERED: usize = 1000;

/// What the files offer.
pub(super) struct LocalDesk<'a> {
    tools: Vec<LocalTool>,
    files: Vec<LocalRuns<'a>>,
    room: Arc<Semaphore>,
    orders: mpsc::Sender<Order>,
    started: Mutex<BTreeMap<RunId, Arc<Started>>>,
}

/// A run that is to be started and driven. The driver does both, so that a call that is cancelled leaves no run behind
/// that nobody drives.
pub(super) struct Order {
    file: usize,
    input: Value,
    accepted: oneshot::Sender<Result<Arc<Started>, ControlError>>,
    _room: OwnedSemaphorePermit,
}

/// A run that was started here.
struct Started {
    file: usize,
    run: Scoped<Run, right::Run>,
    /// The run when it has ended. It does not change any more after the stop.
    ended: watch::Receiver<Option<Run>>,
    cancel: CancellationToken,
}

impl Started {
    async fn wait(&self, limit: Duration) -> Option<Run> {
        let mut ended = self.ended.clone();
        let ended = timeout(limit, ended.wait_for(Option::is_some)).await.ok()?.ok()?;
        ended.clone()
    }
}

impl<'a> LocalDesk<'a> {
    /// An offer of these files; each tool of a file has its index in `files`. The orders are for
    /// [`LocalDesk::drive`].
    pub(super) fn new(tools: Vec<LocalTool>, files: Vec<LocalRuns<'a>>) -> (Self, mpsc::Receiver<Order>) {
        let (orders, received) = mpsc::channel(MAX_RUNS);
        let room = Arc::new(Semaphore::new(MAX_RUNS));
        (Self { tools, files, room, orders, started: Mutex::default() }, received)
    }

    /// Starts and drives runs until `stop`; those that go on then are released.
    pub(super) async fn drive(&self, mut orders: mpsc::Receiver<Order>, stop: &CancellationToken) {
        let mut going_on = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(order) = orders.recv() => going_on.push(Box::pin(self.carry_out(order, stop))),
                Some(()) = going_on.next() => {}
                () = stop.cancelled() => break,
            }
        }
        while going_on.next().await.is_some() {}
    }

    async fn carry_out(&self, order: Order, stop: &CancellationToken) {
        let Order { file, input, accepted, _room } = order;
        let Some(runs) = self.files.get(file) else { return };
        let run = match runs.accept(input).await {
            Ok(run) => run,
            Err(error) => return drop(accepted.send(Err(error))),
        };
        let id = run.id;
        let (end, ended) = watch::channel(None);
        let started = self.remember(Started { file, run, ended, cancel: CancellationToken::new() });
        accepted.send(Ok(Arc::clone(&started))).ok();
        match runs.drive_cancellable(&started.run, stop, &started.cancel).await {
            Ok(Driven::Ended(run)) => drop(end.send_replace(Some(*run))),
            Ok(Driven::Requeued) => {
                tracing::warn!(run.id = %id, "run {id} is not finished: `--resume` finishes it")
            }
            Err(error) => tracing::error!(run.id = %id, "run {id} cannot be driven: {error:#}"),
        }
    }

    fn remember(&self, started: Started) -> Arc<Started> {
        let started = Arc::new(started);
        let mut all = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_REMEMBERED {
            all.pop_first();
        }
        all.insert(started.run.id, Arc::clone(&started));
        started
    }

    fn started(&self, id: &str) -> Result<Arc<Started>, OfferError> {
        let absent = || OfferError::NotFound(format!("no run `{id:.64}` was started here"));
        let id: RunId = id.parse().map_err(|_: InvalidId| absent())?;
        let all = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&id).cloned().ok_or_else(absent)
    }

    async fn start(&self, file: usize, input: Value) -> Result<Arc<Started>, OfferError> {
        let room = Arc::clone(&self.room).try_acquire_owned();
        let busy =
            || OfferError::Conflict(format!("{MAX_RUNS} runs go on here, which is the limit: wait for one"));
        let (accepted, answer) = oneshot::channel();
        let order = Order { file, input, accepted, _room: room.map_err(|_| busy())? };
        let stopping = || OfferError::Unavailable("this program is about to end".to_owned());
        self.orders.try_send(order).map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?.map_err(mcp::refused)
    }

    async fn call_file(&self, file: usize, call: OfferedCall) -> Result<Called, OfferError> {
        let started = self.start(file, call.arguments).await?;
        let limit = if call.may_be_task { SHORT_WAIT } else { LONG_WAIT };
        Ok(match started.wait(limit).await {
            Some(ended) => Called::Ended(mcp::result_of(&ended)),
            None if call.may_be_task => Called::Task(task_of(&self.now(&started).await)),
            None => Called::Ended(OfferedResult::of(mcp::going_on(&self.now(&started).await))),
        })
    }

    async fn cancel(&self, started: &Started) -> Run {
        started.cancel.cancel();
        match started.wait(SHORT_WAIT).await {
            Some(ended) => ended,
            None => self.now(started).await,
        }
    }

    /// The run as it stands.
    async fn now(&self, started: &Started) -> Run {
        let ended = started.ended.borrow().clone();
        if let Some(ended) = ended {
            return ended;
        }
        let found = match self.files.get(started.file) {
            Some(runs) => runs.find(started.run.id).await,
            None => None,
        };
        found.unwrap_or_else(|| (*started.run).clone())
    }
}

#[async_trait]
impl McpOffer for LocalDesk<'_> {
    type Caller = ();

    fn instructions(&self) -> Option<String> {
        Some(
            "Each tool runs a pipeline durably in this program; get_run tells of one that takes long."
                .to_owned(),
        )
    }

    async fn list_tools(&self, (): &(), _cursor: Option<&str>) -> Result<OfferedToolPage, OfferError> {
        let tools = self.tools.iter().map(|tool| tool.offered.clone()).collect();
        Ok(OfferedToolPage { tools, next_cursor: None })
    }

    async fn call_tool(&self, (): &(), call: OfferedCall) -> Result<Called, OfferError> {
        let tool = self.tools.iter().find(|tool| tool.offered.name == call.tool);
        let tool = tool.ok_or_else(|| OfferError::NotFound(format!("Unknown tool: {:.64}", call.tool)))?;
        tool.check(&call.arguments)?;
        let named = || self.started(call.arguments["run_id"].as_str().unwrap_or_default());
        let found = match tool.action {
            LocalAction::Run(file) => return self.call_file(file, call).await,
            LocalAction::GetRun | LocalAction::CancelRun => named(),
        };
        Ok(Called::Ended(match found {
            Ok(started) if tool.action == LocalAction::CancelRun => {
                OfferedResult::of(mcp::shown(&self.cancel(&started).await))
            }
            Ok(started) => OfferedResult::of(mcp::shown(&self.now(&started).await)),
            // The tool is there; what its arguments name is not.
            Err(absent) => OfferedResult::failed(absent.to_string()),
        }))
    }

    async fn find_task(&self, (): &(), task: &str) -> Result<OfferedTask, OfferError> {
        let started = self.started(task)?;
        Ok(task_of(&self.now(&started).await))
    }

    async fn wait_for_task(&self, (): &(), task: &str) -> Result<OfferedTask, OfferError> {
        let started = self.started(task)?;
        started.wait(LONG_WAIT).await;
        Ok(task_of(&self.now(&started).await))
    }

    async fn cancel_task(&self, (): &(), task: &str) -> Result<OfferedTask, OfferError> {
        let started = self.started(task)?;
        Ok(task_of(&self.cancel(&started).await))
    }

    async fn answer_task(&self, (): &(), task: &str, _: Vec<TaskAnswer>) -> Result<OfferedTask, OfferError> {
        self.started(task)?;
        Err(OfferError::Conflict("a run that no server drives asks nobody".to_owned()))
    }

    fn resource_templates(&self) -> Vec<ResourceTemplate> {
        vec![mcp::OUTPUT_TEMPLATE]
    }

    async fn read_resource(&self, (): &(), uri: &str) -> Result<ResourceContent, OfferError> {
        let absent = || OfferError::NotFound("no such resource".to_owned());
        let started = self.started(mcp::run_of_output(uri).ok_or_else(absent)?)?;
        mcp::output_of(self.now(&started).await)
    }
}

fn task_of(run: &Run) -> OfferedTask {
    let state = match run.state {
        RunState::Cancelled => TaskState::Cancelled,
        state if state.is_terminal() => TaskState::Ended(mcp::result_of(run)),
        _ => TaskState::Working,
    };
    mcp::task(run, state)
}
