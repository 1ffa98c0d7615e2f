//! The states of a run and the only ways between them.

use std::fmt;
use std::str::FromStr;

/// Where a run stands. A terminal state is final (I5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunState {
    /// Accepted; nobody drives it yet, or its owner died or handed it back.
    Queued,
    /// One instance drives it.
    Running,
    /// Nobody drives it until a time comes or somebody acts ([`WaitingFor`] says which).
    Waiting,
    /// Every node that had to run did.
    Succeeded,
    /// A node failed and no edge caught it.
    Failed,
    /// Somebody asked for its end.
    Cancelled,
    /// Its deadline passed.
    TimedOut,
}

/// What happens to a run as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunEvent {
    /// An instance took it, raising the epoch.
    Claimed,
    /// Its owner gave it back, because it shuts down or lost its claim.
    Requeued,
    /// Its owner died; another instance put it back.
    OwnerDied,
    /// Nothing of it can go on now.
    Parked,
    /// It ended well.
    Succeeded,
    /// It ended badly.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// Its deadline passed.
    TimedOut,
}

impl RunEvent {
    /// Every event.
    pub const ALL: [RunEvent; 8] = [
        RunEvent::Claimed,
        RunEvent::Requeued,
        RunEvent::OwnerDied,
        RunEvent::Parked,
        RunEvent::Succeeded,
        RunEvent::Failed,
        RunEvent::Cancelled,
        RunEvent::TimedOut,
    ];
}

/// An event that cannot happen to a run in this state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a run that is {state} cannot be changed by {event:?}")]
pub struct IllegalRunEvent {
    /// The state that it was in.
    pub state: RunState,
    /// What was to happen.
    pub event: RunEvent,
}

impl RunState {
    /// Every state, in the order in which a run may pass them.
    pub const ALL: [RunState; 7] = [
        RunState::Queued,
        RunState::Running,
        RunState::Waiting,
        RunState::Succeeded,
        RunState::Failed,
        RunState::Cancelled,
        RunState::TimedOut,
    ];

    /// The states that never change again.
    pub const TERMINAL: [RunState; 4] =
        [RunState::Succeeded, RunState::Failed, RunState::Cancelled, RunState::TimedOut];

    /// The states of a run that has not ended.
    pub const ACTIVE: [RunState; 3] = [RunState::Queued, RunState::Running, RunState::Waiting];

    /// The states from which an instance may claim a run, once it is available.
    pub const CLAIMABLE: [RunState; 2] = [RunState::Queued, RunState::Waiting];

    /// The states in which a wake-up changes when a run goes on. A queued run reads everything when it is claimed.
    pub const WAKEABLE: [RunState; 2] = [RunState::Running, RunState::Waiting];

    /// The state after `event`.
    ///
    /// # Errors
    /// [`IllegalRunEvent`] if that cannot happen in this state; nothing changed.
    pub const fn after(self, event: RunEvent) -> Result<RunState, IllegalRunEvent> {
        match (self, event) {
            (RunState::Queued | RunState::Waiting, RunEvent::Claimed) => Ok(RunState::Running),
            (RunState::Running, RunEvent::Requeued | RunEvent::OwnerDied) => Ok(RunState::Queued),
            (RunState::Running, RunEvent::Parked) => Ok(RunState::Waiting),
            (RunState::Running, RunEvent::Succeeded) => Ok(RunState::Succeeded),
            (RunState::Running, RunEvent::Failed) => Ok(RunState::Failed),
            (RunState::Queued | RunState::Running | RunState::Waiting, RunEvent::Cancelled) => {
                Ok(RunState::Cancelled)
            }
            (RunState::Queued | RunState::Running | RunState::Waiting, RunEvent::TimedOut) => {
                Ok(RunState::TimedOut)
            }
            (state, event) => Err(IllegalRunEvent { state, event }),
        }
    }

    /// Whether the run has ended for good.
    pub const fn is_terminal(self) -> bool {
        matches!(self, RunState::Succeeded | RunState::Failed | RunState::Cancelled | RunState::TimedOut)
    }

    /// The word for it in SQL, JSON and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            RunState::Queued => "queued",
            RunState::Running => "running",
            RunState::Waiting => "waiting",
            RunState::Succeeded => "succeeded",
            RunState::Failed => "failed",
            RunState::Cancelled => "cancelled",
            RunState::TimedOut => "timed_out",
        }
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RunState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        RunState::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| {
            let known = RunState::ALL.map(RunState::as_str).join(", ");
            format!("`{}` is no run state: use one of {known}", text.chars().take(32).collect::<String>())
        })
    }
}

/// What a waiting run waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WaitingFor {
    /// A time.
    Timer,
    /// A person's decision.
    Approval,
    /// The end of a child run.
    Child,
    /// A larger budget.
    BudgetExceeded,
}

impl WaitingFor {
    /// The word for it in SQL and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            WaitingFor::Timer => "timer",
            WaitingFor::Approval => "approval",
            WaitingFor::Child => "child",
            WaitingFor::BudgetExceeded => "budget_exceeded",
        }
    }
}

impl FromStr for WaitingFor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [WaitingFor::Timer, WaitingFor::Approval, WaitingFor::Child, WaitingFor::BudgetExceeded]
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or_else(|| format!("`{text}` is nothing that a run waits for"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_table_of_states_and_events() {
        let table: Vec<String> = RunState::ALL
            .into_iter()
            .flat_map(|state| RunEvent::ALL.into_iter().map(move |event| (state, event)))
            .filter_map(|(state, event)| {
                state.after(event).ok().map(|next| format!("{state} --{event:?}--> {next}"))
            })
            .collect();
        assert_eq!(
            table,
            [
                "queued --Claimed--> running",
                "queued --Cancelled--> cancelled",
                "queued --TimedOut--> timed_out",
                "running --Requeued--> queued",
                "running --OwnerDied--> queued",
                "running --Parked--> waiting",
                "running --Succeeded--> succeeded",
                "running --Failed--> failed",
                "running --Cancelled--> cancelled",
                "running --TimedOut--> timed_out",
                "waiting --Claimed--> running",
                "waiting --Cancelled--> cancelled",
                "waiting --TimedOut--> timed_out",
            ]
        );
    }

    #[test]
    fn i5_a_terminal_state_never_changes() {
        for state in RunState::TERMINAL {
            assert!(state.is_terminal());
            for event in RunEvent::ALL {
                assert!(state.after(event).is_err(), "{state} {event:?}");
            }
        }
    }

    #[test]
    fn every_state_is_either_active_or_terminal() {
        for state in RunState::ALL {
            assert_eq!(RunState::ACTIVE.contains(&state), !state.is_terminal(), "{state}");
        }
        assert!(RunState::CLAIMABLE.iter().all(|state| state.after(RunEvent::Claimed).is_ok()));
        assert!(RunState::WAKEABLE.iter().all(|state| !state.is_terminal()));
    }

    #[test]
    fn words_and_back() {
        for state in RunState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
    }
}
