//! What tools tell while they work, for those who follow the run in this process.
//!
//! Nobody needs a notice to replay a run, so none is recorded. Invariant: a tool that tells more than anybody reads costs
//! bounded memory and time. What is left out is counted, and the next notice says how many were.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gathering_dag_engine::{Attempt, Redaction as _};
use gathering_domain::{NodeId, RunId};
use gathering_tools::{ToolListener, ToolNotice, ToolNotices};
use serde_json::json;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Duration, Instant};

use crate::secrets::{AttemptSecrets, KnownSecrets};

/// The most notices of one call; what comes later is left out.
const MAX_OF_CALL: u32 = 1_000;

/// How many notices of a run may come at once.
const BURST: u32 = 50;

/// The least time between two notices of a run in the long term: 20 a second.
const INTERVAL: Duration = Duration::from_millis(50);

/// Notices that wait for a follower. The oldest are dropped for one that reads slowly.
const MAX_WAITING: usize = 64;

/// The most bytes of a text.
const MAX_TEXT: usize = 4 * 1024;

/// The most bytes of a level.
const MAX_LEVEL: usize = 16;

/// The runs that are followed in this process: those that have a [`FollowedNotices`]. Cloning is cheap and shares them.
#[derive(Debug, Clone, Default)]
pub struct RunNotices(Arc<Mutex<HashMap<RunId, Followed>>>);

/// A notice of a tool, without the values of secrets.
#[derive(Debug, Clone, PartialEq)]
pub struct RunNotice {
    /// The node that made the call.
    pub node: NodeId,
    /// Which attempt of it.
    pub attempt: i32,
    /// The tool, by its name here.
    pub tool: String,
    /// What it tells. Texts have at most 4 KiB.
    pub notice: ToolNotice,
    /// How many notices of the run the follower missed before this one, because they came too fast.
    pub n_left_out: u64,
}

/// Hears what the tools of one run tell, until it is dropped.
#[derive(Debug)]
pub struct FollowedNotices {
    run: RunId,
    notices: broadcast::Receiver<(u64, RunNotice)>,
    /// The number of the last notice that it heard.
    heard: u64,
    all: RunNotices,
}

#[derive(Debug)]
struct Followed {
    sender: broadcast::Sender<(u64, RunNotice)>,
    /// When a run that told nothing since would have its whole burst again.
    full_at: Instant,
    /// How many there were, those that were left out included: the number of the last one.
    n_all: u64,
}

/// Who makes a call, and the secrets of its project.
struct Call {
    all: RunNotices,
    run: RunId,
    node: NodeId,
    attempt: i32,
    tool: String,
    secrets: Arc<KnownSecrets>,
    n_told: AtomicU32,
}

impl RunNotices {
    /// Follows what the tools of a run tell from now on, if this process drives it.
    pub fn follow(&self, run: RunId) -> FollowedNotices {
        let mut all = self.lock();
        let followed = all.entry(run).or_insert_with(Followed::new);
        let (notices, heard) = (followed.sender.subscribe(), followed.n_all);
        FollowedNotices { run, notices, heard, all: self.clone() }
    }

    /// Where a call of `tool` by this attempt tells what it does.
    pub(crate) fn of_call(&self, attempt: &Attempt, tool: &str, secrets: &AttemptSecrets) -> ToolNotices {
        ToolNotices::to(Call {
            all: self.clone(),
            run: attempt.run,
            node: attempt.node.clone(),
            attempt: attempt.attempt,
            tool: tool.to_owned(),
            secrets: secrets.known(),
            n_told: AtomicU32::new(0),
        })
    }

    /// Whether the next notice may be told: somebody follows the run, and it does not come too fast.
    fn admit(&self, run: RunId) -> bool {
        self.lock().get_mut(&run).is_some_and(Followed::admit)
    }

    fn tell(&self, run: RunId, notice: RunNotice) {
        if let Some(followed) = self.lock().get_mut(&run) {
            followed.n_all += 1;
            // An error means that the last follower has just left.
            let _ = followed.sender.send((followed.n_all, notice));
        }
    }

    /// Nothing that panics happens under the lock.
    fn lock(&self) -> MutexGuard<'_, HashMap<RunId, Followed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FollowedNotices {
    /// The next notice. Cancel: safe.
    pub async fn next(&mut self) -> RunNotice {
        loop {
            match self.notices.recv().await {
                Ok(notice) => return self.heard(notice),
                Err(RecvError::Lagged(_)) => {}
                // Not while this is a receiver: its sender stays until the last one has left.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    /// The next notice, if there is one by now.
    pub fn try_next(&mut self) -> Option<RunNotice> {
        loop {
            match self.notices.try_recv() {
                Ok(notice) => return Some(self.heard(notice)),
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            }
        }
    }

    fn heard(&mut self, (number, mut notice): (u64, RunNotice)) -> RunNotice {
        notice.n_left_out = number - self.heard - 1;
        self.heard = number;
        notice
    }
}

impl Drop for FollowedNotices {
    fn drop(&mut self) {
        let mut followed = self.all.lock();
        // The last receiver is this one.
        if followed.get(&self.run).is_some_and(|followed| followed.sender.receiver_count() <= 1) {
            followed.remove(&self.run);
        }
    }
}

impl Followed {
    fn new() -> Self {
        Self { sender: broadcast::Sender::new(MAX_WAITING), full_at: Instant::now(), n_all: 0 }
    }

    fn admit(&mut self) -> bool {
        let now = Instant::now();
        let full_at = self.full_at.max(now) + INTERVAL;
        let is_admitted = full_at.duration_since(now) <= INTERVAL * BURST;
        if is_admitted {
            self.full_at = full_at;
        } else {
            self.n_all += 1;
        }
        is_admitted
    }
}

impl ToolListener for Call {
    fn told(&self, mut notice: ToolNotice) {
        if self.n_told.load(Ordering::Relaxed) >= MAX_OF_CALL {
            return;
        }
        if !self.all.admit(self.run) {
            return;
        }
        self.n_told.fetch_add(1, Ordering::Relaxed);
        // The values of secrets first: a part of one that was cut would not be found.
        if !redact(&mut notice, &self.secrets) {
            return;
        }
        let (node, attempt, tool) = (self.node.clone(), self.attempt, self.tool.clone());
        self.all.tell(self.run, RunNotice { node, attempt, tool, notice, n_left_out: 0 });
    }
}

/// Takes the values of secrets out of the texts, and then cuts these. Whether it may be told: no number is a secret.
fn redact(notice: &mut ToolNotice, secrets: &KnownSecrets) -> bool {
    let tidy = |text: &mut String, limit: usize| {
        secrets.redact_text(text);
        if text.len() > limit {
            text.truncate(text.floor_char_boundary(limit));
            text.push('…');
        }
    };
    match notice {
        ToolNotice::Progress { progress, total, message } => {
            message.iter_mut().for_each(|text| tidy(text, MAX_TEXT));
            let mut numbers = json!([*progress, *total]);
            let before = numbers.clone();
            secrets.redact(&mut numbers);
            numbers == before
        }
        ToolNotice::Log { level, text } => {
            tidy(level, MAX_LEVEL);
            tidy(text, MAX_TEXT);
            true
        }
        ToolNotice::Question { message, .. } => {
            tidy(message, MAX_TEXT);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use gathering_domain::Secret;

    use super::*;

    fn call(all: &RunNotices, run: RunId) -> ToolNotices {
        let secret = |name: &str, value: &str| (name.parse().unwrap(), Ok(Secret::from(value.to_owned())));
        let secrets = [secret("WORD", "open sesame"), secret("PIN", "424242")];
        ToolNotices::to(Call {
            all: all.clone(),
            run,
            node: "dig".parse().unwrap(),
            attempt: 1,
            tool: "mine__dig".to_owned(),
            secrets: Arc::new(KnownSecrets::new(secrets.into())),
            n_told: AtomicU32::new(0),
        })
    }

    fn log(text: impl Into<String>) -> ToolNotice {
        ToolNotice::Log { level: "info".to_owned(), text: text.into() }
    }

    fn progress(progress: f64) -> ToolNotice {
        ToolNotice::Progress { progress, total: None, message: Some("says open sesame".to_owned()) }
    }

    fn texts(followed: &mut FollowedNotices) -> Vec<(String, u64)> {
        std::iter::from_fn(|| followed.try_next())
            .map(|notice| match notice.notice {
                ToolNotice::Log { text, .. } => (text, notice.n_left_out),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn followers_of_the_run_alone_hear_of_it_and_nothing_is_kept_for_nobody() {
        let all = RunNotices::default();
        let (run, other) = (RunId::new(), RunId::new());
        call(&all, run).tell(log("unheard"));
        let (mut first, mut second, mut third) = (all.follow(run), all.follow(run), all.follow(other));
        call(&all, run).tell(log("heard"));
        assert_eq!(first.next().now_or_never().unwrap().tool, "mine__dig");
        drop(first);
        assert_eq!(texts(&mut second), [("heard".to_owned(), 0)]);
        assert!(third.next().now_or_never().is_none());
        drop((second, third));
        assert!(all.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_thinned_out_and_the_next_notice_says_how_many_are_missing() {
        let all = RunNotices::default();
        let run = RunId::new();
        let mut followed = all.follow(run);
        let call = call(&all, run);
        (0..1_000).for_each(|n| call.tell(log(n.to_string())));
        let first = texts(&mut followed);
        assert_eq!((first.len(), first[49].clone()), (50, ("49".to_owned(), 0)));
        tokio::time::advance(INTERVAL * 2).await;
        (0..3).for_each(|n| call.tell(log(n.to_string())));
        assert_eq!(texts(&mut followed), [("0".to_owned(), 950), ("1".to_owned(), 0)]);
        // One who does not read misses the oldest.
        for n in 0..100 {
            tokio::time::advance(INTERVAL).await;
            call.tell(log(n.to_string()));
        }
        let late = texts(&mut followed);
        assert_eq!((late.len(), late[0].clone()), (64, ("36".to_owned(), 37)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_tells_a_bounded_number_of_notices() {
        let all = RunNotices::default();
        let run = RunId::new();
        let mut followed = all.follow(run);
        let mut heard = 0;
        let one = call(&all, run);
        for _ in 0..MAX_OF_CALL + 5 {
            tokio::time::advance(INTERVAL).await;
            one.tell(log("again"));
            heard += texts(&mut followed).len();
        }
        assert_eq!(heard, 1_000);
        call(&all, run).tell(log("another call"));
        assert_eq!(texts(&mut followed), [("another call".to_owned(), 0)]);
    }

    #[tokio::test(start_paused = true)]
    async fn values_of_secrets_are_taken_out_before_a_text_is_cut() {
        let all = RunNotices::default();
        let run = RunId::new();
        let mut followed = all.follow(run);
        let call = call(&all, run);
        call.tell(log(format!("{}open sesame", "é".repeat(MAX_TEXT / 2 - 3))));
        let (text, _) = texts(&mut followed).remove(0);
        assert!(text.ends_with("é[secre…") && !text.contains("open"), "{}", &text[text.len() - 30..]);
        call.tell(progress(424_242.0));
        call.tell(progress(7.0));
        let notice = followed.next().now_or_never().unwrap().notice;
        let message = Some("says [secret WORD]".to_owned());
        assert_eq!(notice, ToolNotice::Progress { progress: 7.0, total: None, message });
    }
}
