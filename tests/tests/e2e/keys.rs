//! API keys, and the key that tokens are sealed with.

use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{SecondsFormat, TimeDelta, Utc};
use gathering_e2e::{Database, Server, wait_until};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);
const KEYS: &str = "/api/v1/auth/api-keys";
const ME: &str = "/api/v1/auth/me";

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_shown_once_and_kept_as_a_digest() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let body = json!({"name": "for the backup", "scopes": ["read", "write"]});
    let created = ada.post(KEYS, &body).await?.expect(201)?;
    let secret = created["secret"].as_str().context("no secret")?.to_owned();
    assert!(secret.starts_with("grk_") && secret.len() == 47, "{secret}");
    assert_eq!((&created["expires_at"], &created["last_used_at"]), (&Value::Null, &Value::Null));
    let key = ada.with_token(&secret);
    assert_eq!(key.get(ME).await?.status, 200);
    for client in [&ada, &key] {
        let list = client.get(KEYS).await?.expect(200)?;
        let mut item = list["items"][0].clone();
        assert_eq!(list["next_cursor"], Value::Null);
        assert!(item["last_used_at"].take().is_string(), "it was used: {list}");
        let mut expected = created.clone();
        expected.as_object_mut().context("no object")?.remove("secret");
        assert_eq!(item, expected);
    }
    let rows = database.rows().await?["api_keys"].join("\n");
    assert!(!rows.contains(&secret) && rows.contains("for the backup"), "{rows}");
    let digest = blake3::hash(secret.as_bytes()).to_hex();
    assert!(rows.contains(digest.as_str()), "only its BLAKE3 digest is kept: {rows}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_refused_by_the_next_request_on_every_instance() -> Result<()> {
    let database = Database::empty().await?;
    let (one, other) = (Server::start(&database).await?, Server::start(&database).await?);
    let ada = one.client().join("ada@example.org").await?;
    let (key, id) = ada.create_key(&["read"]).await?;
    let there = other.client().with_token(key.token().context("no token")?);
    assert_eq!((key.get(ME).await?.status, there.get(ME).await?.status), (200, 200));
    let path = format!("{KEYS}/{id}");
    let bob = one.client().join("bob@example.org").await?;
    bob.delete(&path).await?.expect_problem(404, "not-found")?;
    assert_eq!(there.get(ME).await?.status, 200, "another account cannot revoke it");
    ada.delete(&path).await?.expect(204)?;
    for client in [&there, &key] {
        client.get(ME).await?.expect_problem(401, "not-authenticated")?;
    }
    ada.delete(&path).await?.expect_problem(404, "not-found")?;
    assert_eq!(ada.get(KEYS).await?.expect(200)?["items"], json!([]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_refused_once_it_has_expired() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let body = |seconds: i64| {
        let at = Utc::now() + TimeDelta::seconds(seconds);
        json!({"name": "short", "scopes": ["read"], "expires_at": at.to_rfc3339_opts(SecondsFormat::Millis, true)})
    };
    let past = ada.post(KEYS, &body(-1)).await?;
    past.expect_problem(422, "invalid")?;
    assert_eq!(past.pointers(), ["/expires_at"]);
    let created = ada.post(KEYS, &body(3)).await?.expect(201)?;
    let key = ada.with_token(created["secret"].as_str().context("no secret")?);
    assert_eq!(key.get(ME).await?.status, 200);
    wait_until(LIMIT, "the key expires", async || match key.get(ME).await {
        Ok(reply) if reply.status == 401 => Ok(()),
        Ok(reply) => Err(reply.text),
        Err(error) => Err(error.to_string()),
    })
    .await?;
    let expires_at: chrono::DateTime<Utc> = created["expires_at"].as_str().context("no time")?.parse()?;
    assert!(Utc::now() >= expires_at, "not before its time");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_key_is_not_made() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    for (body, pointer) in [
        (json!({"name": "a", "scopes": []}), "/scopes"),
        (json!({"name": "a", "scopes": ["read", "fly"]}), "/scopes/1"),
        (json!({"name": "a", "scopes": ["read", "read"]}), "/scopes/1"),
        (json!({"name": "", "scopes": ["read"]}), "/name"),
        (json!({"scopes": ["read"]}), "/name"),
        (json!({"name": "a"}), "/scopes"),
        (json!({"name": "a", "scopes": "read"}), "/scopes"),
        (json!({"name": "a", "scopes": ["read"], "expires_at": "tomorrow"}), "/expires_at"),
        (json!({"name": "a", "scopes": ["read"], "user_id": "me"}), "/user_id"),
    ] {
        let refused = ada.post(KEYS, &body).await?;
        refused.expect_problem(422, "invalid")?;
        assert_eq!(refused.pointers(), [pointer], "{body}: {}", refused.text);
    }
    assert!(database.rows().await?["api_keys"].is_empty());
    for _ in 0..100 {
        ada.create_key(&["read"]).await?;
    }
    let one_more = ada.post(KEYS, &json!({"name": "a", "scopes": ["read"]})).await?;
    one_more.expect_problem(409, "conflict")?;
    let first = ada.get(KEYS).await?.expect(200)?;
    assert_eq!(first["items"].as_array().map(Vec::len), Some(50), "a page, as of every list");
    let cursor = first["next_cursor"].as_str().context("no cursor")?;
    let second = ada.get(&format!("{KEYS}?cursor={cursor}")).await?.expect(200)?;
    assert_eq!((second["items"].as_array().map(Vec::len), &second["next_cursor"]), (Some(50), &Value::Null));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_does_nothing_to_the_account_itself() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let (key, id) = ada.create_key(&["admin"]).await?;
    let change = json!({"current_password": "correct horse battery staple", "new_password": "another horse"});
    key.put("/api/v1/auth/password", &change).await?.expect_problem(403, "forbidden")?;
    key.post(KEYS, &json!({"name": "b", "scopes": ["read"]})).await?.expect_problem(403, "forbidden")?;
    key.delete(&format!("{KEYS}/{id}")).await?.expect_problem(403, "forbidden")?;
    key.post("/api/v1/auth/logout", &json!({})).await?.expect_problem(403, "forbidden")?;
    assert_eq!((key.get(ME).await?.status, ada.get(ME).await?.status), (200, 200), "nothing has changed");
    for nonsense in
        ["grk_", "grk_AAAA", &format!("grk_{}", "A".repeat(43)), &format!("grk_{}", "/".repeat(43))]
    {
        server.client().with_token(nonsense).get(ME).await?.expect_problem(401, "not-authenticated")?;
    }
    Ok(())
}

fn token_key(name: &str) -> String {
    format!("k4.local.{}", URL_SAFE_NO_PAD.encode(blake3::hash(name.as_bytes()).as_bytes()))
}

async fn start(database: &Database, ring: &str) -> Result<Server> {
    Server::start_with(database, |command| {
        command.env("GATHERING_TOKEN_KEY", ring);
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_key_is_replaced_without_logging_anybody_out() -> Result<()> {
    let database = Database::empty().await?;
    let (old, new) = (token_key("old"), token_key("new"));
    let mut server = start(&database, &old).await?;
    server.client().register("ada@example.org").await?;
    let (ada, refresh_token) = server.client().session("ada@example.org").await?;
    let old_token = ada.token().context("no token")?.to_owned();
    server.kill()?;

    server = start(&database, &format!("{new},{old}")).await?;
    assert_eq!(server.client().with_token(&old_token).get(ME).await?.status, 200, "the old key still opens");
    let spend = json!({"refresh_token": refresh_token});
    let refreshed = server.client().post("/api/v1/auth/refresh", &spend).await?.expect(200)?;
    let new_token = refreshed["access_token"].as_str().context("no token")?.to_owned();
    server.kill()?;

    server = start(&database, &new).await?;
    assert_eq!(server.client().with_token(&new_token).get(ME).await?.status, 200, "the new key seals");
    let gone = server.client().with_token(&old_token).get(ME).await?;
    gone.expect_problem(401, "not-authenticated")?;
    let next = json!({"refresh_token": refreshed["refresh_token"]});
    server.client().post("/api/v1/auth/refresh", &next).await?.expect(200)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_key_beside_a_shared_database_logs_that_other_hosts_need_it() -> Result<()> {
    let database = Database::empty().await?;
    let is_told = |server: &Server| {
        let log = server.log();
        log.lines().any(|line| line.contains("WARN") && line.contains("the same GATHERING_TOKEN_KEY"))
    };
    let mut first = Server::start(&database).await?;
    assert!(is_told(&first), "{}", first.log());
    first.stop(LIMIT).await?;
    assert!(!is_told(&Server::start(&database).await?), "the key was there");
    Ok(())
}
