//! The command line: which commands there are, and how their ends become exit codes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::command::run::RunArgs;
use crate::command::user::CreateUserArgs;
use crate::command::validate::ValidateArgs;
use crate::command::{migrate, openapi, run, serve, user, validate};
use crate::config::{self, Config, LogFormat};
use crate::logging;

/// The command line of the `gathering` binary.
#[derive(Debug, Parser)]
#[command(name = "gathering", version, about = ABOUT, disable_help_subcommand = true)]
pub struct Cli {
    /// A TOML file with settings; a setting has the name of its variable in lower case, without GATHERING_
    #[arg(long, global = true, env = "GATHERING_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server, on an embedded database unless DATABASE_URL names one
    #[command(after_help = SERVE_HELP)]
    Serve,
    /// Run one pipeline file here and now and print its output
    Run(RunArgs),
    /// Check a pipeline file and print its order, or everything that is wrong with it
    Validate(ValidateArgs),
    /// Bring the database to this version's schema
    Migrate,
    /// Manage accounts
    User(UserCommand),
    /// Print the OpenAPI document of the HTTP API
    Openapi,
}

#[derive(Debug, Args)]
struct UserCommand {
    #[command(subcommand)]
    command: UserSubcommand,
}

#[derive(Debug, Subcommand)]
enum UserSubcommand {
    /// Create an account; its password is read from standard input
    Create(CreateUserArgs),
}

const ABOUT: &str = "Runs teams of AI agents as durable workflows on PostgreSQL";

pub(crate) const SERVE_HELP: &str = "\
Settings come from the configuration file and the environment, the latter winning:
  DATABASE_URL                      PostgreSQL; unset: an embedded one in the data directory
  DATABASE_DIRECT_URL               the same database, not through a transaction pooler
  GATHERING_BIND                    address:port [127.0.0.1:8080]; port 0 takes a free one and logs it
  GATHERING_DATA_DIR                embedded database, workspaces, keys [.gathering]
  GATHERING_WORKSPACE_ROOT          the roots of the projects' files [<data dir>/workspaces]
  GATHERING_TOKEN_KEY               PASERK or base64 key, the same on all instances; unset: made once into the data dir
  GATHERING_BCRYPT_COST             [12]
  GATHERING_REGISTRATION            open or closed [open]
  GATHERING_TRUSTED_PROXIES         networks whose X-Forwarded-For is believed [none]
  GATHERING_OUTBOUND_ALLOW          private networks that tools and call_api may reach [none]
  GATHERING_SHUTDOWN_DRAIN_SECONDS  how long the listener stays open after SIGTERM [3]
  GATHERING_SHUTDOWN_GRACE_SECONDS  how long requests and runs may then take to finish [30]
  GATHERING_MAX_CONCURRENT_RUNS     [256]
  GATHERING_DB_POOL_SIZE            [16]
  GATHERING_MAX_RECOVERIES          how often a run is recovered before it fails [20]
  GATHERING_STUCK_INSTANCE_SECONDS  [60]
  GATHERING_RATE_LIMITS             on or off [on]
  GATHERING_RATE_LIMIT_AUTH         register, log in, refresh, change the password, per network: 5/min, 30/s, off [5/min]
  GATHERING_RATE_LIMIT_WRITE        whatever else changes something, per account or network [30/s]
  GATHERING_RATE_LIMIT_READ         whatever reads, per account or network [120/s]
  GATHERING_RATE_LIMIT_HEALTH       /health and /metrics, per network [off]
  GATHERING_MAX_FILE_BYTES          the largest file that a workspace takes [2147483648]
  GATHERING_CACHE_GRAPHS_ENTRIES    validated graphs in memory [1000]
  GATHERING_CACHE_REVOCATIONS_ENTRIES  access tokens known as revoked [10000]
  GATHERING_CACHE_KEY_OWNERS_ENTRIES   API keys whose owner is known [10000]
  GATHERING_CACHE_DIRECTORIES_ENTRIES  lists of directories [1000]
  GATHERING_CACHE_WORKSPACES_ENTRIES   open workspaces, one directory handle each [1000]
  GATHERING_CACHE_LIMITERS_ENTRIES     clients whose rate is known [100000]
  GATHERING_LOG                     filter [info]
  GATHERING_LOG_FORMAT              json or pretty [json]
  OPENAI_BASE_URL, OPENAI_API_KEY   the openai provider";

impl Cli {
    /// Does what was asked for, and answers with the process's exit code.
    ///
    /// # Errors
    /// What went wrong, in words for the operator.
    pub async fn execute(self) -> anyhow::Result<ExitCode> {
        // Says what this program can do, whatever the settings of this machine are.
        if matches!(self.command, Command::Openapi) {
            return openapi::print();
        }
        let config = Config::load(self.config.as_deref())?;
        match self.command {
            Command::Serve => logging::start(&config, "info", LogFormat::Json)?,
            // That a killed process left a run behind is what its `--resume` is for, and no news there.
            Command::Run(_) => {
                logging::start(&config, "warn,gathering_persistence::run_store=error", LogFormat::Pretty)?;
            }
            _ => logging::start(&config, "warn", LogFormat::Pretty)?,
        }
        warn_of_unknown_variables();
        match self.command {
            Command::Serve => Box::pin(serve::serve(&config)).await,
            Command::Run(args) => Box::pin(run::run(&config, &args)).await,
            Command::Validate(args) => validate::validate(&config, &args).await,
            Command::Migrate => migrate::migrate(&config).await,
            Command::User(UserCommand { command: UserSubcommand::Create(args) }) => {
                user::create(&config, &args).await
            }
            Command::Openapi => openapi::print(),
        }
    }
}

/// A mistyped variable would otherwise do nothing, unseen.
fn warn_of_unknown_variables() {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in config::unknown_variables(names) {
        tracing::warn!(variable = name, "{name} is set, but there is no such setting");
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_and_option_has_its_help() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        let mut cli = Cli::command();
        cli.build();
        cli.clone().debug_assert();
        check(&cli);
    }
}
