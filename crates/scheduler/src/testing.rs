//! Schedules in memory, which can fail and stall, under virtual time.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::{DueEntry, FireError, FireStore, Plan, Progress, Round, Timetable, plan};

/// What happens at a point of a round, in place of what comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFault {
    /// The store fails.
    Error,
    /// The round never goes on, as if its process had died.
    Stall,
}

/// The points of a round at which a fault can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Schedules are locked, and nothing is written.
    Locked,
    /// Everything is written, and the caller does not know it.
    Written,
}

type Faults = dyn Fn(u64, Point) -> Option<StoreFault> + Send + Sync;

/// Keeps schedules in memory. Its clock is tokio's, so it stands still in tests that pause it. Cloning shares it.
#[derive(Clone)]
pub struct MemorySchedules {
    shared: Arc<Shared>,
}

struct Shared {
    began: (Instant, DateTime<Utc>),
    schedules: Mutex<HashMap<u128, Kept>>,
    n_points: Mutex<u64>,
    faults: Box<Faults>,
    changes: watch::Sender<u64>,
    round_size: usize,
}

struct Kept {
    timetable: Timetable,
    progress: Progress,
    fire_at: Option<DateTime<Utc>>,
    ledger: BTreeMap<DateTime<Utc>, DueEntry>,
    runs: Vec<DateTime<Utc>>,
    is_locked: bool,
}

impl MemorySchedules {
    /// No schedules yet. The clock shows `now`, and a round takes at most `round_size` schedules. `faults` decides, from
    /// how many points were passed before, whether something happens at one.
    pub fn new(
        now: DateTime<Utc>,
        round_size: usize,
        faults: impl Fn(u64, Point) -> Option<StoreFault> + Send + Sync + 'static,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                began: (Instant::now(), now),
                schedules: Mutex::default(),
                n_points: Mutex::new(0),
                faults: Box::new(faults),
                changes: watch::Sender::new(0),
                round_size,
            }),
        }
    }

    /// The time of the store, in UTC.
    pub fn now(&self) -> DateTime<Utc> {
        let (instant, time) = self.shared.began;
        time + instant.elapsed()
    }

    /// Changes whenever a schedule was written.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Adds a schedule that begins now.
    pub fn add(&self, id: u128, timetable: Timetable) {
        let passed = timetable.begin(self.now());
        let progress = Progress { seed: id, passed, n_fires: 0, n_open: 0, queued: None };
        let fire_at = timetable.next_due(id, passed).map(|next| next.fire_at);
        let kept = Kept {
            timetable,
            progress,
            fire_at,
            ledger: BTreeMap::new(),
            runs: Vec::new(),
            is_locked: false,
        };
        self.schedules().insert(id, kept);
        self.tell();
    }

    /// Ends the open runs of a schedule.
    pub fn end_runs(&self, id: u128) {
        if let Some(kept) = self.schedules().get_mut(&id) {
            kept.progress.n_open = 0;
            if kept.progress.queued.is_some() {
                kept.fire_at = Some(self.now());
            }
        }
        self.tell();
    }

    /// The ledger of a schedule, oldest first.
    pub fn ledger(&self, id: u128) -> Vec<DueEntry> {
        self.schedules().get(&id).map(|kept| kept.ledger.values().copied().collect()).unwrap_or_default()
    }

    /// The due times of a schedule that started a run, in the order in which they did.
    pub fn runs(&self, id: u128) -> Vec<DateTime<Utc>> {
        self.schedules().get(&id).map(|kept| kept.runs.clone()).unwrap_or_default()
    }

    /// How many points were passed.
    pub fn n_points(&self) -> u64 {
        *self.shared.n_points.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.shared.changes.send_modify(|count| *count += 1);
    }

    fn schedules(&self) -> MutexGuard<'_, HashMap<u128, Kept>> {
        self.shared.schedules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pass(&self, point: Point) -> Result<(), FireError> {
        let number = {
            let mut n_points = self.shared.n_points.lock().unwrap_or_else(PoisonError::into_inner);
            *n_points += 1;
            *n_points - 1
        };
        match (self.shared.faults)(number, point) {
            None => Ok(()),
            Some(StoreFault::Error) => Err(FireError("the store was told to fail".into())),
            Some(StoreFault::Stall) => std::future::pending().await,
        }
    }

    fn lock_due(&self, now: DateTime<Utc>) -> Locked<'_> {
        let mut ids = Vec::new();
        for (id, kept) in self.schedules().iter_mut() {
            let is_due = kept.fire_at.is_some_and(|at| at <= now);
            if is_due && !kept.is_locked && ids.len() < self.shared.round_size {
                kept.is_locked = true;
                ids.push(*id);
            }
        }
        Locked { store: self, ids }
    }
}

/// Schedules that a round has locked; it releases them however it ends.
struct Locked<'a> {
    store: &'a MemorySchedules,
    ids: Vec<u128>,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let mut schedules = self.store.schedules();
        for id in &self.ids {
            if let Some(kept) = schedules.get_mut(id) {
                kept.is_locked = false;
            }
        }
    }
}

impl Kept {
    fn write(&mut self, plan: Plan) {
        for entry in plan.entries {
            self.ledger.insert(entry.due.at, entry);
            if entry.outcome.starts() {
                self.runs.push(entry.due.at);
                self.progress.n_open += 1;
            }
        }
        self.progress.passed = plan.passed;
        self.progress.n_fires = plan.n_fires;
        self.progress.queued = plan.queued;
        self.fire_at = plan.next.map(|next| next.fire_at);
    }
}

#[async_trait]
impl FireStore for MemorySchedules {
    async fn fire_due(&self) -> Result<Round, FireError> {
        let now = self.now();
        let locked = self.lock_due(now);
        self.pass(Point::Locked).await?;
        for id in &locked.ids {
            if let Some(kept) = self.schedules().get_mut(id) {
                let plan = plan(&kept.timetable, &kept.progress, now);
                kept.write(plan);
            }
        }
        self.pass(Point::Written).await?;
        let next = self.schedules().values().filter_map(|kept| kept.fire_at).min();
        Ok(Round {
            n_schedules: locked.ids.len(),
            is_full: locked.ids.len() == self.shared.round_size,
            next_in: next.map(|at| (at - self.now()).to_std().unwrap_or(Duration::ZERO)),
        })
    }
}
