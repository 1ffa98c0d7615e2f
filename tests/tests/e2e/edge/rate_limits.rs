//! Rate limits of one caller, and the answers beyond them.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gathering_e2e::{Client, Database, Metrics, PASSWORD, Reply, Server, wait_until};
use serde_json::json;
use tokio::task::JoinSet;

const LIMIT: Duration = Duration::from_secs(30);

/// A server with limits that a test can meet: `settings` are the last parts of the variables' names, and values.
async fn limited(database: &Database, settings: &[(&str, &str)]) -> Result<Server> {
    Server::start_with(database, |command: &mut Command| {
        command.env("GATHERING_RATE_LIMITS", "on").env("GATHERING_TRUSTED_PROXIES", "127.0.0.0/8");
        for (name, value) in settings {
            command.env(format!("GATHERING_{name}"), value);
        }
    })
    .await
}

/// A number out of a structured header such as `"read";r=4;t=12`.
fn part(header: &str, name: &str) -> Result<u32> {
    let value = header.split(';').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
    Ok(value.with_context(|| format!("no {name} in {header:?}"))?.parse()?)
}

fn check_told(reply: &Reply, tier: &str, quota: u32, window: u32) -> Result<()> {
    let (policy, state) = (reply.header("ratelimit-policy"), reply.header("ratelimit"));
    assert_eq!(policy, format!("\"{tier}\";q={quota};w={window}"), "{:?}", reply.headers);
    assert!(state.starts_with(&format!("\"{tier}\";")), "{state}");
    assert!(part(state, "r")? < quota.max(1) && part(state, "t")? <= window, "{state}");
    Ok(())
}

/// Asks until it is refused; how often it was answered, and the refusal.
async fn until_refused(client: &Client, path: &str, most: usize) -> Result<(usize, Reply)> {
    for n_answered in 0..most {
        let reply = client.get(path).await?;
        if reply.status == 429 {
            return Ok((n_answered, reply));
        }
    }
    anyhow::bail!("{most} requests to {path} were answered")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_often_is_told_when_to_come_back_and_is_answered_then() -> Result<()> {
    let database = Database::empty().await?;
    let server = limited(&database, &[("RATE_LIMIT_READ", "30/min")]).await?;
    let ada = server.client().join("ada@example.org").await?;
    let first = ada.get("/api/v1/auth/me").await?;
    let (quota, window) = (30_u32, 60_u32);
    check_told(&first, "read", quota, window)?;
    let begun = Instant::now();
    let (n_answered, refused) = until_refused(&ada, "/api/v1/auth/me", 200).await?;
    // The first request was one of them; every two seconds one comes back.
    let regained = usize::try_from(begun.elapsed().as_secs() / 2)? + 1;
    assert!((29..=29 + regained).contains(&n_answered), "{n_answered}");
    refused.expect_problem(429, "rate-limited")?;
    check_told(&refused, "read", quota, window)?;
    assert_eq!(part(refused.header("ratelimit"), "r")?, 0);
    let wait = refused.retry_after()?;
    assert!(wait >= Duration::from_secs(1) && wait <= Duration::from_secs(2), "{wait:?}");
    let told = Instant::now();
    wait_until(LIMIT, "the announced time passes", async || {
        if told.elapsed() >= wait { Ok(()) } else { Err("not yet") }
    })
    .await?;
    assert_eq!(ada.get("/api/v1/auth/me").await?.status, 200, "as announced");
    let metrics = Metrics::read(server.client()).await?;
    assert!(metrics.sum("gathering_rate_limited_total", &[("tier", "read")]) >= 1.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_with_the_same_address_have_separate_limits() -> Result<()> {
    let database = Database::empty().await?;
    let quotas =
        [("RATE_LIMIT_READ", "5/min"), ("RATE_LIMIT_WRITE", "5/min"), ("RATE_LIMIT_AUTH", "100/min")];
    let server = limited(&database, &quotas).await?;
    let (ada, bob) =
        (server.client().join("ada@example.org").await?, server.client().join("bob@example.org").await?);
    let key = ada.create_key(&["read"]).await?.0;
    // Whose a key is is known from its first use on.
    assert_eq!(key.get("/api/v1/projects").await?.status, 200);
    let (n_answered, _) = until_refused(&ada, "/api/v1/projects", 20).await?;
    assert_eq!(n_answered, 5);
    assert_eq!(bob.get("/api/v1/projects").await?.status, 200, "another account");
    key.get("/api/v1/projects").await?.expect_problem(429, "rate-limited")?;
    let again = server.client().login("ada@example.org").await?;
    again.get("/api/v1/projects").await?.expect_problem(429, "rate-limited")?;
    let created = ada.post("/api/v1/projects", &json!({"name": "a"})).await?;
    assert_eq!(created.status, 201, "writing is another tier: {}", created.text);
    check_told(&created, "write", 5, 60)?;
    // A caller without credentials is known by the address, and an invalid credential does not change that.
    let here = server.client().from_address("198.51.100.1");
    let mut statuses = Vec::new();
    for n in 0..7 {
        let client = if n % 2 == 0 { here.clone() } else { here.with_token(&format!("grk_{n:043}")) };
        statuses.push(client.get("/api/v1/projects").await?.status);
    }
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429, 429]);
    let there = server.client().from_address("198.51.100.2");
    assert_eq!(there.get("/api/v1/projects").await?.status, 401);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_and_registrations_have_a_tier_of_their_own_and_health_is_never_limited() -> Result<()> {
    let database = Database::empty().await?;
    let quotas = [("RATE_LIMIT_AUTH", "3/min"), ("RATE_LIMIT_READ", "2/min")];
    let server = limited(&database, &quotas).await?;
    let client = server.client().from_address("198.51.100.1");
    let body = json!({"email": "ada@example.org", "name": "Ada", "password": PASSWORD});
    let registered = client.post("/api/v1/auth/register", &body).await?;
    check_told(&registered, "auth", 3, 60)?;
    registered.expect(201)?;
    assert_eq!(client.try_login("ada@example.org", PASSWORD).await?.status, 200);
    let refresh = json!({"refresh_token": "nothing"});
    assert_eq!(client.post("/api/v1/auth/refresh", &refresh).await?.status, 401);
    let refused = client.try_login("ada@example.org", PASSWORD).await?;
    refused.expect_problem(429, "rate-limited")?;
    check_told(&refused, "auth", 3, 60)?;
    assert!(refused.retry_after()? <= Duration::from_secs(20));
    for _ in 0..50 {
        for path in ["/health/live", "/health/ready", "/health", "/metrics"] {
            let reply = client.get(path).await?;
            assert_eq!(reply.status, 200, "{path}: {}", reply.text);
            assert_eq!(reply.header("ratelimit-policy"), "", "{path}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_on_unless_they_are_turned_off() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start_with(&database, |command| {
        command.env_remove("GATHERING_RATE_LIMITS");
    })
    .await?;
    let ada = server.client().join("ada@example.org").await?;
    let me = ada.get("/api/v1/auth/me").await?;
    check_told(&me, "read", 120, 1)?;
    let created = ada.post("/api/v1/projects", &json!({"name": "a"})).await?;
    check_told(&created, "write", 30, 1)?;
    check_told(&server.client().try_login("ada@example.org", PASSWORD).await?, "auth", 5, 60)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_addresses_fills_no_memory() -> Result<()> {
    const BOUND: f64 = 50.0;
    let database = Database::empty().await?;
    let settings = [("RATE_LIMIT_READ", "1000/min"), ("CACHE_LIMITERS_ENTRIES", "50")];
    let server = limited(&database, &settings).await?;
    let mut flood = JoinSet::new();
    for part in 0..8 {
        let client = server.client().clone();
        flood.spawn(async move {
            for n in 0..250 {
                let client = client.from_address(&format!("10.{part}.{}.{}", n / 250, n % 250));
                assert_eq!(client.get("/api/v1/auth/me").await?.status, 401);
            }
            anyhow::Ok(())
        });
    }
    flood.join_all().await.into_iter().collect::<Result<()>>()?;
    let labels = [("cache", "limiters")];
    let metrics = wait_until(LIMIT, "the evictions are done", async || {
        let metrics = Metrics::read(server.client()).await.map_err(|error| error.to_string())?;
        let n_evicted = metrics.sum("gathering_cache_evictions_total", &labels);
        if n_evicted >= 2000.0 - BOUND - 1.0 { Ok(metrics) } else { Err(format!("{n_evicted} evicted")) }
    })
    .await?;
    assert_eq!(metrics.sum("gathering_cache_capacity", &labels), BOUND);
    let n_entries = metrics.sum("gathering_cache_entries", &labels);
    assert!(n_entries > 0.0 && n_entries <= BOUND, "{n_entries}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_is_none_stops_the_start_and_is_named() -> Result<()> {
    let database = Database::empty().await?;
    for (name, value) in [
        ("GATHERING_RATE_LIMITS", "perhaps"),
        ("GATHERING_RATE_LIMIT_READ", "0/s"),
        ("GATHERING_RATE_LIMIT_AUTH", "five"),
        ("GATHERING_RATE_LIMIT_WRITE", "5/fortnight"),
        ("GATHERING_CACHE_LIMITERS_ENTRIES", "0"),
    ] {
        let mut command = database.command(&["serve"])?;
        command.env("GATHERING_BIND", "127.0.0.1:0").env(name, value);
        let ended = gathering_e2e::Process::start(&mut command)?.end(LIMIT).await?;
        assert!(ended.code.is_some_and(|code| code != 0), "{name}={value}: {ended:?}");
        assert!(ended.stderr.contains(name), "{name}={value}: {ended:?}");
    }
    Ok(())
}
