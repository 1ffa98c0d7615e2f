//! Secrets stay where they belong, also when things go wrong.

use anyhow::{Context, Result};
use gathering_e2e::{
    Client, Database, PASSWORD, Process, Raw, Reply, Server, find_secret, known_secrets, stored_forms,
};
use reqwest::Method;
use serde_json::{Value, json};

/// Everything that our crates have to say.
const EVERYTHING: &str = "info,gathering_server=trace,gathering_edge=trace,gathering_persistence=trace,\
                          gathering_control=trace,gathering_nodes=trace,gathering_auth=trace,\
                          gathering_cache=trace,gathering_tools=trace,gathering_dag_engine=trace,\
                          gathering_agents=trace,actix_web=debug,actix_http=debug,tokio_postgres=debug";

const TOKEN_KEY: &str = "k4.local.AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

/// A body that cannot be read, with a secret in it, in each way in which it can be unreadable.
fn unreadable(secret: &str) -> Vec<(&'static str, String)> {
    vec![
        ("application/json", format!(r#"{{"email": "ada@example.org", "password": "{secret}""#)),
        ("application/json", format!(r#"{{"email": "ada@example.org", "password": "{secret}", "more": 1}}"#)),
        ("application/json", format!(r#"{{"email": "ada@example.org", "password": ["{secret}"]}}"#)),
        ("application/json", format!(r#"{{"email": "{secret}", "password": 1}}"#)),
        ("application/json", format!(r#"["{secret}"]"#)),
        ("application/json", secret.to_owned()),
        ("application/yaml", format!("password: [{secret}")),
        ("application/yaml", format!("password: *{secret}")),
        ("application/x-www-form-urlencoded", format!("password={secret}")),
        ("text/plain", secret.to_owned()),
    ]
}

async fn send(client: &Client, method: Method, path: &str, (media, body): (&str, String)) -> Result<Reply> {
    client.send(client.request(method, path).header("content-type", media).body(body)).await
}

/// Does what goes wrong with secrets in hand; every answer that is an error.
async fn scenario(server: &Server) -> Result<Vec<(String, Reply)>> {
    let nobody = server.client();
    let mut replies = Vec::new();
    let admin = nobody.join("admin@example.org").await?;
    let (ada, refresh) = {
        nobody.register("ada@example.org").await?;
        nobody.session("ada@example.org").await?
    };
    let (key, key_id) = ada.create_key(&["read"]).await?;
    let secrets = [
        "guessed-password-0123456789",
        ada.token().context("no token")?,
        &refresh,
        key.token().context("no key")?,
    ];
    for secret in secrets {
        gathering_e2e::note_secret(secret);
        for path in ["register", "login", "refresh", "logout", "api-keys"] {
            for body in unreadable(secret) {
                let path = format!("/api/v1/auth/{path}");
                replies.push((path.clone(), send(&ada, Method::POST, &path, body).await?));
            }
        }
        for body in unreadable(secret) {
            let path = "/api/v1/auth/password";
            replies.push((path.to_owned(), send(&ada, Method::PUT, path, body).await?));
        }
        let wrong = nobody.try_login("admin@example.org", secret).await?;
        replies.push(("a wrong password".to_owned(), wrong));
        let token = json!({"refresh_token": format!("{secret}x")});
        replies.push(("a wrong token".to_owned(), nobody.post("/api/v1/auth/refresh", &token).await?));
        for credential in [format!("{secret}x"), secret[1..].to_owned()] {
            let reply = nobody.with_token(&credential).get("/api/v1/auth/me").await?;
            replies.push(("a wrong credential".to_owned(), reply));
        }
        // In a place where a user put it by mistake.
        let basic = nobody.with_header("authorization", &format!("Basic {secret}"));
        replies.push(("another scheme".to_owned(), basic.get("/api/v1/auth/me").await?));
    }
    let change =
        json!({"current_password": "guessed-password-0123456789", "new_password": "fresh-password-987"});
    replies.push(("a wrong current password".to_owned(), ada.put("/api/v1/auth/password", &change).await?));
    let short = json!({"current_password": PASSWORD, "new_password": "2short!"});
    replies.push(("a short password".to_owned(), ada.put("/api/v1/auth/password", &short).await?));
    let twice = json!({"email": "ada@example.org", "name": "Ada", "password": "second-password-555"});
    replies.push(("twice".to_owned(), nobody.post("/api/v1/auth/register", &twice).await?));
    replies.push(("no scope".to_owned(), key.post("/api/v1/projects", &json!({"name": "a"})).await?));
    let spent = nobody.post("/api/v1/auth/refresh", &json!({"refresh_token": refresh})).await?;
    spent.expect(200)?;
    let spent = nobody.post("/api/v1/auth/refresh", &json!({"refresh_token": refresh})).await?;
    replies.push(("spent twice".to_owned(), spent));
    let ada = nobody.login("ada@example.org").await?;
    ada.delete(&format!("/api/v1/auth/api-keys/{key_id}")).await?.expect(204)?;
    replies.push(("a revoked key".to_owned(), key.get("/api/v1/auth/me").await?));
    let disable = json!({"is_active": false});
    admin.patch(&format!("/api/v1/users/{}", ada.user_id().await?), &disable).await?.expect(200)?;
    replies.push(("disabled".to_owned(), nobody.try_login("ada@example.org", PASSWORD).await?));
    Ok(replies)
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_in_no_log_error_event_or_table() -> Result<()> {
    let database = Database::empty().await?;
    let mut server = Server::start_with(&database, |command| {
        command.env("GATHERING_LOG", EVERYTHING).env("GATHERING_TOKEN_KEY", TOKEN_KEY);
    })
    .await?;
    let replies = scenario(&server).await?;
    // A request that is not HTTP is not logged, either.
    let mut raw = Raw::connect(server.address()).await?;
    raw.send(format!("GET /?{PASSWORD} HTTP/9.9\r\nauthorization {PASSWORD}\r\n\r\n").replace(' ', "-"))
        .await?;

    let secrets = known_secrets();
    assert!(secrets.len() > 10 && secrets.iter().any(|secret| secret == TOKEN_KEY));
    assert!(replies.len() > 200, "{}", replies.len());
    for (what, reply) in &replies {
        assert!((400..500).contains(&reply.status), "{what}: {} {}", reply.status, reply.text);
        let headers = format!("{:?}", reply.headers);
        let found = find_secret(&reply.text, &secrets).or_else(|| find_secret(&headers, &secrets));
        assert_eq!(found, None, "{what}: {} {}", reply.status, reply.text);
    }
    let stored = stored_forms(&secrets);
    let rows = database.rows().await?;
    assert!(rows["users"].len() == 2 && !rows["audit_events"].is_empty() && !rows["api_keys"].is_empty());
    for (table, rows) in &rows {
        let text = rows.join("\n");
        assert_eq!(find_secret(&text, &stored), None, "in table {table}");
    }
    server.stop(std::time::Duration::from_secs(30)).await?;
    let log = server.log();
    assert!(log.lines().count() > 100, "the log has something to search");
    assert_eq!(find_secret(&log, &secrets), None, "in the log");
    // A settings error does not repeat what is secret, either.
    let mut command = database.command(&["serve"])?;
    command
        .env("GATHERING_TOKEN_KEY", "k4.local.not-quite-a-key")
        .env("OPENAI_API_KEY", "sk-very-secret-key");
    let ended = Process::start(&mut command)?.end(std::time::Duration::from_secs(30)).await?;
    assert!(ended.stderr.contains("GATHERING_TOKEN_KEY"), "{ended:?}");
    assert!(!ended.stderr.contains("not-quite-a-key"), "{ended:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_about_accounts_holds_no_hash() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let admin = server.client().join("admin@example.org").await?;
    admin.create_key(&["read"]).await?;
    for path in ["/api/v1/auth/me", "/api/v1/users", "/api/v1/auth/api-keys", "/api/v1/audit/events"] {
        let body = admin.get(path).await?.expect(200)?;
        for word in ["hash", "password\"", "$2b$", "digest"] {
            assert!(!body.to_string().contains(word), "{word} in {path}: {body}");
        }
        fn names(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(fields) => fields.iter().for_each(|(name, value)| {
                    found.push(name.clone());
                    names(value, found);
                }),
                Value::Array(items) => items.iter().for_each(|item| names(item, found)),
                _ => {}
            }
        }
        let mut found = Vec::new();
        names(&body, &mut found);
        assert!(!found.iter().any(|name| name.contains("secret")), "{path}: {found:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_writes_a_secret_fails_its_test() -> Result<()> {
    let secret = "only-this-test-says-so-4711";
    gathering_e2e::note_secret(secret);
    let echo = async |text: &str| {
        let mut process = Process::start(std::process::Command::new("echo").arg(text))?;
        process.end(std::time::Duration::from_secs(30)).await?;
        anyhow::Ok(process)
    };
    drop(echo("only-this-test-says-so").await?);
    let process = echo(&format!("before {secret} after")).await?;
    let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(process)));
    assert!(dropped.is_err(), "the leak was not noticed");
    Ok(())
}
