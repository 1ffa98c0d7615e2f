//! The processes of a command, which end together.

use rustix::process::{Pid, Signal, kill_process_group};

/// A process group. Dropping it kills every process in it.
pub(super) struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    /// The group whose first process has this number.
    pub(super) fn of(id: Option<u32>) -> Self {
        Self(id.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            // It fails if all have ended.
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}
