//! Follows one run: when to poll it, and what to send.

use std::collections::VecDeque;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web;
use actix_web::web::Bytes;
use gathering_auth::Origin;
use gathering_control::{ControlError, Run, right};
use gathering_dag_engine::{JournalEntry, Seq};
use gathering_domain::{ExposeSecret, Secret};
use gathering_nodes::{FollowedNotices, RunNotice};
use gathering_persistence::{Following, JournalPage, Wake};
use tokio::sync::watch;
use tokio::time::Instant;

use super::event::RunEventView;
use super::{Sources, Streams};
use gathering_edge::limits::Slot;
use gathering_edge::problem::ProblemDetails;

/// How many entries are read, and held, at a time.
const PAGE: usize = 50;

/// How many bytes of large payloads are read, and held, at a time; one entry may have more.
const PAGE_BYTES: i64 = 1024 * 1024;

/// About how many bytes are sent at a time.
const PIECE: usize = 64 * 1024;

/// The pause before the journal is polled again after a new entry; it doubles with each poll that finds nothing.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause between two polls of the journal.
const LAST_PAUSE: Duration = Duration::from_millis(500);

/// The pause while this instance writes the journal and sends wake-ups: another one may take the run over.
const TOLD_PAUSE: Duration = Duration::from_secs(2);

/// A run may write many times in a moment: polls after a wake-up are at least this far apart.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// The caller's access is checked at most this long before anything is sent. While nothing is sent, each comment checks
/// it.
const ACCESS_INTERVAL: Duration = Duration::from_secs(1);

/// When the run itself is polled although no wake-up says that one has ended: wake-ups may be lost.
const RUN_INTERVAL: Duration = Duration::from_secs(2);

/// Other runs end, too: polls after such a wake-up are at least this far apart, unless an entry just arrived.
const WORD_INTERVAL: Duration = Duration::from_millis(250);

/// How often a comment is sent, so that no proxy closes an idle connection. The access is checked as often.
const COMMENT_INTERVAL: Duration = Duration::from_secs(15);

/// The first bytes of every stream: a client that is cut off shall reconnect after a second.
const GREETING: &str = "retry: 1000\n\n";

/// The periodic comment.
const COMMENT: &str = ":\n\n";

/// A stream of one run's events.
pub(super) struct Follow {
    sources: web::Data<Sources>,
    /// The run, as last read.
    run: Run,
    /// The last entry that was read.
    after: Seq,
    unsent: VecDeque<JournalEntry>,
    /// What the tools of the run tell, if this instance drives it.
    notices: FollowedNotices,
    /// What they told that was not sent.
    told: Vec<RunNotice>,
    stage: Stage,
    /// Changes when a run has ended somewhere.
    ends: watch::Receiver<u64>,
    /// Changes when this instance has written more.
    following: Following,
    /// Whether it has since the last poll.
    is_told: bool,
    pause: Duration,
    /// When the last entry arrived.
    came: Instant,
    journal_seen: Instant,
    journal_due: Instant,
    run_seen: Instant,
    run_due: Instant,
    comment_due: Instant,
    /// When the caller's access was last confirmed.
    access_seen: Instant,
    /// The caller's credential.
    token: Secret,
    origin: Origin,
    _slot: Slot,
}

/// The progress of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Greeting,
    Following,
    /// The run has ended, and its journal was read to the end since.
    Read,
    /// Everything was sent.
    Done,
}

/// Why a stream stops waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// It is time to poll.
    Look,
    /// A tool told something.
    Told,
    /// It is time to send a comment.
    Comment,
    /// The instance stops.
    Drained,
}

impl Follow {
    /// Follows `run` from after the entry `after`, for a caller who may read it and sent `token`.
    pub(super) fn new(
        sources: web::Data<Sources>,
        streams: &Streams,
        run: Run,
        after: Seq,
        (token, origin): (Secret, Origin),
        slot: Slot,
    ) -> Self {
        let now = Instant::now();
        // Before the first poll, so that no end is missed.
        let (ends, following) = (streams.wakes.subscribe(Wake::Events), streams.wakes.follow(run.id));
        let notices = streams.notices.follow(run.id);
        Self {
            sources,
            run,
            after,
            unsent: VecDeque::new(),
            notices,
            told: Vec::new(),
            stage: Stage::Greeting,
            ends,
            following,
            is_told: false,
            pause: FIRST_PAUSE,
            came: now,
            journal_seen: now,
            journal_due: now,
            run_seen: now,
            run_due: now,
            comment_due: now + COMMENT_INTERVAL,
            access_seen: now,
            token,
            origin,
            _slot: slot,
        }
    }

    /// Waits for the next bytes; `None` at the end. Cancel: safe.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.sources.readiness.is_draining() {
                return None;
            }
            if Instant::now() >= self.comment_due {
                return self.comment().await;
            }
            if self.has_something() && !self.may_show().await? {
                continue;
            }
            match self.stage {
                Stage::Greeting => {
                    self.stage = Stage::Following;
                    return Some(Bytes::from_static(GREETING.as_bytes()));
                }
                _ if !self.unsent.is_empty() || !self.told.is_empty() => return Some(self.piece()),
                Stage::Following => match self.wait().await {
                    Due::Look => self.look().await.map_err(broken_off).ok()?,
                    Due::Told | Due::Comment | Due::Drained => {}
                },
                Stage::Read => {
                    self.stage = Stage::Done;
                    return Some(last_event(&self.run));
                }
                Stage::Done => return None,
            }
        }
    }

    async fn wait(&mut self) -> Due {
        loop {
            let look_due = self.journal_due.min(self.run_due);
            tokio::select! {
                biased;
                () = self.sources.readiness.drained() => return Due::Drained,
                () = tokio::time::sleep_until(self.comment_due) => return Due::Comment,
                notice = self.notices.next() => {
                    self.told.push(notice);
                    return Due::Told;
                }
                () = tokio::time::sleep_until(look_due) => return Due::Look,
                () = self.following.appended() => {
                    self.is_told = true;
                    self.journal_due = self.journal_due.min(self.journal_seen + LOOK_INTERVAL);
                }
                Ok(()) = self.ends.changed() => {
                    let just_came = self.came.elapsed() < WORD_INTERVAL;
                    let apart = if just_came { FIRST_PAUSE } else { WORD_INTERVAL };
                    self.run_due = self.run_due.min(self.run_seen + apart);
                }
            }
        }
    }

    /// Polls the run and its journal, whichever is due. While the database is unavailable, it polls again later.
    async fn look(&mut self) -> Result<(), ProblemDetails> {
        match self.try_look().await {
            Err(ControlError::Unavailable(_) | ControlError::TimedOut(_)) => {
                let later = Instant::now() + LAST_PAUSE;
                (self.journal_due, self.run_due) = (later, later);
                Ok(())
            }
            looked => Ok(looked?),
        }
    }

    async fn try_look(&mut self) -> Result<(), ControlError> {
        let now = Instant::now();
        // The run first: its last entries are written with its end, so a journal that is read after the end is
        // complete.
        if now >= self.run_due && !self.run.state.is_terminal() {
            self.run = self.sources.runs.find(self.run.id).await?.ok_or(ControlError::NotFound)?;
            (self.run_seen, self.run_due) = (now, now + RUN_INTERVAL);
        }
        let has_ended = self.run.state.is_terminal();
        if has_ended || now >= self.journal_due {
            let page = self.sources.runs.load_journal_page(self.run.id, self.after, PAGE, PAGE_BYTES);
            self.take(page.await?, has_ended);
        }
        Ok(())
    }

    fn take(&mut self, page: JournalPage, has_ended: bool) {
        let JournalPage { entries, has_more } = page;
        let is_told = std::mem::take(&mut self.is_told);
        self.pause = match entries.is_empty() {
            false if is_told => TOLD_PAUSE,
            false => FIRST_PAUSE,
            true if self.pause == TOLD_PAUSE => TOLD_PAUSE,
            true => (self.pause * 2).min(LAST_PAUSE),
        };
        self.journal_seen = Instant::now();
        if !entries.is_empty() {
            self.came = self.journal_seen;
        }
        self.journal_due = self.journal_seen + if has_more { Duration::ZERO } else { self.pause };
        if let Some(last) = entries.last() {
            self.after = last.seq;
        }
        self.unsent.extend(entries);
        if has_ended && !has_more {
            self.stage = Stage::Read;
        }
    }

    /// The next part of the pending bytes.
    fn piece(&mut self) -> Bytes {
        let mut text = String::new();
        // What was told before an entry was read came before it.
        let waiting = std::iter::from_fn(|| self.notices.try_next());
        for notice in self.told.drain(..).chain(waiting) {
            RunEventView::of_notice(notice).write_to(&mut text);
        }
        while text.len() < PIECE
            && let Some(entry) = self.unsent.pop_front()
        {
            RunEventView::of_entry(entry).write_to(&mut text);
        }
        text.into()
    }

    /// A comment, if the caller may still see the run, or if that is unknown: it shows nothing of the run.
    async fn comment(&mut self) -> Option<Bytes> {
        self.comment_due = Instant::now() + COMMENT_INTERVAL;
        self.has_access().await?;
        Some(Bytes::from_static(COMMENT.as_bytes()))
    }

    /// Whether anything of the run is ready to send.
    fn has_something(&self) -> bool {
        !self.unsent.is_empty() || !self.told.is_empty() || self.stage == Stage::Read
    }

    /// Whether it may be sent now: only if the caller's access was confirmed a moment ago. `None` if they have lost it.
    async fn may_show(&mut self) -> Option<bool> {
        if self.access_seen.elapsed() < ACCESS_INTERVAL || self.has_access().await? {
            return Some(true);
        }
        // The database is unavailable; poll again.
        tokio::select! {
            () = self.sources.readiness.drained() => {}
            () = tokio::time::sleep(LAST_PAUSE) => {}
        }
        Some(false)
    }

    /// Whether the caller may see the run, or that is unknown; `None` if they may not.
    async fn has_access(&mut self) -> Option<bool> {
        match self.check_access().await {
            Ok(()) => {
                self.access_seen = Instant::now();
                Some(true)
            }
            Err(problem) if problem.status() == StatusCode::SERVICE_UNAVAILABLE => Some(false),
            Err(_) => {
                tracing::debug!(run.id = %self.run.id, "a stream of run {} ends: its caller has lost access", self.run.id);
                None
            }
        }
    }

    async fn check_access(&self) -> Result<(), ProblemDetails> {
        let caller = self.sources.auth.authenticate(self.token.expose_secret(), self.origin).await?;
        self.sources.projects.find::<right::Read>(&caller, self.run.project).await?;
        Ok(())
    }
}

/// Logs why a stream ends before its run.
fn broken_off(problem: ProblemDetails) {
    if let Some(causes) = problem.causes() {
        tracing::error!(error = %causes, "a stream breaks off: {causes}");
    }
}

fn last_event(run: &Run) -> Bytes {
    let mut text = String::new();
    RunEventView::ended(run.clone()).write_to(&mut text);
    text.into()
}
