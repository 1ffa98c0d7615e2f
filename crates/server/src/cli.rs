//! The command line: the commands, and their exit codes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::command::doctor::DoctorArgs;
use crate::command::mcp::McpArgs;
use crate::command::run::RunArgs;
use crate::command::user::CreateUserArgs;
use crate::command::validate::ValidateArgs;
use crate::command::{doctor, mcp, migrate, openapi, run, serve, user, validate};
use crate::config::{self, Config, LogFormat};
use crate::logging;

/// The command line of the `gathering` binary.
#[derive(Debug, Parser)]
#[command(name = "gathering", version, about = ABOUT, disable_help_subcommand = true)]
pub struct Cli {
    /// TOML file with settings, named as their variables but in lower case and without GATHERING_
    #[arg(long, global = true, env = "GATHERING_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server, on an embedded database unless DATABASE_URL names one
    #[command(after_help = config::help())]
    Serve,
    /// Run a pipeline file in this process and print its output
    Run(RunArgs),
    /// Serve an MCP client on standard input and output
    Mcp(McpArgs),
    /// Check a pipeline file and print its order, or every problem in it
    Validate(ValidateArgs),
    /// Look at what a server depends on: settings, time zones, database; say what to do
    Doctor(DoctorArgs),
    /// Migrate the database to this version's schema
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

const ABOUT: &str = "Run AI agents and scripts as durable pipelines on PostgreSQL";

impl Cli {
    /// Executes the command, and answers with the process's exit code.
    ///
    /// # Errors
    /// The failure, in words for the operator.
    pub async fn execute(self) -> anyhow::Result<ExitCode> {
        // Depends on no setting of this machine.
        if matches!(self.command, Command::Openapi) {
            return openapi::print();
        }
        // Invalid settings are among what it tells.
        if let Command::Doctor(args) = &self.command {
            return doctor::examine(self.config.as_deref(), args).await;
        }
        let config = Config::load(self.config.as_deref())?;
        match self.command {
            Command::Serve => logging::start(&config, "info", LogFormat::Json)?,
            // `--resume` exists for runs that a killed process left behind: finding one is nothing to report.
            Command::Run(_) | Command::Mcp(_) => {
                logging::start(&config, "warn,gathering_persistence::run_store=error", LogFormat::Pretty)?;
            }
            _ => logging::start(&config, "warn", LogFormat::Pretty)?,
        }
        warn_of_unknown_variables(&config);
        match self.command {
            Command::Serve => Box::pin(serve::serve(&config)).await,
            Command::Run(args) => Box::pin(run::run(&config, &args)).await,
            Command::Mcp(args) => Box::pin(mcp::serve(&config, &args)).await,
            Command::Validate(args) => validate::validate(&config, &args).await,
            Command::Migrate => migrate::migrate(&config).await,
            Command::User(UserCommand { command: UserSubcommand::Create(args) }) => {
                user::create(&config, &args).await
            }
            // Both were executed before the settings were read.
            Command::Openapi => openapi::print(),
            Command::Doctor(args) => doctor::examine(self.config.as_deref(), &args).await,
        }
    }
}

/// A mistyped variable would otherwise have no effect, unnoticed.
fn warn_of_unknown_variables(config: &Config) {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in config::unknown_variables(names, config.secrets_env_prefix.as_deref()) {
        tracing::warn!(variable = name, "{name} is set, but it is not a setting");
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
