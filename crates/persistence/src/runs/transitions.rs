//! Every statement that changes the state of a run. No other file of this crate has one.
//!
//! | module | transition |
//! |---|---|
//! | [`insert`] | a run is accepted: queued |
//! | [`claim`] | queued or waiting, to running |
//! | [`release`] | running, to queued, waiting or a terminal state, with the last checkpoint of a claim |
//! | [`cancel`] | queued and never claimed, to cancelled |
//! | [`recover`] | running under an owner that is dead or does not drive it, to queued or failed |
//!
//! [`end`] has what every end of a run brings about. [`wake_ups`] has the wake-ups that a transition owes.

pub(crate) mod cancel;
pub(crate) mod claim;
pub(crate) mod end;
pub(crate) mod insert;
pub(crate) mod recover;
pub(crate) mod release;
pub(crate) mod wake_ups;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else {
                found.push(path);
            }
        }
    }

    /// Whether a source file sets `runs.state`, in SQL or in the DSL.
    fn changes_state(source: &str) -> bool {
        let assigns = |set_clause: &str| {
            set_clause
                .split(',')
                .any(|part| part.split_whitespace().next().is_some_and(|word| word == "state"))
        };
        let sql = source.split("UPDATE runs SET").skip(1).any(|after| {
            let set_clause = after.split("WHERE").next().unwrap_or_default();
            assigns(set_clause.split(" FROM ").next().unwrap_or_default())
        });
        let dsl = source.split("update(runs::").skip(1).any(|after| {
            let set_clause = after.split(".set(").nth(1).unwrap_or_default();
            set_clause.split(".execute(").next().unwrap_or_default().contains("runs::state")
        });
        sql || dsl
    }

    #[test]
    fn no_other_file_changes_the_state_of_a_run() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        sources(&root, &mut files);
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|path| path.starts_with(root.join("runs/transitions")));
        let n_here = here.iter().filter(|path| changes_state(&fs::read_to_string(path).unwrap())).count();
        assert_eq!(n_here, 4, "claim, release, cancel and recover: the check finds them");
        for path in elsewhere.iter().filter(|path| !path.ends_with("runs/transitions.rs")) {
            let source = fs::read_to_string(path).unwrap();
            assert!(!changes_state(&source), "{} changes `runs.state`", path.display());
        }
    }
}
