//! Sets of run states as SQL writes them, made from those of [`RunState`].

use std::sync::LazyLock;

use gathering_domain::RunState;

/// The states of a run that has not ended.
pub(crate) static ACTIVE: LazyLock<String> = LazyLock::new(|| sql_list(&RunState::ACTIVE));
/// The states from which a run may be claimed.
pub(crate) static CLAIMABLE: LazyLock<String> = LazyLock::new(|| sql_list(&RunState::CLAIMABLE));
/// The states of a run that has ended.
pub(crate) static TERMINAL: LazyLock<String> = LazyLock::new(|| sql_list(&RunState::TERMINAL));
/// The states in which a wake-up changes when a run goes on.
pub(crate) static WAKEABLE: LazyLock<String> = LazyLock::new(|| sql_list(&RunState::WAKEABLE));

fn sql_list(states: &[RunState]) -> String {
    let quoted: Vec<String> = states.iter().map(|state| format!("'{state}'")).collect();
    format!("({})", quoted.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_indexes_of_claims_name_the_claimable_states_in_the_same_words() {
        assert_eq!(*CLAIMABLE, "('queued', 'waiting')");
        assert_eq!(*TERMINAL, "('succeeded', 'failed', 'cancelled', 'timed_out')");
    }
}
