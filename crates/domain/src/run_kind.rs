//! Where a run comes from.

use std::fmt;
use std::str::FromStr;

/// What a run is one execution of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunKind {
    /// A pipeline, or a graph that a node started as a child run.
    Pipeline,
    /// One item of a `map` node.
    Item,
    /// A pipeline file on the local command line.
    Local,
    /// A single action, such as that of a schedule.
    Action,
    /// A single call of a tool.
    Tool,
    /// A single message to an agent.
    Agent,
}

impl RunKind {
    /// Every kind.
    pub const ALL: [RunKind; 6] =
        [RunKind::Pipeline, RunKind::Item, RunKind::Local, RunKind::Action, RunKind::Tool, RunKind::Agent];

    /// The word for it in SQL and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            RunKind::Pipeline => "pipeline",
            RunKind::Item => "item",
            RunKind::Local => "local",
            RunKind::Action => "action",
            RunKind::Tool => "tool",
            RunKind::Agent => "agent",
        }
    }
}

impl fmt::Display for RunKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RunKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        RunKind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| format!("unknown run kind `{}`", text.chars().take(32).collect::<String>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_back_from_its_word() {
        for kind in RunKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert_eq!("chat".parse::<RunKind>(), Err("unknown run kind `chat`".to_owned()));
    }
}
