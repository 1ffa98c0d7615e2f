//! The settings of one process: defaults, then a TOML file, then environment variables.
//!
//! Owns the names, the bounds and the words for what is wrong. Never knows what a setting is used for. In the file a
//! setting has the name of its variable in lower case, without `GATHERING_`: `GATHERING_BIND` is `bind`.

mod quota;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use figment::Figment;
use figment::providers::{Format, Serialized, Toml};
use figment::value::Value;
use gathering_auth::Registration;
use gathering_domain::Secret;
use gathering_tools::Network;

pub use quota::{Quota, RateLimits};

/// Every setting: its name in the file, and its variable. The order is that of the problems in a message.
const SETTINGS: [(&str, &str); 32] = [
    ("database_url", "DATABASE_URL"),
    ("database_direct_url", "DATABASE_DIRECT_URL"),
    ("bind", "GATHERING_BIND"),
    ("data_dir", "GATHERING_DATA_DIR"),
    ("workspace_root", "GATHERING_WORKSPACE_ROOT"),
    ("token_key", "GATHERING_TOKEN_KEY"),
    ("bcrypt_cost", "GATHERING_BCRYPT_COST"),
    ("registration", "GATHERING_REGISTRATION"),
    ("trusted_proxies", "GATHERING_TRUSTED_PROXIES"),
    ("outbound_allow", "GATHERING_OUTBOUND_ALLOW"),
    ("shutdown_drain_seconds", "GATHERING_SHUTDOWN_DRAIN_SECONDS"),
    ("shutdown_grace_seconds", "GATHERING_SHUTDOWN_GRACE_SECONDS"),
    ("max_concurrent_runs", "GATHERING_MAX_CONCURRENT_RUNS"),
    ("db_pool_size", "GATHERING_DB_POOL_SIZE"),
    ("max_recoveries", "GATHERING_MAX_RECOVERIES"),
    ("stuck_instance_seconds", "GATHERING_STUCK_INSTANCE_SECONDS"),
    ("rate_limits", "GATHERING_RATE_LIMITS"),
    ("rate_limit_auth", "GATHERING_RATE_LIMIT_AUTH"),
    ("rate_limit_write", "GATHERING_RATE_LIMIT_WRITE"),
    ("rate_limit_read", "GATHERING_RATE_LIMIT_READ"),
    ("rate_limit_health", "GATHERING_RATE_LIMIT_HEALTH"),
    ("max_file_bytes", "GATHERING_MAX_FILE_BYTES"),
    ("cache_graphs_entries", "GATHERING_CACHE_GRAPHS_ENTRIES"),
    ("cache_revocations_entries", "GATHERING_CACHE_REVOCATIONS_ENTRIES"),
    ("cache_key_owners_entries", "GATHERING_CACHE_KEY_OWNERS_ENTRIES"),
    ("cache_directories_entries", "GATHERING_CACHE_DIRECTORIES_ENTRIES"),
    ("cache_workspaces_entries", "GATHERING_CACHE_WORKSPACES_ENTRIES"),
    ("cache_limiters_entries", "GATHERING_CACHE_LIMITERS_ENTRIES"),
    ("log", "GATHERING_LOG"),
    ("log_format", "GATHERING_LOG_FORMAT"),
    ("openai_base_url", "OPENAI_BASE_URL"),
    ("openai_api_key", "OPENAI_API_KEY"),
];

/// The variable that names the file.
const FILE_VARIABLE: &str = "GATHERING_CONFIG";

/// Variables that begin so belong to the tests.
const OF_TESTS: &str = "GATHERING_TEST_";

/// The most entries of a cache.
const MOST_ENTRIES: u64 = 10_000_000;

/// 2 GiB.
const DEFAULT_MAX_FILE_BYTES: u64 = 1 << 31;

/// Up to here every number is one that JSON's readers keep exactly.
const MOST_FILE_BYTES: u64 = 1 << 53;

/// The settings of one process, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the database is; absent: an embedded one in [`data_dir`](Self::data_dir).
    pub database_url: Option<Secret>,
    /// For sessions that must not go through a transaction pooler; absent: `database_url`.
    pub database_direct_url: Option<Secret>,
    /// Where to listen; port 0 takes a free one.
    pub bind: SocketAddr,
    /// The embedded database, workspaces and keys.
    pub data_dir: PathBuf,
    /// The roots of the projects' files.
    pub workspace_root: PathBuf,
    /// The text of the key ring, readable by [`gathering_auth::KeyRing::parse`]; absent: made once into the data directory.
    pub token_key: Option<Secret>,
    /// bcrypt's cost, 4 to 31.
    pub bcrypt_cost: u32,
    /// Who may register.
    pub registration: Registration,
    /// Networks whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    /// Networks that tools may reach though private.
    pub outbound_allow: Vec<Network>,
    /// How long the listener stays open after a stop was asked for.
    pub shutdown_drain: Duration,
    /// How long requests and runs may take to finish after that.
    pub shutdown_grace: Duration,
    /// The most runs that this instance drives at once.
    pub max_concurrent_runs: usize,
    /// The most pooled database connections of this instance.
    pub db_pool_size: usize,
    /// A run that was recovered more often than this fails.
    pub max_recoveries: i32,
    /// After how long without a heartbeat an instance that owns runs counts as stuck: more than
    /// [`gathering_persistence::Liveness::HEARTBEAT_LIMIT`].
    pub stuck_instance: Duration,
    /// How often a client may ask.
    pub rate_limits: RateLimits,
    /// The largest file of a workspace that the API takes, in bytes.
    pub max_file_bytes: u64,
    /// How many validated graphs are kept in memory.
    pub cache_graphs_entries: u64,
    /// How many access tokens are remembered as revoked.
    pub cache_revocations_entries: u64,
    /// Of how many API keys the owner is remembered, for the rate limits.
    pub cache_key_owners_entries: u64,
    /// How many lists of directories are remembered.
    pub cache_directories_entries: u64,
    /// Open workspaces that are kept; each holds one directory handle.
    pub cache_workspaces_entries: u64,
    /// Of how many clients the rate is remembered.
    pub cache_limiters_entries: u64,
    /// What is logged, as `tracing_subscriber::EnvFilter` reads it; absent: the command decides.
    pub log_filter: Option<String>,
    /// How it is written; absent: the command decides.
    pub log_format: Option<LogFormat>,
    /// Another server that speaks OpenAI's protocol.
    pub openai_base_url: Option<String>,
    /// The key for it.
    pub openai_api_key: Option<Secret>,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Pretty,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read, or is no TOML.
    #[error("the configuration file cannot be read")]
    File(#[source] Box<figment::Error>),
    /// Settings are wrong; all of them, one per line.
    #[error("{}", lines(.0))]
    Invalid(Vec<InvalidSetting>),
}

/// One wrong setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidSetting {
    /// The variable, or the file's name for it.
    pub name: String,
    /// What it was set to; absent where it may be secret.
    pub value: Option<String>,
    /// What would be right.
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
    /// [`ConfigError`] names every wrong setting, its value and what would be right.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::from_sources(file, |variable| std::env::var(variable).ok())
    }

    /// The settings from `file` and from what `variable` answers. A variable that is empty counts as unset.
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
        let mut settings = Settings::default();
        let written: Value = figment.extract().map_err(|error| ConfigError::File(Box::new(error)))?;
        for name in written.as_dict().into_iter().flat_map(|dict| dict.keys()) {
            if !SETTINGS.iter().any(|(known, _)| known == name) {
                let known = SETTINGS.map(|(known, _)| known).join(", ");
                settings.problem(name, None, format!("there is no such setting; there are {known}"));
            }
        }
        for (name, variable_name) in SETTINGS {
            if let Some(value) = variable(variable_name).filter(|value| !value.trim().is_empty()) {
                figment = figment.merge(Serialized::default(name, value));
                settings.from_environment.push(name);
            }
        }
        settings.figment = figment;
        settings.read()
    }
}

/// The variables among `names` that look like settings and are none, sorted: probably mistyped.
pub(crate) fn unknown_variables(names: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    let is_known = |name: &str| {
        name == FILE_VARIABLE
            || name.starts_with(OF_TESTS)
            || SETTINGS.iter().any(|(_, variable)| *variable == name)
    };
    names.into_iter().filter(|name| name.starts_with("GATHERING_") && !is_known(name)).collect()
}

/// The merged settings while they are read, and what is wrong so far.
#[derive(Default)]
struct Settings {
    figment: Figment,
    from_environment: Vec<&'static str>,
    problems: Vec<InvalidSetting>,
}

impl Settings {
    fn read(mut self) -> Result<Config, ConfigError> {
        let data_dir = self.optional("data_dir", values::path).unwrap_or_else(|| PathBuf::from(".gathering"));
        let config = Config {
            database_url: self.secret("database_url", values::database_url),
            database_direct_url: self.secret("database_direct_url", values::database_url),
            bind: self
                .optional("bind", values::address)
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080))),
            workspace_root: self
                .optional("workspace_root", values::path)
                .unwrap_or_else(|| data_dir.join("workspaces")),
            data_dir,
            token_key: self.secret("token_key", values::token_key),
            bcrypt_cost: self.number("bcrypt_cost", 4, 31, 12),
            registration: self.optional("registration", values::registration).unwrap_or(Registration::Open),
            trusted_proxies: self.optional("trusted_proxies", values::networks).unwrap_or_default(),
            outbound_allow: self.optional("outbound_allow", values::networks).unwrap_or_default(),
            shutdown_drain: Duration::from_secs(self.number("shutdown_drain_seconds", 0, 3600, 3)),
            shutdown_grace: Duration::from_secs(self.number("shutdown_grace_seconds", 0, 3600, 30)),
            max_concurrent_runs: self.number("max_concurrent_runs", 1, 100_000, 256),
            db_pool_size: self.number("db_pool_size", 2, 1000, 16),
            max_recoveries: self.number("max_recoveries", 0, 10_000, 20),
            stuck_instance: Duration::from_secs(self.number("stuck_instance_seconds", 45, 86_400, 60)),
            rate_limits: self.rate_limits(),
            max_file_bytes: self.number("max_file_bytes", 1, MOST_FILE_BYTES, DEFAULT_MAX_FILE_BYTES),
            cache_graphs_entries: self.entries("cache_graphs_entries", 1000),
            cache_revocations_entries: self.entries("cache_revocations_entries", 10_000),
            cache_key_owners_entries: self.entries("cache_key_owners_entries", 10_000),
            cache_directories_entries: self.entries("cache_directories_entries", 1000),
            cache_workspaces_entries: self.entries("cache_workspaces_entries", 1000),
            cache_limiters_entries: self.entries("cache_limiters_entries", 100_000),
            log_filter: self.optional("log", values::log_filter),
            log_format: self.optional("log_format", values::log_format),
            openai_base_url: self.optional("openai_base_url", values::http_url),
            openai_api_key: self.secret("openai_api_key", |text| Ok(Secret::from(text))),
        };
        if self.problems.is_empty() { Ok(config) } else { Err(ConfigError::Invalid(self.problems)) }
    }

    /// The quotas are read in any case: a wrong one must not come to light when the limits are turned on.
    fn rate_limits(&mut self) -> RateLimits {
        let default = RateLimits::default();
        let limits = RateLimits {
            auth: self.optional("rate_limit_auth", values::quota).unwrap_or(default.auth),
            write: self.optional("rate_limit_write", values::quota).unwrap_or(default.write),
            read: self.optional("rate_limit_read", values::quota).unwrap_or(default.read),
            health: self.optional("rate_limit_health", values::quota).unwrap_or(default.health),
        };
        match self.optional("rate_limits", values::on_or_off) {
            Some(false) => RateLimits::OFF,
            Some(true) | None => limits,
        }
    }

    fn entries(&mut self, name: &str, default: u64) -> u64 {
        self.number(name, 1, MOST_ENTRIES, default)
    }

    fn problem(&mut self, name: &str, value: Option<String>, expected: String) {
        let variable =
            SETTINGS.iter().find(|(known, _)| *known == name && self.from_environment.contains(known));
        let name = variable
            .map_or_else(|| format!("`{name}` in the configuration file"), |(_, name)| (*name).to_owned());
        self.problems.push(InvalidSetting { name, value, expected });
    }

    /// The text of a setting, wherever it was set; a list of a file is joined by commas.
    fn text(&mut self, name: &str) -> Option<String> {
        let value = self.figment.find_value(name).ok()?;
        let text = match &value {
            Value::Array(_, items) => {
                items.iter().map(values::scalar).collect::<Option<Vec<_>>>().map(|items| items.join(","))
            }
            other => values::scalar(other),
        };
        if text.is_none() {
            self.problem(name, None, "it must be a text or a number".to_owned());
        }
        text
    }

    fn optional<T>(&mut self, name: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text(name)?;
        read(text.trim())
            .map_err(|expected| self.problem(name, Some(text.chars().take(80).collect()), expected))
            .ok()
    }

    /// As `optional`, but the value is repeated nowhere.
    fn secret<T>(&mut self, name: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text(name)?;
        read(text.trim()).map_err(|expected| self.problem(name, None, expected)).ok()
    }

    fn number<T>(&mut self, name: &str, least: T, most: T, default: T) -> T
    where
        T: FromStr + PartialOrd + fmt::Display + Copy,
    {
        let read = |text: &str| {
            text.parse()
                .ok()
                .filter(|number| (least..=most).contains(number))
                .ok_or_else(|| format!("a whole number from {least} to {most}"))
        };
        self.optional(name, read).unwrap_or(default)
    }
}
