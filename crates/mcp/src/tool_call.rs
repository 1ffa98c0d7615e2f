//! A call of a tool while it is in flight: what the links and the peer know of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use gathering_tools::{ToolAnswer, ToolNotice, ToolNotices, ToolQuestion, ToolQuestions};
use serde_json::Value;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::notices::McpNoticeKind;

/// While a person is asked, the clock of the call is read as often as this at most.
const CLOCK_STEP: Duration = Duration::from_millis(100);

/// A call in flight.
#[derive(Debug)]
pub(crate) struct ToolCall {
    /// The server's name for the tool.
    pub(crate) tool: String,
    /// The headers that repeat marked parameters: names and values. Only HTTP since 2026-07-28 sends them.
    pub(crate) headers: Vec<(String, String)>,
    notices: Option<ToolNotices>,
    questions: Option<ToolQuestions>,
    asked: Mutex<Asked>,
    ended: CancellationToken,
}

/// What the call has asked people.
#[derive(Debug, Default)]
struct Asked {
    /// The open questions that can be withdrawn, by the ids of the server's requests as JSON.
    open: HashMap<String, CancellationToken>,
    n_open: usize,
    /// Since when one or more are open.
    since: Option<Instant>,
    /// How long questions were open before that.
    before: Duration,
}

impl ToolCall {
    pub(crate) fn new(
        tool: &str,
        headers: Vec<(String, String)>,
        notices: Option<ToolNotices>,
        questions: Option<ToolQuestions>,
    ) -> Self {
        let (asked, ended) = (Mutex::default(), CancellationToken::new());
        Self { tool: tool.to_owned(), headers, notices, questions, asked, ended }
    }

    /// Tells the listener of this call, if it has one.
    pub(crate) fn tell(&self, kind: &McpNoticeKind) {
        let (Some(notices), Some(notice)) = (&self.notices, notice_of(kind)) else { return };
        notices.tell(notice);
    }

    /// Whether somebody listens to it.
    pub(crate) const fn is_heard(&self) -> bool {
        self.notices.is_some()
    }

    /// Who answers its questions, if it has a respondent of its own.
    pub(crate) fn questions(&self) -> Option<&ToolQuestions> {
        self.questions.as_ref()
    }

    /// Asks a person. The call's time stands still meanwhile. The question is withdrawn when the call ends, or by
    /// [`ToolCall::withdraw`] with the id of the server's request.
    pub(crate) async fn ask(
        &self,
        questions: &ToolQuestions,
        id: Option<&Value>,
        question: ToolQuestion,
    ) -> ToolAnswer {
        let withdrawn = CancellationToken::new();
        let _open = self.open(id.map(Value::to_string), withdrawn.clone());
        tokio::select! {
            answer = questions.ask(question) => answer,
            () = self.ended.cancelled() => ToolAnswer::Cancelled,
            () = withdrawn.cancelled() => ToolAnswer::Cancelled,
        }
    }

    /// The server no longer wants the answer to this request.
    pub(crate) fn withdraw(&self, id: &Value) {
        if let Some(withdrawn) = self.lock().open.get(&id.to_string()) {
            withdrawn.cancel();
        }
    }

    /// Waits for `work`, for at most `limit` without the time in which a person is asked; `None` if it takes longer.
    pub(crate) async fn within<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        let began = Instant::now();
        let mut work = std::pin::pin!(work);
        let mut look = began + limit;
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                () = sleep_until(look) => {}
            }
            let now = Instant::now();
            let end = began + limit + self.time_asked(now);
            if end <= now {
                return None;
            }
            look = end.max(now + CLOCK_STEP);
        }
    }

    /// The questions of the call end with this guard.
    pub(crate) fn ends_with(&self) -> impl Drop + use<> {
        self.ended.clone().drop_guard()
    }

    fn time_asked(&self, now: Instant) -> Duration {
        let asked = self.lock();
        asked.before + asked.since.map(|since| now - since).unwrap_or_default()
    }

    fn open(&self, id: Option<String>, withdrawn: CancellationToken) -> OpenQuestion<'_> {
        let mut asked = self.lock();
        asked.n_open += 1;
        asked.since.get_or_insert_with(Instant::now);
        if let Some(id) = id.clone() {
            asked.open.insert(id, withdrawn);
        }
        OpenQuestion { call: self, id }
    }

    /// Nothing that panics happens under the lock.
    fn lock(&self) -> std::sync::MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question that a person is asked, until it is dropped.
struct OpenQuestion<'a> {
    call: &'a ToolCall,
    id: Option<String>,
}

impl Drop for OpenQuestion<'_> {
    fn drop(&mut self) {
        let mut asked = self.call.lock();
        if let Some(id) = &self.id {
            asked.open.remove(id);
        }
        asked.n_open -= 1;
        if asked.n_open == 0
            && let Some(since) = asked.since.take()
        {
            asked.before += since.elapsed();
        }
    }
}

/// The calls in flight on a link that does not say which call a message belongs to.
#[derive(Debug, Default)]
pub(crate) struct CallsInFlight(Mutex<Vec<Weak<ToolCall>>>);

impl CallsInFlight {
    /// Adds a call; it leaves when nobody holds it any more.
    pub(crate) fn add(&self, call: &Arc<ToolCall>) {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        calls.retain(|call| call.strong_count() > 0);
        // A call that asks in rounds is sent more than once.
        if !calls.iter().any(|other| other.as_ptr() == Arc::as_ptr(call)) {
            calls.push(Arc::downgrade(call));
        }
    }

    /// The only call in flight, if there is exactly one.
    pub(crate) fn only(&self) -> Option<Arc<ToolCall>> {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut calls = calls.iter().filter_map(Weak::upgrade);
        calls.next().filter(|_| calls.next().is_none())
    }
}

/// What concerns a call.
fn notice_of(kind: &McpNoticeKind) -> Option<ToolNotice> {
    match kind.clone() {
        McpNoticeKind::Progress { progress, total, message, .. } => {
            Some(ToolNotice::Progress { progress, total, message })
        }
        McpNoticeKind::Log { level, text } => Some(ToolNotice::Log { level, text }),
        McpNoticeKind::ToolsChanged | McpNoticeKind::Connected | McpNoticeKind::Down { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use futures::FutureExt as _;
    use gathering_tools::{QuestionRequest, ToolRespondent};
    use serde_json::json;
    use tokio::time::sleep;

    use super::*;

    /// A person who answers after ten minutes.
    struct Slow;

    #[async_trait]
    impl ToolRespondent for Slow {
        async fn answer(&self, _: ToolQuestion) -> ToolAnswer {
            sleep(Duration::from_secs(600)).await;
            ToolAnswer::Declined
        }
    }

    fn call() -> ToolCall {
        ToolCall::new("dig", Vec::new(), None, Some(ToolQuestions::to(Slow)))
    }

    async fn ask(call: &ToolCall, id: Value) -> ToolAnswer {
        let request = QuestionRequest::Visit("https://example.org/".to_owned());
        let question = ToolQuestion { asked_by: "mine".to_owned(), message: "Here?".to_owned(), request };
        call.ask(call.questions().unwrap(), Some(&id), question).await
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_in_which_a_person_is_asked_is_not_that_of_the_call() {
        let call = call();
        let work = async {
            sleep(Duration::from_secs(20)).await;
            // Two at once count once.
            tokio::join!(ask(&call, json!(1)), ask(&call, json!(2)));
            sleep(Duration::from_secs(20)).await;
        };
        assert_eq!(call.within(Duration::from_secs(60), work).await, Some(()));
        let began = Instant::now();
        let work = async {
            ask(&call, json!(3)).await;
            sleep(Duration::from_secs(600)).await;
        };
        // What was asked before belongs to another measure, which began earlier.
        assert_eq!(self::call().within(Duration::from_secs(60), work).await, None);
        assert_eq!(began.elapsed(), Duration::from_secs(60));
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_ends_with_its_call_and_when_it_is_withdrawn() {
        let call = call();
        let (one, other) = (ask(&call, json!(0)), ask(&call, json!("0")));
        let (mut one, mut other) = (std::pin::pin!(one), std::pin::pin!(other));
        assert!(one.as_mut().now_or_never().is_none() && other.as_mut().now_or_never().is_none());
        call.withdraw(&json!(7));
        call.withdraw(&json!(0));
        assert_eq!(one.now_or_never(), Some(ToolAnswer::Cancelled));
        assert!(other.as_mut().now_or_never().is_none());
        drop(call.ends_with());
        assert_eq!(other.now_or_never(), Some(ToolAnswer::Cancelled));
    }

    #[test]
    fn of_several_calls_none_is_the_only_one() {
        let calls = CallsInFlight::default();
        let (one, other) = (Arc::new(call()), Arc::new(call()));
        calls.add(&one);
        calls.add(&one);
        assert!(calls.only().is_some_and(|only| Arc::ptr_eq(&only, &one)));
        calls.add(&other);
        assert!(calls.only().is_none());
        drop(one);
        assert!(calls.only().is_some_and(|only| Arc::ptr_eq(&only, &other)));
    }
}
