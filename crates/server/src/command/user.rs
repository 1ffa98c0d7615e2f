//! `gathering user create`: makes an account, whether registration is open or not.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use gathering_auth::{
    Auth, AuthError, AuthSettings, KeyRing, Origin, PasswordSettings, RegistrationRequest, Role,
    RoleAtCreation,
};
use gathering_domain::Secret;
use gathering_persistence::PgAccountStore;

use crate::config::Config;
use crate::database::Database;

/// No password is longer; more on standard input is a mistake.
const MAX_INPUT_BYTES: u64 = 4096;

/// The arguments of `gathering user create`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CreateUserArgs {
    /// The e-mail address to log in with
    #[arg(long)]
    email: String,
    /// Display name [default: the part of --email before the @]
    #[arg(long)]
    name: Option<String>,
    /// May do everything, in every project
    #[arg(long)]
    admin: bool,
}

/// Creates the account and prints its id.
///
/// # Errors
/// In words for the operator; then no account was created.
pub(crate) async fn create(config: &Config, args: &CreateUserArgs) -> anyhow::Result<ExitCode> {
    let password = tokio::task::spawn_blocking(read_password).await.context("reading the password")??;
    let db = Database::open(config).await?;
    let created = create_in(config, &db, args, password).await;
    db.close().await;
    writeln!(std::io::stdout(), "{}", created?)?;
    Ok(ExitCode::SUCCESS)
}

async fn create_in(
    config: &Config,
    db: &Database,
    args: &CreateUserArgs,
    password: Secret,
) -> anyhow::Result<gathering_domain::UserId> {
    let passwords = PasswordSettings { cost: config.bcrypt_cost, ..PasswordSettings::default() };
    let settings = AuthSettings { passwords, ..AuthSettings::default() };
    let store = Arc::new(PgAccountStore::new(db.pool.clone()));
    // No token is issued here, so any key will do.
    let auth = Auth::new(store, KeyRing::generate()?, settings)?;
    let name = args.name.as_deref().or_else(|| args.email.split('@').next()).unwrap_or_default();
    let request = RegistrationRequest { email: args.email.clone(), name: name.to_owned(), password };
    let role = if args.admin { Role::Admin } else { Role::Member };
    match auth.create_account(request, RoleAtCreation::Given(role), Origin::default()).await {
        Ok(account) => Ok(account.id),
        Err(AuthError::Invalid(problems)) => {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            bail!("the account cannot be created: {}", problems.join("; "))
        }
        Err(error) => Err(error.into()),
    }
}

/// The first line of standard input.
fn read_password() -> anyhow::Result<Secret> {
    let mut input = String::new();
    let mut stdin = std::io::stdin().lock().take(MAX_INPUT_BYTES + 1);
    stdin.read_to_string(&mut input).context("the password on standard input cannot be read")?;
    let password = input.lines().next().unwrap_or_default();
    if password.is_empty() || u64::try_from(input.len()).unwrap_or(u64::MAX) > MAX_INPUT_BYTES {
        bail!("write the password, one line, to standard input");
    }
    Ok(Secret::from(password))
}
