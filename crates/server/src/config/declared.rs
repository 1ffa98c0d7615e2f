//! Every setting, declared once: its names, its default, its help and how it is read.
//!
//! [`Config`], its reader, `gathering serve --help`, the table of `docs/operations.md` and
//! `deploy/gathering.example.toml` are all made of this declaration.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use gathering_auth::Registration;
use gathering_domain::{EffectClass, Secret};
use gathering_tools::{MailAddress, Network, SmtpTls};

use super::reader::Reader;
use gathering_edge::limits::{Quota, RateLimits};

use super::{LogFormat, values};

/// What is declared of a setting, as its documents show it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// Its name in the file.
    pub(crate) name: &'static str,
    /// Its environment variable.
    pub(crate) variable: &'static str,
    pub(crate) default: Fallback,
    /// What it is for, in one line.
    pub(crate) help: &'static str,
    /// What else the table and the example file say.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test makes the documents"))]
    pub(crate) more: &'static str,
}

/// The default of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fallback {
    /// This text is read.
    Value(&'static str),
    /// Nothing is read. The first text says what happens then, the second is an example of a value.
    Unset(&'static str, &'static str),
}

use Fallback::{Unset, Value};

/// The most entries of a cache.
const MAX_ENTRIES: u64 = 10_000_000;
/// Up to here every number is one that JSON's readers keep exactly.
const MAX_FILE_BYTES: u64 = 1 << 53;
/// The longest shutdown delay, in seconds.
const MAX_SHUTDOWN: u64 = 3600;
/// A hundred years.
const MAX_DAYS: u32 = 36_500;

macro_rules! settings {
    ($(
        $(#[doc = $doc:literal])+
        $field:ident: $type:ty = $name:literal, $variable:literal, $default:expr,
            $help:literal, $more:literal, $read:expr;
    )*) => {
        /// The settings of one process, checked.
        #[derive(Debug, Clone)]
        pub struct Config {
            $($(#[doc = $doc])+ pub $field: $type,)*
        }

        /// In the order in which the documents list them and messages name them.
        pub(crate) const SETTINGS: &[Setting] = &[
            $(Setting { name: $name, variable: $variable, default: $default, help: $help, more: $more },)*
        ];

        /// Reads every setting; `None` if one is invalid, which the reader notes.
        pub(super) fn read(reader: &mut Reader) -> Option<Config> {
            $(
                let setting = Setting { name: $name, variable: $variable, default: $default, help: $help, more: $more };
                let read: &dyn Fn(&mut Reader, &Setting) -> Option<$type> = &$read;
                let $field = read(reader, &setting);
            )*
            Some(Config { $($field: $field?,)* })
        }
    };
}

settings! {
    /// Where the database is; absent: an embedded one in [`data_dir`](Self::data_dir).
    database_url: Option<Secret> = "database_url", "DATABASE_URL",
        Unset("an embedded one in the data directory", "\"postgresql://gathering:password@localhost:5432/gathering\""),
        "PostgreSQL 15 or later", "",
        |r, s| r.secret(s, values::database_url);
    /// For sessions that must not go through a transaction pooler; absent: `database_url`.
    database_direct_url: Option<Secret> = "database_direct_url", "DATABASE_DIRECT_URL",
        Unset("`DATABASE_URL`", "\"postgresql://gathering:password@localhost:5432/gathering\""),
        "the same database without a transaction pooler", "needed where `DATABASE_URL` leads to one",
        |r, s| r.secret(s, values::database_url);
    /// Where to listen; port 0 takes a free one.
    bind: SocketAddr = "bind", "GATHERING_BIND", Value("127.0.0.1:8080"),
        "address and port to listen on", "port 0 takes a free one and logs it",
        |r, s| r.value(s, values::address);
    /// The embedded database, workspaces and keys.
    data_dir: PathBuf = "data_dir", "GATHERING_DATA_DIR", Value(".gathering"),
        "embedded database, workspaces and keys", "closed to every tool, also inside a workspace",
        |r, s| r.value(s, values::path);
    /// The roots of the projects' files.
    workspace_root: PathBuf = "workspace_root", "GATHERING_WORKSPACE_ROOT",
        Unset("`workspaces` in the data directory", "\".gathering/workspaces\""),
        "the roots of the projects' files", "",
        |r, s| r.optional(s, values::path)?.or_else(|| data_dir.as_ref().map(|dir| dir.join("workspaces")));
    /// The text of the key ring, readable by [`gathering_auth::KeyRing::parse`]; absent: made once into the data directory.
    token_key: Option<Secret> = "token_key", "GATHERING_TOKEN_KEY",
        Unset("made once, `token.key` in the data directory", "\"\""),
        "keys of the access tokens, the same on all instances",
        "separated by blanks or commas: each a PASERK `k4.local....` or 32 bytes in base64; the first one issues, all are accepted",
        |r, s| r.secret(s, values::token_key);
    /// The text of the key ring that encrypts the secrets of projects, readable by [`gathering_auth::KeyRing::parse`]; absent:
    /// made once into the data directory.
    secrets_key: Option<Secret> = "secrets_key", "GATHERING_SECRETS_KEY",
        Unset("made once, `secrets.key` in the data directory", "\"\""),
        "keys of the secrets of projects, the same on all instances",
        "as `GATHERING_TOKEN_KEY`: the first one encrypts, all decrypt; without its key a secret is lost",
        |r, s| r.secret(s, values::token_key);
    /// Environment variables that begin so are secrets of every project, under the rest of their name; absent: none are.
    secrets_env_prefix: Option<String> = "secrets_env_prefix", "GATHERING_SECRETS_ENV_PREFIX",
        Unset("none", "\"GATHERING_SECRET_\""),
        "environment variables that begin so are secrets of every project",
        "with `GATHERING_SECRET_`, `GATHERING_SECRET_API_KEY` is the secret `API_KEY`; everybody who may write pipelines can use them",
        |r, s| r.optional(s, values::variable_prefix);
    /// A directory with a file for each secret; absent: there is none.
    secrets_dir: Option<PathBuf> = "secrets_dir", "GATHERING_SECRETS_DIR", Unset("none", "\"/run/secrets\""),
        "a directory with a file for each secret, read when a node needs it",
        "`NAME` is for every project, `<project id>/NAME` for one",
        |r, s| r.optional(s, values::path);
    /// bcrypt's cost, 4 to 31.
    bcrypt_cost: u32 = "bcrypt_cost", "GATHERING_BCRYPT_COST", Value("12"),
        "bcrypt's cost, 4 to 31", "",
        |r, s| r.value(s, values::number(4, 31));
    /// Who may register.
    registration: Registration = "registration", "GATHERING_REGISTRATION", Value("open"),
        "who may register: `open` or `closed`", "",
        |r, s| r.value(s, values::registration);
    /// Networks whose `X-Forwarded-For`, `X-Forwarded-Host` and `X-Forwarded-Proto` are believed.
    trusted_proxies: Vec<Network> = "trusted_proxies", "GATHERING_TRUSTED_PROXIES", Unset("none", "[]"),
        "networks of reverse proxies whose `X-Forwarded-For`, `-Host` and `-Proto` are believed", "",
        |r, s| Some(r.optional(s, values::networks)?.unwrap_or_default());
    /// Private networks that tools may reach.
    outbound_allow: Vec<Network> = "outbound_allow", "GATHERING_OUTBOUND_ALLOW", Unset("none", "[]"),
        "private networks that tools and `call_api` may reach", "such as `10.0.0.0/8`",
        |r, s| Some(r.optional(s, values::networks)?.unwrap_or_default());
    /// The operator's mail server; absent: there is no e-mail.
    smtp_host: Option<String> = "smtp_host", "GATHERING_SMTP_HOST", Unset("none: e-mail fails", "\"mail.example.org\""),
        "the mail server", "",
        |r, s| r.optional(s, values::host);
    /// Its port; absent: the usual one for `smtp_tls`.
    smtp_port: Option<u16> = "smtp_port", "GATHERING_SMTP_PORT",
        Unset("587; 465 for `implicit`; 25 without TLS", "587"),
        "the port of the mail server", "",
        |r, s| r.optional(s, values::number(1, u16::MAX));
    /// How the connection to it is encrypted.
    smtp_tls: SmtpTls = "smtp_tls", "GATHERING_SMTP_TLS", Value("starttls"),
        "TLS with the mail server: `starttls`, `implicit`, `none` or `insecure`",
        "`none` only for a server on this machine, `insecure` for no TLS anywhere; without TLS `starttls` sends nothing",
        |r, s| {
            let tls = r.value(s, values::smtp_tls)?;
            let is_remote = smtp_host.iter().flatten().any(|host| !values::is_this_machine(host));
            if tls == SmtpTls::None && is_remote {
                r.problem(s.name, None, "`none` is for a mail server on this machine".to_owned());
            }
            Some(tls)
        };
    /// The account at the mail server; absent: no login.
    smtp_user: Option<String> = "smtp_user", "GATHERING_SMTP_USER", Unset("no login", "\"gathering\""),
        "the account at the mail server", "",
        |r, s| r.optional(s, |text| Ok(text.to_owned()));
    /// Its password.
    smtp_password: Option<Secret> = "smtp_password", "GATHERING_SMTP_PASSWORD", Unset("none", "\"\""),
        "the password of the account at the mail server", "",
        |r, s| {
            let password = r.secret(s, |text| Ok(Secret::from(text)))?;
            match (smtp_user.as_ref()?, &password) {
                (Some(_), None) => r.problem("smtp_user", None, "a login needs GATHERING_SMTP_PASSWORD, too".to_owned()),
                (None, Some(_)) => r.problem(s.name, None, "a login needs GATHERING_SMTP_USER, too".to_owned()),
                _ => {}
            }
            Some(password)
        };
    /// The sender of every e-mail.
    smtp_from: Option<MailAddress> = "smtp_from", "GATHERING_SMTP_FROM",
        Unset("none", "\"GatheRing <gathering@example.org>\""),
        "the sender of e-mail; required with a mail server", "such as `GatheRing <gathering@example.org>`",
        |r, s| {
            let from = r.optional(s, values::mail_address)?;
            if from.is_none() && smtp_host.iter().flatten().next().is_some() {
                r.problem("smtp_host", None, "e-mail needs a sender: set GATHERING_SMTP_FROM".to_owned());
            }
            Some(from)
        };
    /// More certificate authorities for it.
    smtp_ca_file: Option<PathBuf> = "smtp_ca_file", "GATHERING_SMTP_CA_FILE",
        Unset("those of the system", "\"/etc/gathering/mail-ca.pem\""),
        "certificate authorities for the mail server besides those of the system, as PEM", "",
        |r, s| r.optional(s, values::path);
    /// How long to wait for each of its answers.
    smtp_timeout: Duration = "smtp_timeout_seconds", "GATHERING_SMTP_TIMEOUT_SECONDS", Value("60"),
        "how long to wait for each answer of the mail server", "",
        |r, s| r.value(s, values::number(1, 600)).map(Duration::from_secs);
    /// Names the keys that sign webhooks.
    webhook_keys_file: Option<PathBuf> = "webhook_keys_file", "GATHERING_WEBHOOK_KEYS_FILE",
        Unset("none", "\"/etc/gathering/webhook-keys\""),
        "a file of the keys that sign webhooks, read at the start",
        "each line is `name = whsec_...`; a name with several lines is signed with each of these keys",
        |r, s| r.optional(s, values::path);
    /// The programs that `run_command` may start; none: there is no such tool.
    run_command_programs: BTreeMap<String, PathBuf> = "run_command_programs", "GATHERING_RUN_COMMAND_PROGRAMS",
        Unset("none: there is no tool `run_command`", "\"git=/usr/bin/git, jq=/usr/bin/jq\""),
        "the programs that the tool `run_command` may start, as `name=/absolute/path`",
        "a shell or an interpreter runs anything that an agent writes",
        |r, s| Some(r.optional(s, values::programs)?.unwrap_or_default());
    /// The longest time of one command.
    run_command_time: Duration = "run_command_seconds", "GATHERING_RUN_COMMAND_SECONDS", Value("60"),
        "the longest time of one command", "",
        |r, s| r.value(s, values::number(1, 3600)).map(Duration::from_secs);
    /// The memory of each process of a command, in bytes.
    run_command_memory_bytes: u64 = "run_command_memory_bytes", "GATHERING_RUN_COMMAND_MEMORY_BYTES",
        Value("1073741824"),
        "the address space of each process of a command, in bytes", "",
        |r, s| r.value(s, values::number(1 << 20, MAX_FILE_BYTES));
    /// Whether commands may use the network.
    run_command_network: bool = "run_command_network", "GATHERING_RUN_COMMAND_NETWORK", Value("off"),
        "`on` or `off`: whether commands may use the network", "",
        |r, s| r.value(s, values::on_or_off);
    /// Whether the server refuses to start where commands cannot be confined.
    run_command_confinement_required: bool = "run_command_confinement", "GATHERING_RUN_COMMAND_CONFINEMENT",
        Value("required"),
        "`required` or `if_available`: whether commands must be confined to the workspace by Landlock",
        "without it a command can read whatever the server can",
        |r, s| r.value(s, values::confinement_required);
    /// The programs that projects may mount as MCP servers; none: only servers over HTTP.
    mcp_commands: BTreeSet<String> = "mcp_commands", "GATHERING_MCP_COMMANDS",
        Unset("none: only servers over HTTP", "\"mcp-server-time, /usr/bin/uvx\""),
        "the programs that projects may mount as MCP servers, as names on the `PATH` or absolute paths",
        "they run as the server does; one that starts others, such as `npx`, runs anything that an editor writes",
        |r, s| Some(r.optional(s, values::commands)?.unwrap_or_default());
    /// How far the hints of MCP servers are believed at most.
    mcp_allowance: EffectClass = "mcp_allowance", "GATHERING_MCP_ALLOWANCE", Value("unsafe"),
        "`unsafe`, `idempotent` or `pure`: how far the hints of MCP servers are believed at most",
        "with `unsafe` no call of their tools is repeated by itself",
        |r, s| r.value(s, values::effect_class);
    /// How long the listener stays open after a stop signal.
    shutdown_drain: Duration = "shutdown_drain_seconds", "GATHERING_SHUTDOWN_DRAIN_SECONDS", Value("3"),
        "how long the listener stays open after a stop signal", "",
        |r, s| r.value(s, values::number(0, MAX_SHUTDOWN)).map(Duration::from_secs);
    /// How long requests and runs may take to finish after that.
    shutdown_grace: Duration = "shutdown_grace_seconds", "GATHERING_SHUTDOWN_GRACE_SECONDS", Value("30"),
        "how long requests and runs may then take to finish", "",
        |r, s| r.value(s, values::number(0, MAX_SHUTDOWN)).map(Duration::from_secs);
    /// The most runs that this instance drives at once.
    max_concurrent_runs: usize = "max_concurrent_runs", "GATHERING_MAX_CONCURRENT_RUNS", Value("256"),
        "runs that this instance drives at once", "",
        |r, s| r.value(s, values::number(1, 100_000));
    /// The most pooled database connections of this instance.
    db_pool_size: usize = "db_pool_size", "GATHERING_DB_POOL_SIZE", Value("16"),
        "pooled database connections of this instance", "",
        |r, s| r.value(s, values::number(2, 1000));
    /// A run that was recovered more often than this fails.
    max_recoveries: i32 = "max_recoveries", "GATHERING_MAX_RECOVERIES", Value("20"),
        "a run that was recovered more often fails as `poisonous`", "",
        |r, s| r.value(s, values::number(0, 10_000));
    /// After how long without a heartbeat an instance that owns runs counts as stuck: more than
    /// [`gathering_persistence::Liveness::HEARTBEAT_LIMIT`].
    stuck_instance: Duration = "stuck_instance_seconds", "GATHERING_STUCK_INSTANCE_SECONDS", Value("60"),
        "an instance that owns runs counts as stuck after so long without a heartbeat",
        "so does one that drives a run so long past its deadline; at least 45",
        |r, s| r.value(s, values::number(45, 86_400)).map(Duration::from_secs);
    /// How many days the journal of a run is kept after it ended; 0: for ever.
    retention_journal_days: u32 = "retention_journal_days", "GATHERING_RETENTION_JOURNAL_DAYS", Value("30"),
        "days that the journals of ended runs are kept", "0 is for ever; without its journal a run can be rerun from `start` only",
        |r, s| r.value(s, values::number(0, MAX_DAYS));
    /// How many days a run is kept after it ended; 0: for ever.
    retention_runs_days: u32 = "retention_runs_days", "GATHERING_RETENTION_RUNS_DAYS", Value("0"),
        "days that ended runs are kept", "0 is for ever",
        |r, s| r.value(s, values::number(0, MAX_DAYS));
    /// How many days an event is kept; 0: for ever.
    retention_events_days: u32 = "retention_events_days", "GATHERING_RETENTION_EVENTS_DAYS", Value("30"),
        "days that events are kept", "0 is for ever",
        |r, s| r.value(s, values::number(0, MAX_DAYS));
    /// How many days an entry of the ledger of a schedule is kept; 0: for ever.
    retention_fires_days: u32 = "retention_fires_days", "GATHERING_RETENTION_FIRES_DAYS", Value("400"),
        "days that the ledgers of schedules are kept", "0 is for ever; an older due time can be backfilled again",
        |r, s| r.value(s, values::number(0, MAX_DAYS));
    /// How many days an entry of the ledger of a hook is kept; 0: for ever.
    retention_deliveries_days: u32 = "retention_deliveries_days", "GATHERING_RETENTION_DELIVERIES_DAYS", Value("30"),
        "days that the calls of hooks are kept", "0 is for ever; an older call that comes again is a new one",
        |r, s| r.value(s, values::number(0, MAX_DAYS));
    /// How many days an audit event is kept; 0: for ever.
    retention_audit_days: u32 = "retention_audit_days", "GATHERING_RETENTION_AUDIT_DAYS", Value("400"),
        "days that audit events are kept", "0 is for ever",
        |r, s| r.value(s, values::number(0, MAX_DAYS));
    /// Of the tier that registers, logs in, refreshes and changes passwords.
    rate_limit_auth: Option<Quota> = "rate_limit_auth", "GATHERING_RATE_LIMIT_AUTH", Value("5/min"),
        "register, log in, refresh, change the password, per network", "`5/min`, `30/s`, `1000/h` or `off`",
        |r, s| r.value(s, values::quota);
    /// Of the tier that changes anything else.
    rate_limit_write: Option<Quota> = "rate_limit_write", "GATHERING_RATE_LIMIT_WRITE", Value("30/s"),
        "other requests that change something, per account or network", "",
        |r, s| r.value(s, values::quota);
    /// Of the tier that reads.
    rate_limit_read: Option<Quota> = "rate_limit_read", "GATHERING_RATE_LIMIT_READ", Value("120/s"),
        "requests that read, per account or network", "",
        |r, s| r.value(s, values::quota);
    /// Of `/health` and `/metrics`.
    rate_limit_health: Option<Quota> = "rate_limit_health", "GATHERING_RATE_LIMIT_HEALTH", Value("off"),
        "`/health` and `/metrics`, per network", "",
        |r, s| r.value(s, values::quota);
    /// How often a client may ask: the four above, or none of them.
    rate_limits: RateLimits = "rate_limits", "GATHERING_RATE_LIMITS", Value("on"),
        "`on` or `off`", "`off` turns all four limits off",
        |r, s| {
            // All five are read in any case, so that every invalid one is reported at once.
            let is_on = r.value(s, values::on_or_off);
            let limits = RateLimits {
                auth: rate_limit_auth?,
                write: rate_limit_write?,
                read: rate_limit_read?,
                health: rate_limit_health?,
            };
            Some(if is_on? { limits } else { RateLimits::OFF })
        };
    /// The largest file of a workspace that the API takes, in bytes.
    max_file_bytes: u64 = "max_file_bytes", "GATHERING_MAX_FILE_BYTES", Value("2147483648"),
        "the largest file of a workspace that the API takes, in bytes", "",
        |r, s| r.value(s, values::number(1, MAX_FILE_BYTES));
    /// How many validated graphs are kept in memory.
    cache_graphs_entries: u64 = "cache_graphs_entries", "GATHERING_CACHE_GRAPHS_ENTRIES", Value("1000"),
        "cached graphs, validated", "",
        |r, s| r.value(s, values::number(1, MAX_ENTRIES));
    /// Of how many projects the latest events are cached.
    cache_events_entries: u64 = "cache_events_entries", "GATHERING_CACHE_EVENTS_ENTRIES", Value("1000"),
        "projects whose latest events are cached, for readers that reconnect", "at most 512 KiB each",
        |r, s| r.value(s, values::number(1, MAX_ENTRIES));
    /// How many revoked access tokens are cached.
    cache_revocations_entries: u64 = "cache_revocations_entries", "GATHERING_CACHE_REVOCATIONS_ENTRIES", Value("10000"),
        "cached revocations of access tokens", "",
        |r, s| r.value(s, values::number(1, MAX_ENTRIES));
    /// How many owners of API keys are cached, for the rate limits.
    cache_key_owners_entries: u64 = "cache_key_owners_entries", "GATHERING_CACHE_KEY_OWNERS_ENTRIES", Value("10000"),
        "cached owners of API keys, for rate limits", "",
        |r, s| r.value(s, values::number(1, MAX_ENTRIES));
    /// How many lists of directories are cached.
    cache_directories_entries: u64 = "cache_directories_entries", "GATHERING_CACHE_DIRECTORIES_ENTRIES", Value("1000"),
        "cached lists of directories", "",
        |r, s| r.value(s, values::number(1, MAX_ENTRIES));
    /// How many open workspaces are cached; each holds one directory handle.
    cache_workspaces_entries: u64 = "cache_workspaces_entries", "GATHERING_CACHE_WORKSPACES_ENTRIES", Value("1000"),
        "cached workspaces, one open directory each", "",
        |r, s| r.value(s, values::number(1, MAX_ENTRIES));
    /// Of how many clients the rate is remembered.
    cache_limiters_entries: u64 = "cache_limiters_entries", "GATHERING_CACHE_LIMITERS_ENTRIES", Value("100000"),
        "clients whose rate is remembered", "",
        |r, s| r.value(s, values::number(1, MAX_ENTRIES));
    /// What is logged, as `tracing_subscriber::EnvFilter` reads it; absent: the command decides.
    log_filter: Option<String> = "log", "GATHERING_LOG",
        Unset("`info`; `warn` for commands other than `serve`", "\"info\""),
        "filter of the log", "such as `info,gathering_server=debug`",
        |r, s| r.optional(s, values::log_filter);
    /// How it is written; absent: the command decides.
    log_format: Option<LogFormat> = "log_format", "GATHERING_LOG_FORMAT",
        Unset("`json`; `pretty` for commands other than `serve`", "\"json\""),
        "`json` or `pretty`", "",
        |r, s| r.optional(s, values::log_format);
    /// Another server that speaks OpenAI's protocol.
    openai_base_url: Option<String> = "openai_base_url", "OPENAI_BASE_URL",
        Unset("OpenAI's own", "\"http://127.0.0.1:11434/v1\""),
        "a server that speaks OpenAI's chat completions", "",
        |r, s| r.optional(s, values::http_url);
    /// The key for it.
    openai_api_key: Option<Secret> = "openai_api_key", "OPENAI_API_KEY", Unset("none", "\"\""),
        "the key for it", "",
        |r, s| r.secret(s, |text| Ok(Secret::from(text)));
}
