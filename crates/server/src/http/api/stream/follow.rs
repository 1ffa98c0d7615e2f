//! Following one run: when to look, and what to send of what is seen.

use std::collections::VecDeque;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web;
use actix_web::web::Bytes;
use gathering_auth::Origin;
use gathering_control::{Run, right};
use gathering_dag_engine::{JournalEntry, Seq};
use gathering_domain::{ExposeSecret, Secret};
use gathering_persistence::{Following, JournalPage};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Room;
use crate::http::api::run_view::{JournalEntryView, RunView};
use crate::http::edge::problem::Problem;
use crate::http::state::AppState;

/// How many entries are read, and held, at a time.
const PAGE: usize = 50;

/// How many bytes of large payloads are read, and held, at a time; one entry may have more.
const PAGE_BYTES: i64 = 1024 * 1024;

/// About how many bytes are handed on at a time.
const PIECE: usize = 64 * 1024;

/// How long after something happened the journal is looked at again; twice as long each time that nothing came.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause between two looks at the journal.
const LAST_PAUSE: Duration = Duration::from_millis(500);

/// The pause while this instance writes the journal, and tells: another one may take the run over.
const TOLD_PAUSE: Duration = Duration::from_secs(2);

/// A run may write many times in a moment: looks because of that are so far apart.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// What is sent was preceded by a look at who may see it, so long ago at most. Where nothing is sent, a comment looks.
const ACCESS_INTERVAL: Duration = Duration::from_secs(1);

/// When the run itself is looked at again although there is no word that one has ended: that may be lost.
const RUN_INTERVAL: Duration = Duration::from_secs(2);

/// Other runs end, too: looks at this one because of the word are at least so far apart, unless something just came.
const WORD_INTERVAL: Duration = Duration::from_millis(250);

/// How often there is a comment, so that nobody on the way takes the connection for dead. The access is checked as
/// often.
const COMMENT_INTERVAL: Duration = Duration::from_secs(15);

/// Comes first, so that something does: whoever is cut off shall come back after a second.
const GREETING: &str = "retry: 1000\n\n";

/// What comes every so often.
const COMMENT: &str = ":\n\n";

/// A stream of one run's events.
pub(super) struct Follow {
    state: web::Data<AppState>,
    /// As it was seen last.
    run: Run,
    /// The last entry that was read.
    after: Seq,
    unsent: VecDeque<JournalEntry>,
    stage: Stage,
    /// Changes when a run has ended somewhere.
    ends: watch::Receiver<u64>,
    /// Tells when this instance has written more.
    following: Following,
    /// Whether it has since the last look.
    is_told: bool,
    pause: Duration,
    /// When there was something last.
    came: Instant,
    journal_seen: Instant,
    journal_due: Instant,
    run_seen: Instant,
    run_due: Instant,
    comment_due: Instant,
    /// When the caller was last seen to have access.
    access_seen: Instant,
    /// What the caller showed.
    token: Secret,
    origin: Origin,
    _room: Room,
}

/// How far a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Greeting,
    Following,
    /// The run has ended, and its journal was read to the end since.
    Read,
    /// Everything was sent.
    Done,
}

/// Why a stream waits no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// It is time to look.
    Look,
    /// It is time to say something.
    Comment,
    /// The instance stops.
    Drained,
}

impl Follow {
    /// Follows `run` from after the entry `after`, for somebody who may read it and showed `token`.
    pub(super) fn new(
        state: web::Data<AppState>,
        run: Run,
        after: Seq,
        token: Secret,
        origin: Origin,
        room: Room,
    ) -> Self {
        let now = Instant::now();
        // Before the first look, so that no end is missed.
        let (ends, following) = (state.streams.ends(), state.streams.follow(run.id));
        Self {
            state,
            run,
            after,
            unsent: VecDeque::new(),
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
            _room: room,
        }
    }

    /// What comes next, when it comes; `None` at the end. Cancel: safe.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.state.readiness.is_draining() {
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
                _ if !self.unsent.is_empty() => return Some(self.piece()),
                Stage::Following => match self.wait().await {
                    Due::Look => self.look().await.map_err(broken_off).ok()?,
                    Due::Comment | Due::Drained => {}
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
                () = self.state.readiness.drained() => return Due::Drained,
                () = tokio::time::sleep_until(self.comment_due) => return Due::Comment,
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

    /// Looks at the run and at its journal, whichever is due. A database that is away is asked again later.
    async fn look(&mut self) -> Result<(), Problem> {
        let looked = self.try_look().await;
        match looked {
            Err(problem) if problem.status() == StatusCode::SERVICE_UNAVAILABLE => {
                let later = Instant::now() + LAST_PAUSE;
                (self.journal_due, self.run_due) = (later, later);
                Ok(())
            }
            looked => looked,
        }
    }

    async fn try_look(&mut self) -> Result<(), Problem> {
        let now = Instant::now();
        // The run first: its last entries are written with its end, so whatever is read after that is complete.
        if now >= self.run_due && !self.run.state.is_terminal() {
            self.run = self.state.runs.find(self.run.id).await?.ok_or_else(Problem::not_found)?;
            (self.run_seen, self.run_due) = (now, now + RUN_INTERVAL);
        }
        let has_ended = self.run.state.is_terminal();
        if has_ended || now >= self.journal_due {
            let page = self.state.runs.load_journal_page(self.run.id, self.after, PAGE, PAGE_BYTES);
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

    /// Some of what is to be sent.
    fn piece(&mut self) -> Bytes {
        let mut text = String::new();
        while text.len() < PIECE
            && let Some(entry) = self.unsent.pop_front()
        {
            let (seq, kind) = (entry.seq, entry.record.event.kind());
            push_event(&mut text, Some(seq), kind, &JournalEntryView::of(entry));
        }
        text.into()
    }

    /// A comment, if the caller may still see the run. While nobody can say, it shows nothing of it.
    async fn comment(&mut self) -> Option<Bytes> {
        self.comment_due = Instant::now() + COMMENT_INTERVAL;
        self.has_access().await?;
        Some(Bytes::from_static(COMMENT.as_bytes()))
    }

    /// Whether there is something of the run to send.
    fn has_something(&self) -> bool {
        !self.unsent.is_empty() || self.stage == Stage::Read
    }

    /// Whether it may be shown now: nothing is that the caller was not seen to have access to a moment ago. `None` if
    /// they have none any more.
    async fn may_show(&mut self) -> Option<bool> {
        if self.access_seen.elapsed() < ACCESS_INTERVAL || self.has_access().await? {
            return Some(true);
        }
        // The database is away, and asked again.
        tokio::select! {
            () = self.state.readiness.drained() => {}
            () = tokio::time::sleep(LAST_PAUSE) => {}
        }
        Some(false)
    }

    /// Whether the caller may see the run, or nobody can say; `None` if not.
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

    async fn check_access(&self) -> Result<(), Problem> {
        let caller = self.state.auth.authenticate(self.token.expose_secret(), self.origin).await?;
        self.state.control.projects.find::<right::Read>(&caller, self.run.project).await?;
        Ok(())
    }
}

/// Logs why a stream ends before its run.
fn broken_off(problem: Problem) {
    if let Some(causes) = problem.causes() {
        tracing::error!(error = %causes, "a stream breaks off: {causes}");
    }
}

fn last_event(run: &Run) -> Bytes {
    let mut text = String::new();
    push_event(&mut text, None, "run_ended", &RunView::of(run.clone()));
    text.into()
}

/// JSON has no line breaks of its own, so the data are one line.
fn push_event(text: &mut String, id: Option<Seq>, kind: &str, data: &impl Serialize) {
    if let Some(id) = id {
        text.push_str(&format!("id: {id}\n"));
    }
    let data = serde_json::to_string(data).unwrap_or_default();
    text.push_str(&format!("event: {kind}\ndata: {data}\n\n"));
}
