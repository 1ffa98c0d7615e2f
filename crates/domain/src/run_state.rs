//! The states of a run and the legal transitions between them.

use std::fmt;
use std::str::FromStr;

/// The state of a run. A terminal state is final (I5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunState {
    /// Accepted, and available to be claimed at its time. No instance drives it.
    Queued,
    /// An instance drives it.
    Running,
    /// No instance drives it until a time, a decision, a child run, a budget or a permit allows it ([`WaitingFor`] says which).
    Waiting,
    /// Every node that had to run succeeded.
    Succeeded,
    /// A node failed and no edge handled the failure.
    Failed,
    /// Cancelled on request.
    Cancelled,
    /// Its deadline passed.
    TimedOut,
}

/// An event that changes the state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunEvent {
    /// An instance claimed it and raised the epoch.
    Claimed,
    /// Its owner released it before its end, for example because it shuts down.
    Requeued,
    /// Its owner died; another instance requeued it.
    OwnerDied,
    /// Its owner parked it: all its nodes only wait.
    Parked,
    /// All nodes that had to run succeeded.
    Succeeded,
    /// A node failed, and no edge handled the failure.
    Failed,
    /// It was cancelled on request.
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

/// An event that is illegal for a run in this state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a run that is {state} cannot be changed by {event:?}")]
pub struct IllegalRunEvent {
    /// The current state.
    pub state: RunState,
    /// The rejected event.
    pub event: RunEvent,
}

impl RunState {
    /// Every state, in the order in which a run can pass through them.
    pub const ALL: [RunState; 7] = [
        RunState::Queued,
        RunState::Running,
        RunState::Waiting,
        RunState::Succeeded,
        RunState::Failed,
        RunState::Cancelled,
        RunState::TimedOut,
    ];

    /// The states that never change.
    pub const TERMINAL: [RunState; 4] =
        [RunState::Succeeded, RunState::Failed, RunState::Cancelled, RunState::TimedOut];

    /// The states of a run that has not ended.
    pub const ACTIVE: [RunState; 3] = [RunState::Queued, RunState::Running, RunState::Waiting];

    /// The states from which an instance can claim a run once it is available.
    pub const CLAIMABLE: [RunState; 2] = [RunState::Queued, RunState::Waiting];

    /// The states in which a wake-up changes when a run continues. A queued run reads everything when it is claimed.
    pub const WAKEABLE: [RunState; 2] = [RunState::Running, RunState::Waiting];

    /// The state after `event`.
    ///
    /// # Errors
    /// [`IllegalRunEvent`] if the event is illegal in this state; nothing changed.
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

    /// What a sentence says of a run in this state.
    pub const fn as_clause(self) -> &'static str {
        match self {
            RunState::Queued | RunState::Running | RunState::Waiting => "has not ended",
            RunState::Succeeded => "succeeded",
            RunState::Failed => "failed",
            RunState::Cancelled => "was cancelled",
            RunState::TimedOut => "timed out",
        }
    }

    /// Whether the run has ended.
    pub const fn is_terminal(self) -> bool {
        matches!(self, RunState::Succeeded | RunState::Failed | RunState::Cancelled | RunState::TimedOut)
    }

    /// The state's name in SQL, JSON and logs.
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
            format!("unknown run state `{}`: use one of {known}", text.chars().take(32).collect::<String>())
        })
    }
}

/// The reason why a node or run waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WaitingFor {
    /// A time has to come.
    Timer,
    /// A person has to decide.
    Approval,
    /// Child runs have to end.
    Child,
    /// A budget has to allow the next call.
    BudgetExceeded,
    /// A permit of its key has to be free; so a run waits that has not started.
    Concurrency,
}

impl WaitingFor {
    /// Every reason.
    pub const ALL: [WaitingFor; 5] = [
        WaitingFor::Timer,
        WaitingFor::Approval,
        WaitingFor::Child,
        WaitingFor::BudgetExceeded,
        WaitingFor::Concurrency,
    ];

    /// The reason's name in SQL and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            WaitingFor::Timer => "timer",
            WaitingFor::Approval => "approval",
            WaitingFor::Child => "child",
            WaitingFor::BudgetExceeded => "budget_exceeded",
            WaitingFor::Concurrency => "concurrency",
        }
    }
}

impl FromStr for WaitingFor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or_else(|| format!("unknown wait reason `{text}`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_table_is_exactly_this() {
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
    fn names_survive_a_round_trip() {
        for state in RunState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
    }
}
