//! Events posted in batches, beside bare inserts of as many rows.

use std::time::Instant;

use anyhow::{Result, ensure};
use gathering_e2e::Client;
use serde_json::{Value, json};

use crate::start;
use crate::table::{Figure, Report};

const BATCH: usize = 500;
const N_CLIENTS: usize = 4;

pub(crate) async fn measure(n_events: usize, report: &mut Report) -> Result<()> {
    let (database, _server, owner) = start().await?;
    let n_batches = (n_events / BATCH).div_ceil(N_CLIENTS);
    post(&owner, 1).await?;
    let began = Instant::now();
    let posting: Vec<_> = (0..N_CLIENTS)
        .map(|_| {
            let owner = owner.clone();
            tokio::spawn(async move { post(&owner, n_batches).await })
        })
        .collect();
    for one in posting {
        one.await??;
    }
    let n_posted = (n_batches * BATCH * N_CLIENTS) as f64;
    let rate = n_posted / began.elapsed().as_secs_f64();

    let session = database.session().await?;
    session.batch_execute("CREATE TABLE bare (LIKE events INCLUDING ALL)").await?;
    let sql = "INSERT INTO bare (type, data) SELECT 'order.paid', data FROM unnest($1::text[]::json[]) AS new (data)";
    let insert = session.prepare(sql).await?;
    let rows: Vec<String> = (0..BATCH).map(|number| data(number).to_string()).collect();
    let began = Instant::now();
    for _ in 0..n_batches {
        ensure!(session.execute(&insert, &[&rows]).await? == BATCH as u64, "a row is missing");
    }
    let bare = (n_batches * BATCH) as f64 / began.elapsed().as_secs_f64();
    report.add(
        format!("events posted in batches of {BATCH} by {N_CLIENTS} clients"),
        Figure::PerSecond(rate),
        ("bare inserts of as many rows, one after the other", Figure::PerSecond(bare)),
    );
    Ok(())
}

fn data(number: usize) -> Value {
    json!({"n": number, "customer": "Ada", "items": ["one", "two"], "total": 12.5})
}

async fn post(client: &Client, n_batches: usize) -> Result<()> {
    let events: Vec<Value> =
        (0..BATCH).map(|number| json!({"type": "order.paid", "data": data(number)})).collect();
    let body = json!({ "events": events });
    for _ in 0..n_batches {
        client.post("/api/v1/events", &body).await?.expect(201)?;
    }
    Ok(())
}
