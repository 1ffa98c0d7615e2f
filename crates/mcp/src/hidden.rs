//! Keeping the values of the settings out of what is logged and told: a server may repeat what it was given.

use gathering_domain::ExposeSecret as _;
use serde_json::Value;

use crate::config::{McpAuth, McpServerConfig, McpTransport};

/// The shortest value that is hidden. A shorter one would be taken out of texts that have nothing to do with it.
const MIN_VALUE: usize = 4;
/// The shortest part of a value that is hidden by itself, such as a token after `Bearer`.
const MIN_PART: usize = 8;
/// What stands in the place of a value.
const MARK: &str = "[hidden]";

/// The values that a server was given in confidence.
pub(crate) struct Hidden(Vec<String>);

impl Hidden {
    pub(crate) fn of(config: &McpServerConfig) -> Self {
        let values: Vec<&str> = match &config.transport {
            McpTransport::Stdio(command) => command.env.values().map(|value| value.expose_secret()).collect(),
            McpTransport::Http(endpoint) => {
                let auth = match &endpoint.auth {
                    McpAuth::None => None,
                    McpAuth::Bearer(secret) | McpAuth::ClientCredentials { client_secret: secret, .. } => {
                        Some(secret.expose_secret())
                    }
                };
                endpoint.headers.values().map(|value| value.expose_secret()).chain(auth).collect()
            }
        };
        let parts =
            values.iter().flat_map(|value| value.split_whitespace().filter(|part| part.len() >= MIN_PART));
        let wholes = values.iter().copied().filter(|value| value.len() >= MIN_VALUE);
        let mut all: Vec<String> = wholes.chain(parts).map(str::to_owned).collect();
        // As they stand in JSON, which logs of servers are.
        let quoted = all.iter().map(|value| Value::from(value.as_str()).to_string());
        let quoted: Vec<String> = quoted.map(|text| text.trim_matches('"').to_owned()).collect();
        all.extend(quoted);
        // A longer value may contain a shorter one.
        all.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        all.dedup();
        Self(all)
    }

    /// The text without the values.
    pub(crate) fn hide(&self, text: String) -> String {
        self.0.iter().fold(text, |text, value| {
            if text.contains(value.as_str()) { text.replace(value.as_str(), MARK) } else { text }
        })
    }
}

#[cfg(test)]
mod tests {
    use gathering_domain::Secret;

    use super::*;
    use crate::{HttpEndpoint, StdioCommand};

    #[test]
    fn a_value_is_hidden_whole_and_after_the_word_before_it() {
        let mut endpoint = HttpEndpoint::new("https://example.org/mcp");
        endpoint.headers.insert("authorization".to_owned(), Secret::from("Bearer hunter2hunter2"));
        let config = McpServerConfig::new("a", McpTransport::Http(endpoint));
        let hidden = Hidden::of(&config);
        assert_eq!(hidden.hide("no Bearer hunter2hunter2 here".to_owned()), "no [hidden] here");
        assert_eq!(hidden.hide("token hunter2hunter2 is over".to_owned()), "token [hidden] is over");
        assert_eq!(hidden.hide("Bearer".to_owned()), "Bearer");
        let mut command = StdioCommand::new("a", [""; 0]);
        command.env.insert("TOKEN".to_owned(), Secret::from("s3cret"));
        let config = McpServerConfig::new("a", McpTransport::Stdio(command));
        assert_eq!(Hidden::of(&config).hide("s3cret s3cret".to_owned()), "[hidden] [hidden]");
    }
}
