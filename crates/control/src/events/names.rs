//! The types of events, and patterns that choose among them.

use std::fmt;
use std::str::FromStr;

/// The most bytes of a type.
pub const MAX_EVENT_TYPE_BYTES: usize = 128;

/// The most patterns that a reader may name.
const MAX_PATTERNS: usize = 32;

/// The first parts of the types that the server itself emits, or may emit in a later version.
const OF_THE_SERVER: &[&str] = &[
    "agent",
    "approval",
    "breaker",
    "budget",
    "circle",
    "file",
    "gathering",
    "hook",
    "instance",
    "pipeline",
    "project",
    "run",
    "schedule",
    "security",
    "system",
    "task",
];

/// The type of a posted event: a dotted lower-case name, such as `order.paid`, that is not one of the server's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventType(String);

/// Why a text is no type of a posted event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEventType {
    /// It is no dotted name.
    #[error(
        "must be a dotted lower-case name of at most {MAX_EVENT_TYPE_BYTES} bytes, such as `order.paid`: parts of `a-z`, \
         `0-9`, `_` and `-`, each beginning with a letter"
    )]
    NoName,
    /// It is one of the server's.
    #[error("is reserved for the server: it must not begin with one of {}", words())]
    OfTheServer,
}

impl EventType {
    /// The type as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for EventType {
    type Err = InvalidEventType;

    fn from_str(text: &str) -> Result<Self, InvalidEventType> {
        if !is_name(text) || !text.contains('.') {
            return Err(InvalidEventType::NoName);
        }
        let first = text.split('.').next().unwrap_or_default();
        if OF_THE_SERVER.contains(&first) {
            return Err(InvalidEventType::OfTheServer);
        }
        Ok(Self(text.to_owned()))
    }
}

fn is_name(text: &str) -> bool {
    let is_part = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_lowercase())
            && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
    };
    text.len() <= MAX_EVENT_TYPE_BYTES && text.split('.').all(is_part)
}

fn words() -> String {
    OF_THE_SERVER.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// Which types a reader wants: those that one of its patterns fits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TypePatterns(Option<Vec<Pattern>>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    /// This type.
    Exact(String),
    /// Every type that begins so; the text ends with a dot.
    Below(String),
}

/// A text that is no list of patterns.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{pattern}` is no pattern: name types with commas between them, such as `order.paid,run.*`, or `*` for all, and at \
     most {MAX_PATTERNS} of them"
)]
pub struct InvalidTypePattern {
    pattern: String,
}

impl TypePatterns {
    /// Whether one of them fits.
    pub fn fit(&self, event_type: &str) -> bool {
        let Some(patterns) = &self.0 else { return true };
        patterns.iter().any(|pattern| match pattern {
            Pattern::Exact(name) => name == event_type,
            Pattern::Below(start) => event_type.starts_with(start.as_str()),
        })
    }
}

impl FromStr for TypePatterns {
    type Err = InvalidTypePattern;

    fn from_str(text: &str) -> Result<Self, InvalidTypePattern> {
        let mut patterns = Vec::new();
        let mut all = false;
        for pattern in text.split(',').map(str::trim) {
            let invalid =
                || InvalidTypePattern { pattern: pattern.chars().take(MAX_EVENT_TYPE_BYTES).collect() };
            match pattern.strip_suffix(".*") {
                _ if patterns.len() == MAX_PATTERNS => return Err(invalid()),
                _ if pattern == "*" => all = true,
                Some(start) if is_name(start) => patterns.push(Pattern::Below(format!("{start}."))),
                None if is_name(pattern) => patterns.push(Pattern::Exact(pattern.to_owned())),
                _ => return Err(invalid()),
            }
        }
        Ok(Self(if all { None } else { Some(patterns) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_a_dotted_lower_case_name() {
        for text in ["order.paid", "a.b", "com.github.pull_request.opened", "x1.y-2"] {
            assert_eq!(text.parse::<EventType>().unwrap().as_str(), text);
        }
        let longest = format!("a.{}", "b".repeat(MAX_EVENT_TYPE_BYTES - 2));
        assert!(longest.parse::<EventType>().is_ok());
        let too_long = format!("{longest}b");
        for text in [
            "",
            "order",
            "Order.paid",
            "order.",
            ".paid",
            "order..paid",
            "order paid",
            "order.*",
            "1.a",
            "a.1",
            "ä.b",
            "a.b\n",
            "a.b\0",
            &too_long,
        ] {
            assert_eq!(text.parse::<EventType>(), Err(InvalidEventType::NoName), "{text:?}");
        }
    }

    #[test]
    fn the_types_of_the_server_are_its_own() {
        for text in ["run.succeeded", "schedule.fired", "task.done", "security.login", "project.created"] {
            assert_eq!(text.parse::<EventType>(), Err(InvalidEventType::OfTheServer), "{text}");
        }
        assert!("runs.over".parse::<EventType>().is_ok(), "only the whole word");
        assert!("order.run.started".parse::<EventType>().is_ok());
    }

    #[test]
    fn patterns_choose_a_type_or_all_below_a_name() {
        let fit = |patterns: &str, text: &str| patterns.parse::<TypePatterns>().unwrap().fit(text);
        assert!(fit("*", "order.paid") && fit("order.*", "order.paid") && fit("order.paid", "order.paid"));
        assert!(fit("run.*, order.paid", "run.failed") && fit("run.*,order.paid", "order.paid"));
        assert!(fit("order.*", "order.paid.late") && fit("a.b,*", "run.started"));
        assert!(
            !fit("order.*", "orders.paid") && !fit("order.*", "order") && !fit("order.paid", "order.pai")
        );
        assert!(TypePatterns::default().fit("whatever.it.is"));
        let many = vec!["a.b"; MAX_PATTERNS + 1].join(",");
        for text in ["", "order.*.paid", "*.paid", "Order.*", "a.b,", "order.%", &many] {
            assert!(text.parse::<TypePatterns>().is_err(), "{text}");
        }
    }
}
