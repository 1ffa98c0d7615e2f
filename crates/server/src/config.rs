//! The settings of one process: defaults, then a TOML file, then environment variables.
//!
//! Owns the names, the bounds and the messages about invalid values. Never knows what a setting is used for. In the file, a
//! setting has the name of its variable in lower case without `GATHERING_`: `GATHERING_BIND` is `bind`.

mod declared;
mod reader;
mod render;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use figment::Figment;
use figment::providers::{Format, Toml};
use figment::value::Value;
use gathering_edge::limits::Quota;

pub use declared::Config;
use declared::SETTINGS;
use reader::Reader;
pub(crate) use render::help;

/// The variable that names the file.
const FILE_VARIABLE: &str = "GATHERING_CONFIG";

/// The variable with the API key of `gathering mcp`, which is a client's and no setting of a server.
pub(crate) const API_KEY_VARIABLE: &str = "GATHERING_API_KEY";

/// Variables that begin so belong to the tests.
const OF_TESTS: &str = "GATHERING_TEST_";

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Pretty,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read, or is not TOML.
    #[error("cannot read the configuration file")]
    File(#[source] Box<figment::Error>),
    /// Settings are invalid; all of them, one per line.
    #[error("{}", lines(.0))]
    Invalid(Vec<InvalidSetting>),
}

/// An invalid setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidSetting {
    /// The variable, or the file's name for it.
    pub name: String,
    /// What it was set to; absent where it may be secret.
    pub value: Option<String>,
    /// What is valid.
    pub expected: String,
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} is `{value}`: it must be {}", self.name, self.expected),
            None => write!(f, "{}: {}", self.name, self.expected),
        }
    }
}

fn lines(problems: &[InvalidSetting]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

impl Config {
    /// The settings of this process: `file`, or else the one that `GATHERING_CONFIG` names, and the environment.
    ///
    /// # Errors
    /// [`ConfigError`] names every invalid setting, its value and what is valid.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::from_sources(file, |variable| std::env::var(variable).ok())
    }

    /// The settings from `file` and from what `variable` answers. An empty variable counts as unset.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_sources(
        file: Option<&Path>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let mut figment = Figment::new();
        if let Some(file) = file {
            figment = figment.merge(Toml::file_exact(file));
        }
        let written: Value = figment.extract().map_err(|error| ConfigError::File(Box::new(error)))?;
        let mut reader = Reader::new(figment, &written, variable);
        let config = declared::read(&mut reader);
        config.filter(|_| reader.problems.is_empty()).ok_or(ConfigError::Invalid(reader.problems))
    }
}

/// The variables among `names` that look like settings but are not, sorted: probably mistyped. Those with this prefix are
/// secrets.
pub(crate) fn unknown_variables(
    names: impl IntoIterator<Item = String>,
    of_secrets: Option<&str>,
) -> BTreeSet<String> {
    let is_known = |name: &str| {
        [FILE_VARIABLE, API_KEY_VARIABLE].contains(&name)
            || name.starts_with(OF_TESTS)
            || of_secrets.is_some_and(|prefix| name.starts_with(prefix))
            || SETTINGS.iter().any(|setting| setting.variable == name)
    };
    names.into_iter().filter(|name| name.starts_with("GATHERING_") && !is_known(name)).collect()
}
