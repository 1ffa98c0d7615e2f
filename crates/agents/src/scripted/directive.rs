//! The lines in an agent's instructions that control `scripted`.

use std::time::Duration;

use serde_json::{Map, Value};

/// The longest wait before a reply.
const MAX_WAIT: Duration = Duration::from_secs(60);

#[derive(Debug, Default, PartialEq)]
pub(super) struct Directives {
    pub(super) style: Style,
    pub(super) calls: Vec<Call>,
    pub(super) wait: Duration,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Style {
    #[default]
    Summary,
    Keywords,
    Outline,
    Combine,
}

#[derive(Debug, PartialEq)]
pub(super) struct Call {
    pub(super) tool: String,
    /// A text if the line has no JSON; the tool's schema then rejects it.
    pub(super) arguments: Value,
}

impl Directives {
    /// Reads the lines. The last style and the last wait win. Other lines are ignored.
    pub(super) fn read(instructions: &str) -> Self {
        let mut directives = Self::default();
        for line in instructions.lines() {
            let Some(directive) = line.trim().strip_prefix("scripted:") else { continue };
            let (word, rest) =
                directive.trim().split_once(char::is_whitespace).unwrap_or((directive.trim(), ""));
            match word {
                "summary" => directives.style = Style::Summary,
                "keywords" => directives.style = Style::Keywords,
                "outline" => directives.style = Style::Outline,
                "combine" => directives.style = Style::Combine,
                "wait" => {
                    let wait = rest.trim().parse().map(Duration::from_millis).unwrap_or_default();
                    directives.wait = wait.min(MAX_WAIT);
                }
                "call" => directives.calls.push(call(rest.trim())),
                _ => {}
            }
        }
        directives
    }
}

fn call(text: &str) -> Call {
    let (tool, arguments) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let arguments = match arguments.trim() {
        "" => Value::Object(Map::new()),
        json => serde_json::from_str(json).unwrap_or_else(|_| Value::String(json.to_owned())),
    };
    Call { tool: tool.to_owned(), arguments }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_choose_style_calls_and_wait() {
        let directives = Directives::read(
            "You write well.\nscripted: summary\n  scripted: keywords\nscripted: call read_file {\"path\": \"a.md\"}\n\
             scripted: call list_files\nscripted: wait 99999999\nscripted: sing",
        );
        assert_eq!(directives.style, Style::Keywords);
        assert_eq!(directives.wait, MAX_WAIT);
        let calls: Vec<_> =
            directives.calls.iter().map(|call| (call.tool.as_str(), &call.arguments)).collect();
        assert_eq!(calls, [("read_file", &json!({"path": "a.md"})), ("list_files", &json!({}))]);
        assert_eq!(Directives::read("Be kind."), Directives::default());
    }
}
