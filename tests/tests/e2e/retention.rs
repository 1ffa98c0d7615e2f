//! Retention: each kind of data leaves by its own setting.

use std::time::Duration;

use anyhow::Result;
use gathering_e2e::{Database, Server, wait_until};
use tokio_postgres::Client as Session;

const LIMIT: Duration = Duration::from_secs(30);

/// An event and an audit event of each of these ages in days, and two blobs to which nothing refers.
const OLD_DATA: &str = "
    INSERT INTO events (type, subject, at)
        SELECT 'test', gen_random_uuid(), now() - days * interval '1 day' FROM unnest(ARRAY[10, 40, 80]) AS days;
    INSERT INTO audit_events (id, type, at)
        SELECT gen_random_uuid(), 'logged_out', now() - days * interval '1 day' FROM unnest(ARRAY[10, 40, 80]) AS days;
    INSERT INTO blobs (digest, content, referenced_at)
        SELECT sha256(hours::text::bytea), 'x', now() - hours * interval '1 hour' FROM unnest(ARRAY[1, 25]) AS hours";

/// The ages of what is left: events and audit events in days, blobs in hours.
async fn left(session: &Session) -> Result<[Vec<i32>; 3]> {
    let ages = async |table: &str, at: &str, unit: i32| {
        let sql = format!(
            "SELECT floor(extract(epoch FROM now() - {at}) / {unit})::int FROM {table}
             WHERE {at} < now() - interval '30 minutes' ORDER BY 1"
        );
        anyhow::Ok(session.query(&sql, &[]).await?.iter().map(|row| row.get(0)).collect())
    };
    Ok([
        ages("events", "at", 86_400).await?,
        ages("audit_events", "at", 86_400).await?,
        ages("blobs", "referenced_at", 3600).await?,
    ])
}

/// Runs a server with these limits until so much is left.
async fn keeps(
    database: &Database,
    (events_days, audit_days): (&str, &str),
    expected: [Vec<i32>; 3],
) -> Result<()> {
    let session = database.session().await?;
    let mut server = Server::start_with(database, |command| {
        command
            .env("GATHERING_RETENTION_EVENTS_DAYS", events_days)
            .env("GATHERING_RETENTION_AUDIT_DAYS", audit_days);
    })
    .await?;
    wait_until(LIMIT, "retention has deleted what is old", async || {
        let left = left(&session).await.map_err(|error| format!("{error:#}"))?;
        if left == expected { Ok(()) } else { Err(format!("{left:?} instead of {expected:?}")) }
    })
    .await?;
    server.stop(LIMIT).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_audit_events_leave_by_their_own_limits_and_blobs_when_nothing_refers_to_them()
-> Result<()> {
    let database = Database::empty().await?;
    Server::start(&database).await?.stop(LIMIT).await?;
    database.session().await?.batch_execute(OLD_DATA).await?;
    keeps(&database, ("60", "20"), [vec![10, 40], vec![10], vec![1]]).await?;
    keeps(&database, ("20", "0"), [vec![10], vec![10], vec![1]]).await
}
