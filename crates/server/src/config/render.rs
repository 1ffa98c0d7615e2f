//! The settings as their documents show them.

use std::fmt::Write as _;

use super::declared::{Fallback, SETTINGS, Setting};

/// How wide the example file is.
#[cfg(test)]
const WIDTH: usize = 120;

impl Setting {
    /// What holds without it, as plain text.
    fn shown_default(&self) -> String {
        let (Fallback::Value(text) | Fallback::Unset(text, _)) = self.default;
        text.replace('`', "")
    }
}

/// The list of `gathering serve --help`.
pub(crate) fn help() -> String {
    let mut text =
        "Settings come from the configuration file and the environment; the environment wins:".to_owned();
    let width = SETTINGS.iter().map(|setting| setting.variable.len()).max().unwrap_or_default();
    for setting in SETTINGS {
        let help = setting.help.replace('`', "");
        // Writing to a `String` cannot fail.
        let _ = write!(text, "\n  {:width$}  {help} [{}]", setting.variable, setting.shown_default());
    }
    text
}

/// The table of `docs/operations.md`.
#[cfg(test)]
pub(crate) fn table() -> String {
    let mut text = "| variable | meaning | default |\n|---|---|---|\n".to_owned();
    for setting in SETTINGS {
        let default = match setting.default {
            Fallback::Value(value) => format!("`{value}`"),
            Fallback::Unset(meaning, _) => meaning.to_owned(),
        };
        let separator = if setting.more.is_empty() { "" } else { "; " };
        let _ = writeln!(
            text,
            "| `{}` | {}{separator}{} | {default} |",
            setting.variable, setting.help, setting.more
        );
    }
    text
}

/// `deploy/gathering.example.toml`.
#[cfg(test)]
pub(crate) fn example_file() -> String {
    let mut text = "\
# Settings of a server: `gathering serve --config gathering.toml`, or GATHERING_CONFIG=gathering.toml.
#
# Each line shows a default or an example; uncomment what shall differ. An environment variable wins over this file:
# `bind` is GATHERING_BIND, `database_url` is DATABASE_URL, and so on. An invalid value or an unknown name stops the
# start with a message that names it.
#
# Keep secrets (database_url, token_key, secrets_key, smtp_password, openai_api_key) in variables rather than in a file.
"
    .to_owned();
    for setting in SETTINGS {
        let separator = if setting.more.is_empty() { "" } else { "; " };
        let mut about = format!("{}{separator}{}", setting.help, setting.more);
        let example = match setting.default {
            Fallback::Value(value) if value.parse::<u64>().is_ok() => value.to_owned(),
            Fallback::Value(value) => format!("\"{value}\""),
            Fallback::Unset(meaning, example) => {
                let _ = write!(about, " (default: {meaning})");
                example.to_owned()
            }
        };
        text.push('\n');
        for line in wrapped(&about, WIDTH - 2) {
            let _ = writeln!(text, "# {line}");
        }
        let _ = writeln!(text, "#{} = {example}", setting.name);
    }
    text
}

#[cfg(test)]
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
