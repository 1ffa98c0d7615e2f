//! A project's files, opened as a capability.
//!
//! Owns every rule about paths, sizes and atomic writes. Never knows whose files they are.

mod directory;
mod error;
mod glob;
mod list;
mod path;
mod write;

pub use directory::{FileContent, FileVersion, Workspace};
pub use error::WorkspaceError;
pub use list::{Entry, EntryKind, ListOptions, Listing};
pub use path::WorkspacePath;
pub use write::{Precondition, Written};
