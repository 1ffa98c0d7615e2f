//! The files of a project, opened as a capability.
//!
//! Owns every rule about paths, sizes and atomic writes. Never knows whose files they are.

mod directory;
mod entries;
mod error;
mod glob;
mod inside;
mod list;
mod open_file;
mod path;
mod search;
mod unfinished;
mod upload;
mod version;
mod write;

pub use directory::Workspace;
pub use entries::DirectoryCache;
pub use error::WorkspaceError;
pub use list::{Entry, EntryKind, ListOptions, Listing};
pub use open_file::{FileContent, OpenFile};
pub use path::WorkspacePath;
pub use search::{InvalidPattern, Search, SearchOptions, SearchStop, TextMatch};
pub use upload::Upload;
pub use version::FileVersion;
pub use write::{Precondition, Written};
