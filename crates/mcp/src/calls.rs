//! The requests in flight on one connection.
//!
//! Invariant: each request that is registered gets at most one outcome, and one that ends otherwise (its future is
//! dropped) leaves nothing behind. What comes for it later is dropped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::oneshot;

use crate::McpError;
use crate::error::ServerEnd;
use crate::message::RpcError;
use crate::tool_call::ToolCall;

/// A result, and how many bytes it came in.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) result: Value,
    pub(crate) size_bytes: usize,
}

/// How a request ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Answered(Answer),
    Refused(RpcError),
    /// Its answer was longer than a message may be.
    TooLong,
    /// Its answer was no JSON.
    Garbled,
    /// The server ended first.
    Ended(ServerEnd),
}

/// The requests in flight.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    state: Mutex<State>,
    /// Never used twice: a late answer must not meet another request.
    next_id: AtomicU64,
    /// Messages that answered nothing: unknown ids, lines that are no JSON.
    strays: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    waiting: HashMap<u64, Waiting>,
    end: Option<ServerEnd>,
}

#[derive(Debug)]
struct Waiting {
    call: Option<Arc<ToolCall>>,
    outcome: oneshot::Sender<Outcome>,
}

impl Calls {
    /// Registers a request, with the call that it makes, if it makes one.
    ///
    /// # Errors
    /// [`McpError::Ended`] if the connection has ended.
    pub(crate) fn register(
        &self,
        call: Option<Arc<ToolCall>>,
    ) -> Result<(u64, oneshot::Receiver<Outcome>), McpError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed) + 1;
        let (outcome, receiver) = oneshot::channel();
        let mut state = self.lock();
        if let Some(end) = &state.end {
            return Err(McpError::Ended { end: end.clone(), sent: false });
        }
        state.waiting.insert(id, Waiting { call, outcome });
        Ok((id, receiver))
    }

    /// Gives its outcome to the request; drops it quietly if the request is over.
    pub(crate) fn end(&self, id: u64, outcome: Outcome) {
        match self.lock().waiting.remove(&id) {
            // An error means that the caller went away at this moment.
            Some(waiting) => drop(waiting.outcome.send(outcome)),
            None => self.note_stray(),
        }
    }

    /// Forgets a request whose caller went away. Whether it was still in flight.
    pub(crate) fn forget(&self, id: u64) -> bool {
        self.lock().waiting.remove(&id).is_some()
    }

    /// The call that the request with this id makes, while it is in flight.
    pub(crate) fn call_of(&self, id: u64) -> Option<Arc<ToolCall>> {
        self.lock().waiting.get(&id)?.call.clone()
    }

    /// The only call of a tool in flight, if there is exactly one.
    pub(crate) fn only_call(&self) -> Option<Arc<ToolCall>> {
        let state = self.lock();
        let mut calls = state.waiting.values().filter_map(|waiting| waiting.call.as_ref());
        calls.next().filter(|_| calls.next().is_none()).cloned()
    }

    /// The only request in flight, if there is exactly one.
    pub(crate) fn only(&self) -> Option<u64> {
        let state = self.lock();
        let mut ids = state.waiting.keys();
        ids.next().copied().filter(|_| ids.next().is_none())
    }

    /// Ends every request, and all that come later.
    pub(crate) fn end_all(&self, end: &ServerEnd) {
        let mut state = self.lock();
        state.end = Some(end.clone());
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for (_, waiting) in waiting {
            let _ = waiting.outcome.send(Outcome::Ended(end.clone()));
        }
    }

    pub(crate) fn note_stray(&self) {
        self.strays.fetch_add(1, Ordering::Relaxed);
    }

    /// How many messages answered nothing.
    pub(crate) fn n_strays(&self) -> u64 {
        self.strays.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outcome {
    /// # Errors
    /// What the outcome says. `limit_bytes` is the longest message.
    pub(crate) fn into_answer(self, limit_bytes: usize) -> Result<Answer, McpError> {
        match self {
            Outcome::Answered(answer) => Ok(answer),
            Outcome::Refused(error) => Err(error.into()),
            Outcome::TooLong => Err(McpError::TooLarge { limit_bytes }),
            Outcome::Garbled => Err(McpError::InvalidAnswer { reason: "it is not JSON".to_owned() }),
            Outcome::Ended(end) => Err(McpError::Ended { end, sent: true }),
        }
    }
}
