//! The wake-ups that a change of runs owes once it is committed.

use gathering_domain::RunId;

use crate::cluster::wake::{Wake, WakeBus};

/// Wake-ups that are owed. They are sent after the commit: a reader that is woken before it sees nothing new.
#[derive(Debug, Default)]
#[must_use = "send them after the commit"]
pub(crate) struct WakeUps {
    runs: bool,
    signals: bool,
    events: bool,
    schedules: bool,
    log: bool,
    /// The runs whose followers in this process are told, each with whether it has ended.
    followed: Vec<(RunId, bool)>,
}

impl WakeUps {
    /// What the end of `run` owes: to the readers of events, to those that follow the run, and to its relatives.
    /// `has_relatives` says whether it has a parent that is woken, or may have children that are told.
    pub(crate) fn add_end(&mut self, run: RunId, has_relatives: bool) {
        self.events = true;
        self.followed.push((run, true));
        if has_relatives {
            self.add_signal();
        }
    }

    /// What the end of a run owes to its schedule.
    pub(crate) fn add_schedule(&mut self) {
        self.schedules = true;
    }

    /// What an event owes that is not the end of a run.
    pub(crate) fn add_event(&mut self) {
        self.log = true;
    }

    /// What `other` owes, too.
    pub(crate) fn extend(&mut self, other: Self) {
        self.runs |= other.runs;
        self.signals |= other.signals;
        self.events |= other.events;
        self.schedules |= other.schedules;
        self.log |= other.log;
        self.followed.extend(other.followed);
    }

    /// What a run owes that may be claimed now.
    pub(crate) fn add_claimable(&mut self) {
        self.runs = true;
    }

    /// What a run owes that was acted on: its driver, if one drives it, and those that claim, if none does.
    pub(crate) fn add_signal(&mut self) {
        self.signals = true;
        self.runs = true;
    }

    /// What new journal entries of `run` owe.
    pub(crate) fn add_entries(&mut self, run: RunId) {
        self.followed.push((run, false));
    }

    /// Sends them.
    pub(crate) fn send(self, wakes: &WakeBus) {
        wakes.appended(self.followed.into_iter());
        let owed = [
            (self.runs, Wake::Runs),
            (self.signals, Wake::Signals),
            (self.events, Wake::Events),
            (self.schedules, Wake::Schedules),
            (self.log, Wake::Log),
        ];
        for (_, what) in owed.into_iter().filter(|(is_owed, _)| *is_owed) {
            wakes.wake(what);
        }
    }
}
