//! The schema at start: the first process migrates it, and a schema newer than the program is refused.

use std::time::Duration;

use anyhow::Result;
use gathering_e2e::{Database, Process, Server, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_is_refused_with_what_to_do_and_left_as_it_is() -> Result<()> {
    let database = Database::empty().await?;
    let migrated = Process::start(&mut database.command(&["migrate"])?)?.end(LIMIT).await?;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    let session = database.session().await?;
    session
        .execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('99990101000001')", &[])
        .await?;
    let file = database.directory().join("p.yaml");
    std::fs::write(file, "nodes: [{id: begin, type: trigger}]")?;
    for arguments in [vec!["serve"], vec!["migrate"], vec!["run", "p.yaml"]] {
        let mut command = database.command(&arguments)?;
        let ended = Process::start(command.env("GATHERING_BIND", "127.0.0.1:0"))?.end(LIMIT).await?;
        assert!(ended.code.is_some_and(|code| code != 0), "{arguments:?}: {ended:?}");
        for word in ["99990101000001", "upgrade"] {
            assert!(ended.stderr.contains(word), "{arguments:?}: {word} in {}", ended.stderr);
        }
    }
    let n_instances: i64 = session.query_one("SELECT count(*) FROM instances", &[]).await?.get(0);
    assert_eq!(n_instances, 0, "no instance registered");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_that_start_at_once_on_an_empty_database_both_come_up() -> Result<()> {
    let database = Database::empty().await?;
    let (one, other) = tokio::join!(Server::start(&database), Server::start(&database));
    let (one, other) = (one?, other?);
    one.client().register("ada@example.org").await?;
    let as_ada = other.client().login("ada@example.org").await?;
    assert_eq!(as_ada.get("/api/v1/auth/me").await?.status, 200);
    let as_ada = one.client().login("ada@example.org").await?;
    assert_eq!(as_ada.get("/api/v1/auth/me").await?.body["role"], "admin");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_waits_for_the_migration_of_another_says_for_whom() -> Result<()> {
    let database = Database::empty().await?;
    let start = || -> Result<Process> {
        Process::start(database.command(&["serve"])?.env("GATHERING_BIND", "127.0.0.1:0"))
    };
    // The first one to migrate waits for the name of this table, and the second one for the first.
    let session = database.session().await?;
    session.batch_execute("BEGIN; CREATE TABLE users ()").await?;
    let (one, other) = (start()?, start()?);
    let said = wait_until(LIMIT, "one of them says for whom it waits", async || {
        let logs = [one.stderr(), other.stderr()];
        let line = logs.iter().flat_map(|log| log.lines()).find(|line| line.contains("migration lock"));
        line.map(str::to_owned).ok_or_else(|| logs.join("\n"))
    })
    .await?;
    assert!(said.contains("(gathering, from "), "{said}");
    session.batch_execute("ROLLBACK").await?;
    let (one, other) = tokio::join!(Server::started(one), Server::started(other));
    one?.client().register("ada@example.org").await?;
    other?.client().login("ada@example.org").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_one_server_holds_on_the_other() -> Result<()> {
    let database = Database::empty().await?;
    let (one, other) = (Server::start(&database).await?, Server::start(&database).await?);
    let token = one.client().join("ada@example.org").await?;
    let token = token.token().unwrap_or_default().to_owned();
    let on_the_other = other.client().with_token(&token);
    assert_eq!(on_the_other.get("/api/v1/auth/me").await?.status, 200);
    one.client().with_token(&token).post("/api/v1/auth/logout", &serde_json::json!({})).await?.expect(204)?;
    assert_eq!(on_the_other.get("/api/v1/auth/me").await?.status, 401, "a logout holds everywhere at once");
    Ok(())
}
