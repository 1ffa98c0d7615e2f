//! Runs in memory, and the effect of claims and checkpoints on them.

use chrono::{DateTime, Utc};
use gathering_domain::{InstanceId, NodeId, PipelineId, RunEvent, RunId, RunState};

use super::Shared;
use crate::children::Parent;
use crate::first_nodes::first_nodes;
use crate::journal::{JournalEntry, JournalEvent, Record, Seq};
use crate::store::{
    Checkpoint, Claim, ClaimScope, ClaimedRun, GraphRole, JournalAtClaim, NewRun, Release, RunEnd, StoreError,
};

/// A stored run.
#[derive(Debug, Clone)]
pub struct StoredRun {
    /// What was accepted.
    pub new: NewRun,
    /// Its state.
    pub state: RunState,
    /// Its owner.
    pub owner: Option<InstanceId>,
    /// The epoch of its last claim.
    pub epoch: i64,
    /// How often its owner died.
    pub recoveries: i32,
    /// It cannot be claimed before.
    pub available_at: Option<DateTime<Utc>>,
    /// Whether its cancellation was requested.
    pub cancel_requested: bool,
    /// Why, if the run above requested it.
    pub cancel_reason: Option<String>,
    /// Whether its last owner was told so.
    pub is_end_heard: bool,
    /// Whether it was marked for a wake-up since its last claim.
    pub is_signalled: bool,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// Its deadline.
    pub deadline_at: Option<DateTime<Utc>>,
    /// Its pipeline.
    pub pipeline: Option<PipelineId>,
    /// Its depth: how many ancestors it has.
    pub depth: u32,
    /// Its place among the children of the run that waits for it.
    pub place: Option<Place>,
    /// The earlier run whose work it takes up.
    pub takes_up: Option<RunId>,
    /// How it ended; absent also when it was cancelled before it was ever claimed.
    pub end: Option<RunEnd>,
}

/// The place of a run among the children of its parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The parent.
    pub parent: Parent,
    /// Which of its children it is, from 0.
    pub item: u32,
    /// Whether it is an item of a list.
    pub is_item: bool,
}

impl StoredRun {
    /// A run that has not started.
    pub(super) fn accepted(new: NewRun, now: DateTime<Utc>) -> Self {
        let deadline_at = new.timeout.map(|timeout| now + timeout);
        Self {
            state: RunState::Queued,
            owner: None,
            epoch: 0,
            recoveries: 0,
            available_at: new.available_at.map(|at| deadline_at.map_or(at, |deadline| at.min(deadline))),
            cancel_requested: false,
            cancel_reason: None,
            is_end_heard: false,
            is_signalled: false,
            created_at: now,
            deadline_at,
            pipeline: None,
            depth: 0,
            place: None,
            takes_up: None,
            end: None,
            new,
        }
    }

    /// Marks that a wait of a node may be over. A queued run keeps its place: its nodes are polled when it is claimed.
    pub(super) fn act(&mut self, now: DateTime<Utc>) {
        match self.state {
            RunState::Waiting => self.available_at = Some(now),
            RunState::Running => self.is_signalled = true,
            _ => {}
        }
    }

    /// Notes that its cancellation is requested. Of several requests the first tells why.
    pub(super) fn request_cancel(&mut self, reason: Option<String>) {
        if !self.cancel_requested {
            self.cancel_reason = reason;
        }
        self.cancel_requested = true;
    }

    /// Cancels it: at once if none of its nodes ever started, else through its driver. Returns whether it ended at
    /// once.
    pub(super) fn ask_for_its_end(&mut self, reason: Option<String>, now: DateTime<Utc>) -> bool {
        if self.state.is_terminal() {
            return false;
        }
        self.request_cancel(reason);
        if self.epoch > 0 {
            self.become_available(now);
        } else if let Ok(state) = self.state.after(RunEvent::Cancelled) {
            self.state = state;
            return true;
        }
        false
    }

    /// Makes a waiting or queued run claimable now; marks a driven one for its owner.
    pub(super) fn become_available(&mut self, now: DateTime<Utc>) {
        self.act(now);
        if self.state == RunState::Queued {
            self.available_at = Some(now);
        }
    }

    /// Whether it has no owner, and all that is left to do is to end it.
    pub(super) fn is_ending(&self, now: DateTime<Utc>) -> bool {
        matches!(self.state, RunState::Queued | RunState::Waiting)
            && (self.cancel_requested || self.deadline_at.is_some_and(|deadline| deadline <= now))
    }

    /// From when it can be claimed without a wake-up.
    pub(super) fn claimable_from(&self) -> Option<DateTime<Utc>> {
        match self.state {
            RunState::Queued => Some(self.available_at.unwrap_or(self.created_at)),
            RunState::Waiting => self.available_at,
            _ => None,
        }
    }
}

impl Shared {
    /// From when a run can be claimed in this scope without a wake-up.
    pub(super) fn available_from(&self, run: &StoredRun, scope: ClaimScope) -> Option<DateTime<Utc>> {
        let is_root = scope == ClaimScope::Tree(run.new.id);
        let from = run.claimable_from().filter(|_| self.is_in(run, scope))?;
        Some(if is_root && run.state == RunState::Queued { run.created_at } else { from })
    }

    /// Whether a claim in this scope may take the run.
    pub(super) fn is_in(&self, run: &StoredRun, scope: ClaimScope) -> bool {
        let ClaimScope::Tree(root) = scope else { return true };
        let parent = |run: &&StoredRun| self.runs.get(&run.place.as_ref()?.parent.run);
        std::iter::successors(Some(run), parent).any(|run| run.new.id == root)
    }

    pub(super) fn claim(&mut self, id: RunId, owner: InstanceId, now: DateTime<Utc>) -> Option<ClaimedRun> {
        // An instance that was declared dead has no identity to claim with.
        if self.dead.contains(&owner) {
            return None;
        }
        let has_journal = self.journals.get(&id).is_some_and(|journal| !journal.is_empty());
        let run = self.runs.get_mut(&id)?;
        run.state = run.state.after(RunEvent::Claimed).ok()?;
        run.owner = Some(owner);
        run.epoch += 1;
        run.available_at = None;
        run.is_signalled = false;
        run.is_end_heard = run.cancel_requested;
        let mut claimed = ClaimedRun {
            claim: Claim { run: id, owner, epoch: run.epoch },
            project: run.new.project,
            graph: run.new.graph,
            input: Ok(run.new.input.clone()),
            deadline_at: run.deadline_at,
            cancel_requested: run.cancel_requested,
            cancel_reason: run.cancel_reason.clone(),
            role: match (&run.place, run.pipeline) {
                (Some(place), _) if place.is_item => GraphRole::Item,
                (_, Some(pipeline)) => GraphRole::Pipeline(pipeline),
                (_, None) => GraphRole::Standalone,
            },
            takes_up: run.takes_up,
            created_at: run.created_at,
            is_limited: false,
            journal: if run.epoch > 1 || has_journal {
                JournalAtClaim::Existing
            } else {
                JournalAtClaim::New { started: Vec::new() }
            },
        };
        if claimed.was_claimed_before() {
            self.append(claimed.claim, vec![Record::of_run(JournalEvent::TakenOver)], now);
        } else if !has_journal
            && claimed.takes_up.is_none()
            && !claimed.cancel_requested
            && claimed.deadline_at.is_none_or(|deadline| deadline > now)
        {
            claimed.journal = JournalAtClaim::New { started: self.begin(&claimed, now) };
        }
        Some(claimed)
    }

    /// Records the starts of the first nodes.
    fn begin(&mut self, claimed: &ClaimedRun, now: DateTime<Utc>) -> Vec<NodeId> {
        let definition = self.graphs.get(&claimed.graph);
        let first = definition.map(first_nodes).unwrap_or_default();
        let started: Vec<NodeId> = first.into_iter().filter_map(|node| node.parse().ok()).collect();
        let start = |node: &NodeId| Record::of_node(node.clone(), 1, JournalEvent::Started);
        self.append(claimed.claim, started.iter().map(start).collect(), now);
        started
    }

    pub(super) fn append(&mut self, claim: Claim, records: Vec<Record>, now: DateTime<Utc>) {
        let journal = self.journals.entry(claim.run).or_default();
        for record in records {
            let seq = journal.len() as Seq + 1;
            journal.push(JournalEntry { seq, record, owner: Some(claim.owner), epoch: claim.epoch, at: now });
        }
    }

    pub(super) fn commit(&mut self, checkpoint: &Checkpoint, now: DateTime<Utc>) -> Result<(), StoreError> {
        let claim = checkpoint.claim;
        let lost = || StoreError::ClaimLost { run: claim.run };
        let journal = self.journals.get(&claim.run).map(Vec::as_slice).unwrap_or_default();
        let first = usize::try_from(checkpoint.first_seq - 1).map_err(|_| lost())?;
        let there = journal.get(first..).ok_or_else(lost)?;
        let written_before = !checkpoint.records.is_empty()
            && there.len() >= checkpoint.records.len()
            && there.iter().zip(&checkpoint.records).all(|(entry, record)| {
                entry.record == *record && entry.epoch == claim.epoch && entry.owner == Some(claim.owner)
            });
        // Only records need their number.
        if !checkpoint.records.is_empty() && !there.is_empty() && !written_before {
            return Err(lost());
        }
        let run = self.runs.get_mut(&claim.run).ok_or_else(lost)?;
        let mut ended = None;
        if let Some(release) = &checkpoint.release {
            if (run.owner, run.epoch) == (Some(claim.owner), claim.epoch) {
                run.state = run.state.after(release.event()).map_err(|_| lost())?;
                run.owner = None;
                match release {
                    Release::End(end) => {
                        run.end = Some(end.clone());
                        ended = Some(end);
                    }
                    Release::Park { .. } if run.is_signalled => run.available_at = Some(now),
                    Release::Park { until, .. } => run.available_at = *until,
                    Release::Requeue => {}
                }
            } else if !(run.epoch == claim.epoch && released_as(run, release)) {
                return Err(lost());
            }
        }
        if !written_before {
            self.append(claim, checkpoint.records.clone(), now);
        }
        if !checkpoint.frees.is_empty() {
            self.free_permits(claim.run, Some(&checkpoint.frees), now);
        }
        if let Some(end) = ended {
            self.free_permits(claim.run, None, now);
            self.wake_parent(claim.run, now);
            if end.abandons_children {
                self.abandon_children(claim.run, now);
            }
        }
        Ok(())
    }

    pub(super) fn request_cancel(&mut self, id: RunId, now: DateTime<Utc>) {
        if self.runs.get_mut(&id).is_some_and(|run| run.ask_for_its_end(None, now)) {
            self.wake_parent(id, now);
        }
    }
}

/// Whether the run is as this release leaves it: then the answer to an earlier try was lost.
fn released_as(run: &StoredRun, release: &Release) -> bool {
    run.owner.is_none() && RunState::Running.after(release.event()).is_ok_and(|state| state == run.state)
}
