//! `gathering doctor`: what it says about a machine that is well, and about one that is not.

use std::time::Duration;

use anyhow::{Context, Result};
use gathering_e2e::{Database, Process, Server};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// The exit code, and the status and message of each check.
async fn doctor(
    database: &Database,
    variables: &[(&str, &str)],
) -> Result<(Option<i32>, Vec<(String, String, String)>)> {
    let mut command = database.command(&["doctor", "--json"])?;
    let ended = Process::start(command.envs(variables.iter().copied()))?.end(LIMIT).await?;
    let report: Value = serde_json::from_str(&ended.stdout).with_context(|| format!("{ended:?}"))?;
    let text = |check: &Value, field: &str| check[field].as_str().unwrap_or_default().to_owned();
    let checks = report["checks"].as_array().context("no checks")?;
    let checks =
        checks.iter().map(|check| (text(check, "name"), text(check, "status"), text(check, "message")));
    Ok((ended.code, checks.collect()))
}

fn statuses(checks: &[(String, String, String)]) -> Vec<(&str, &str)> {
    checks.iter().map(|(name, status, _)| (&**name, &**status)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_examined_before_and_after_its_migrations_and_changed_by_neither() -> Result<()> {
    let database = Database::empty().await?;
    let (code, checks) = doctor(&database, &[]).await?;
    let expected = [("settings", "ok"), ("database", "ok"), ("migrations", "warn"), ("clocks", "ok")];
    // That of the time zones depends on the day.
    assert_eq!((code, &statuses(&checks)[1..]), (Some(0), &expected[..]), "{checks:?}");
    assert!(checks[0].2.contains('('), "the source of the time zones: {checks:?}");
    let session = database.session().await?;
    let sql = "SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace";
    assert_eq!(session.query_one(sql, &[]).await?.get::<_, i64>(0), 0, "nothing was made");

    let mut server = Server::start(&database).await?;
    let mut plain = database.command(&["doctor"])?;
    let ended = Process::start(&mut plain)?.end(LIMIT).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 5, "{ended:?}");
    assert!(lines[3].starts_with("ok    migrations: all are applied"), "{ended:?}");
    server.stop(LIMIT).await?;
    session
        .execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('99990101000001')", &[])
        .await?;
    let (code, checks) = doctor(&database, &[("GATHERING_MAX_CONCURENT_RUNS", "1")]).await?;
    let expected = [("settings", "warn"), ("database", "ok"), ("migrations", "fail"), ("clocks", "ok")];
    assert_eq!((code, &statuses(&checks)[1..]), (Some(1), &expected[..]), "{checks:?}");
    assert!(checks[1].2.contains("GATHERING_MAX_CONCURENT_RUNS is set"), "{checks:?}");
    assert!(checks[3].2.contains("99990101000001") && checks[3].2.contains("upgrade"), "{checks:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_without_secrets() -> Result<()> {
    let database = Database::empty().await?;
    let url = "postgres://gathering:hunter2-secret@127.0.0.1:1/gathering";
    let (code, checks) = doctor(&database, &[("DATABASE_URL", url)]).await?;
    assert_eq!((code, &statuses(&checks)[1..]), (Some(1), &[("settings", "ok"), ("database", "fail")][..]));
    let mut wrong = database.command(&["doctor"])?;
    wrong
        .env("DATABASE_URL", "hunter2-secret")
        .env("GATHERING_BCRYPT_COST", "99")
        .env("OPENAI_API_KEY", "hunter2-secret");
    let ended = Process::start(&mut wrong)?.end(LIMIT).await?;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stdout.contains("fail  settings: ") && ended.stdout.contains("GATHERING_BCRYPT_COST"),
        "{ended:?}"
    );
    let all = format!("{checks:?}{ended:?}");
    assert!(!all.contains("hunter2"), "{all}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_database_is_not_made_for_it_and_left_to_its_server() -> Result<()> {
    let database = Database::embedded()?;
    let (code, checks) = doctor(&database, &[]).await?;
    assert_eq!((code, statuses(&checks).last()), (Some(0), Some(&("database", "ok"))), "{checks:?}");
    assert!(!database.data_dir().exists());
    let server = Server::start(&database).await?;
    let (code, checks) = doctor(&database, &[]).await?;
    assert_eq!((code, statuses(&checks).last()), (Some(0), Some(&("database", "warn"))), "{checks:?}");
    assert!(checks.iter().any(|check| check.2.contains("is in use by")), "{checks:?}");
    server.client().get("/health/ready").await?.expect(200).map(drop)
}
