//! A server refuses connections that cannot keep what its guarantees need, and says what to set.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use gathering_e2e::{Database, Pooler, Process};

const LIMIT: Duration = Duration::from_secs(60);

/// What a command with these addresses writes when it refuses to start.
async fn refusal(
    database: &Database,
    arguments: &[&str],
    url: &str,
    direct_url: Option<&str>,
) -> Result<String> {
    let mut command = database.command(arguments)?;
    command.env("GATHERING_BIND", "127.0.0.1:0").env("DATABASE_URL", url);
    if let Some(direct_url) = direct_url {
        command.env("DATABASE_DIRECT_URL", direct_url);
    }
    let ended = Process::start(&mut command)?.end(LIMIT).await?;
    ensure!(ended.code.is_some_and(|code| code != 0), "{ended:?}");
    Ok(ended.stderr)
}

/// Checks that a refused start has changed nothing, and left no lock behind.
async fn check_untouched(database: &Database) -> Result<()> {
    let session = database.session().await?;
    let tables = "SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace";
    let n_tables: i64 = session.query_one(tables, &[]).await?.get(0);
    ensure!(n_tables == 0, "{n_tables} tables and indexes");
    Ok(())
}

async fn check_statements_are_missed(program: &Path, settings: &str) -> Result<()> {
    let database = Database::empty().await?;
    let pooler = Pooler::start(program, &database, settings).await?;
    let said = refusal(&database, &["serve"], pooler.url(), Some(&database.url()?)).await?;
    for word in ["1.21", "max_prepared_statements", "DATABASE_URL"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    check_untouched(&database).await
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_transaction_pooler_alone_no_command_starts_and_each_says_which_setting_is_missing()
-> Result<()> {
    let Some(program) = Pooler::find(None)? else { return Ok(()) };
    let database = Database::empty().await?;
    let pooler = Pooler::start(&program, &database, "pool_mode = transaction").await?;
    std::fs::write(database.directory().join("p.yaml"), "nodes: [{id: begin, type: trigger}]")?;
    for arguments in [vec!["serve"], vec!["migrate"], vec!["run", "p.yaml"]] {
        let said = refusal(&database, &arguments, pooler.url(), None).await?;
        for word in ["DATABASE_DIRECT_URL", "pooler"] {
            assert!(said.contains(word), "{arguments:?}: {word}: {said}");
        }
    }
    check_untouched(&database).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_pgbouncer_is_refused_with_the_version_that_is_needed() -> Result<()> {
    let Some(program) = Pooler::find(Some(false))? else { return Ok(()) };
    check_statements_are_missed(&program, "pool_mode = transaction").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pgbouncer_that_keeps_no_prepared_statements_is_refused_with_the_setting_that_is_needed()
-> Result<()> {
    let Some(program) = Pooler::find(Some(true))? else { return Ok(()) };
    check_statements_are_missed(&program, "pool_mode = transaction\nmax_prepared_statements = 0").await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_gets_no_connection_of_a_session_pooler_says_so_and_ends() -> Result<()> {
    let Some(program) = Pooler::find(None)? else { return Ok(()) };
    let database = Database::empty().await?;
    let pooler = Pooler::start(&program, &database, "pool_mode = session\ndefault_pool_size = 1").await?;
    let (holder, connection) = tokio_postgres::connect(pooler.url(), tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    holder.batch_execute("SELECT").await?;
    let said = refusal(&database, &["serve"], pooler.url(), None).await?;
    for word in ["waiting for 127.0.0.1", "no server connection free", "did not answer within"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    drop(holder);
    connection.await??;
    check_untouched(&database).await
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_lead_to_different_schemas_are_refused() -> Result<()> {
    let (database, other) = (Database::empty().await?, Database::empty().await?);
    let said = refusal(&database, &["serve"], &database.url()?, Some(&other.url()?)).await?;
    for word in ["DATABASE_URL and DATABASE_DIRECT_URL", "schema"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    check_untouched(&database).await
}
