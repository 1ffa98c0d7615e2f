//! A server that is a child process, spoken to over its standard input and output: one message a line.

mod driver;
mod lines;
mod link;
mod process;
mod stderr;

pub(crate) use lines::{Line, Lines};
pub(crate) use link::{StdioLink, with_progress_token};
