//! Runs programs that the operator allows, confined to a workspace.
//!
//! Owns what a program may use, how it is started and how it is ended. Never knows its caller.
//!
//! A small launcher starts each program: this same code in a process of its own, because limits and confinement are set
//! by a process for itself. [`run_launcher`] is its main function.

mod confinement;
mod group;
mod launch;
mod launcher;
mod output;
mod policy;
mod run;

pub use confinement::Confinement;
pub use launcher::run_launcher;
pub use policy::{CommandSetupError, Launcher, RunCommandPolicy};
pub(crate) use run::{CommandEnd, CommandRequest, Commands};
