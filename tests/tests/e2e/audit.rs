//! The audit record: complete, for admins only, and permanent.

use anyhow::{Context, Result};
use gathering_e2e::{Client, Database, PASSWORD, Raw, Server, head};
use serde_json::{Value, json};
use uuid::Uuid;

const EVENTS: &str = "/api/v1/audit/events";
const ADDRESS: &str = "198.51.100.7";

async fn start(database: &Database) -> Result<Server> {
    Server::start_with(database, |command| {
        command.env("GATHERING_TRUSTED_PROXIES", "127.0.0.0/8");
    })
    .await
}

/// The client under a new request id, and that id.
fn named(client: &Client) -> (Client, String) {
    let id = Uuid::now_v7().to_string();
    (client.with_header("x-request-id", &id), id)
}

async fn events(admin: &Client, query: &str) -> Result<Vec<Value>> {
    let page = admin.get(&format!("{EVENTS}{query}")).await?.expect(200)?;
    page["items"].as_array().cloned().context("no items")
}

/// One event of this type, of this request, from this address.
async fn check_recorded(admin: &Client, kind: &str, request: &str, user: Option<&str>) -> Result<Value> {
    let all = events(admin, &format!("?type={kind}&limit=200")).await?;
    let mut found: Vec<_> = all.into_iter().filter(|event| event["request_id"] == request).collect();
    assert_eq!(found.len(), 1, "one {kind} of the request: {found:?}");
    let event = found.remove(0);
    assert_eq!((&event["type"], &event["address"]), (&json!(kind), &json!(ADDRESS)), "{event}");
    assert_eq!(event["user_id"].as_str(), user, "{event}");
    assert!(event["id"].is_string() && event["at"].is_string() && event["detail"].is_object(), "{event}");
    Ok(event)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_sessions_is_recorded_with_address_and_request() -> Result<()> {
    let database = Database::empty().await?;
    let server = start(&database).await?;
    let admin = server.client().join("admin@example.org").await?;
    let nobody = server.client().from_address(ADDRESS);

    let (client, request) = named(&nobody);
    let bob = client.register("bob@example.org").await?["id"].as_str().context("no id")?.to_owned();
    check_recorded(&admin, "account_registered", &request, Some(&bob)).await?;
    let (client, request) = named(&nobody);
    let twice = json!({"email": "bob@example.org", "name": "Bob", "password": PASSWORD});
    client.post("/api/v1/auth/register", &twice).await?.expect(409)?;
    check_recorded(&admin, "registration_failed", &request, None).await?;

    let (client, request) = named(&nobody);
    let (session, refresh_token) = client.session("bob@example.org").await?;
    check_recorded(&admin, "login_succeeded", &request, Some(&bob)).await?;
    let (client, request) = named(&nobody);
    assert_eq!(client.try_login("bob@example.org", "a wrong horse").await?.status, 401);
    let failed = check_recorded(&admin, "login_failed", &request, Some(&bob)).await?;
    assert!(failed["detail"]["reason"].is_string(), "{failed}");
    let (client, request) = named(&nobody);
    assert_eq!(client.try_login("nobody@example.org", "a wrong horse").await?.status, 401);
    let unknown = check_recorded(&admin, "login_failed", &request, None).await?;
    assert!(!unknown.to_string().contains("nobody@example.org"), "{unknown}");

    let refresh = async |client: &Client, token: &Value| {
        client.post("/api/v1/auth/refresh", &json!({"refresh_token": token})).await
    };
    let (client, request) = named(&nobody);
    refresh(&client, &json!(refresh_token)).await?.expect(200)?;
    check_recorded(&admin, "token_refreshed", &request, Some(&bob)).await?;
    let (client, request) = named(&nobody);
    refresh(&client, &json!(refresh_token)).await?.expect(401)?;
    check_recorded(&admin, "refresh_token_reused", &request, Some(&bob)).await?;
    let (client, request) = named(&nobody);
    refresh(&client, &json!("nonsense")).await?.expect(401)?;
    check_recorded(&admin, "refresh_failed", &request, None).await?;
    assert_eq!(session.get("/api/v1/auth/me").await?.status, 401);

    let (client, request) = named(&nobody.login("bob@example.org").await?);
    client.post("/api/v1/auth/logout", &json!({})).await?.expect(204)?;
    let alone = check_recorded(&admin, "logged_out", &request, Some(&bob)).await?;
    assert!(alone["detail"]["session"].is_string() && alone["detail"]["other_session"].is_null(), "{alone}");
    let (_, refresh_token) = nobody.session("bob@example.org").await?;
    let (client, request) = named(&nobody.login("bob@example.org").await?);
    client.post("/api/v1/auth/logout", &json!({"refresh_token": refresh_token})).await?.expect(204)?;
    let both = check_recorded(&admin, "logged_out", &request, Some(&bob)).await?;
    let (own, other) = (&both["detail"]["session"], &both["detail"]["other_session"]);
    assert!(own.is_string() && other.is_string() && own != other, "{both}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_accounts_keys_and_projects_is_recorded_with_who_did_it() -> Result<()> {
    let database = Database::empty().await?;
    let server = start(&database).await?;
    let admin = server.client().join("admin@example.org").await?.from_address(ADDRESS);
    let admin_id = admin.user_id().await?;
    let bob = server.client().from_address(ADDRESS).join("bob@example.org").await?;
    let bob_id = bob.user_id().await?;
    let change = |current: &str| json!({"current_password": current, "new_password": PASSWORD});

    let (client, request) = named(&bob);
    client.put("/api/v1/auth/password", &change("a wrong horse")).await?.expect(403)?;
    check_recorded(&admin, "password_change_failed", &request, Some(&bob_id)).await?;
    let (client, request) = named(&bob);
    client.put("/api/v1/auth/password", &change(PASSWORD)).await?.expect(204)?;
    check_recorded(&admin, "password_changed", &request, Some(&bob_id)).await?;

    let (client, request) = named(&bob);
    let (_, key) = client.create_key(&["read"]).await?;
    check_recorded(&admin, "api_key_created", &request, Some(&bob_id)).await?;
    let (client, request) = named(&bob);
    client.delete(&format!("/api/v1/auth/api-keys/{key}")).await?.expect(204)?;
    check_recorded(&admin, "api_key_revoked", &request, Some(&bob_id)).await?;

    let user = format!("/api/v1/users/{bob_id}");
    for (body, kind) in [
        (json!({"role": "admin"}), "role_changed"),
        (json!({"role": "member"}), "role_changed"),
        (json!({"is_active": false}), "account_disabled"),
        (json!({"is_active": true}), "account_enabled"),
    ] {
        let (client, request) = named(&admin);
        client.patch(&user, &body).await?.expect(200)?;
        let event = check_recorded(&admin, kind, &request, Some(&bob_id)).await?;
        assert_eq!(event["detail"]["by"], admin_id, "{event}");
    }

    let (client, request) = named(&admin);
    let project = client.create_project("watched").await?;
    check_recorded(&admin, "project_created", &request, Some(&admin_id)).await?;
    let member = format!("/api/v1/projects/{project}/members/{bob_id}");
    for (role, kind) in [("viewer", "member_added"), ("editor", "member_role_changed")] {
        let (client, request) = named(&admin);
        client.put(&member, &json!({"role": role})).await?.expect(204)?;
        let event = check_recorded(&admin, kind, &request, Some(&bob_id)).await?;
        assert_eq!(event["detail"]["by"], admin_id, "{event}");
        assert!(event["detail"].to_string().contains(&project), "{event}");
    }
    let (client, request) = named(&admin);
    client.delete(&member).await?.expect(204)?;
    check_recorded(&admin, "member_removed", &request, Some(&bob_id)).await?;
    let (client, request) = named(&admin);
    client.delete(&format!("/api/v1/projects/{project}")).await?.expect(204)?;
    check_recorded(&admin, "project_deleted", &request, Some(&admin_id)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_is_filtered_paged_and_for_admins_only() -> Result<()> {
    let database = Database::empty().await?;
    let server = start(&database).await?;
    let admin = server.client().join("admin@example.org").await?;
    let bob = server.client().join("bob@example.org").await?;
    let bob_id = bob.user_id().await?;
    for _ in 0..5 {
        server.client().login("bob@example.org").await?;
    }
    bob.get(EVENTS).await?.expect_problem(403, "forbidden")?;
    server.client().get(EVENTS).await?.expect_problem(401, "not-authenticated")?;

    let all = events(&admin, "?limit=200").await?;
    let ids: Vec<&str> = all.iter().filter_map(|event| event["id"].as_str()).collect();
    assert!(ids.is_sorted_by(|a, b| a > b), "the newest first: {ids:?}");
    let (mut paged, mut query) = (Vec::new(), "?limit=3".to_owned());
    loop {
        let page = admin.get(&format!("{EVENTS}{query}")).await?.expect(200)?;
        paged.extend(page["items"].as_array().cloned().unwrap_or_default());
        match page["next_cursor"].as_str() {
            Some(cursor) => query = format!("?limit=3&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(paged, all, "page by page as at once");

    let of_bob = events(&admin, &format!("?user_id={bob_id}")).await?;
    assert_eq!(of_bob.len(), 7, "registered and six logins: {of_bob:?}");
    assert!(of_bob.iter().all(|event| event["user_id"] == bob_id));
    let logins = events(&admin, &format!("?user_id={bob_id}&type=login_succeeded")).await?;
    assert_eq!(logins, of_bob[..6]);
    let third = logins[2]["at"].as_str().context("no time")?;
    let (from, to) = (
        events(&admin, &format!("?user_id={bob_id}&from={third}")).await?,
        events(&admin, &format!("?user_id={bob_id}&to={third}")).await?,
    );
    assert_eq!((from.as_slice(), to.as_slice()), (&of_bob[..3], &of_bob[3..]), "from is in, to is out");
    let wrong = admin.get(&format!("{EVENTS}?type=slept&user_id=bob&from=noon&limit=0")).await?;
    wrong.expect_problem(422, "invalid")?;
    for pointer in ["/type", "/user_id", "/from", "/limit"] {
        assert!(wrong.pointers().contains(&pointer), "{pointer} in {}", wrong.text);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_itself_refuses_to_change_the_record() -> Result<()> {
    let database = Database::empty().await?;
    let server = start(&database).await?;
    server.client().join("admin@example.org").await?;
    let session = database.session().await?;
    let before = database.rows().await?["audit_events"].clone();
    assert!(!before.is_empty());
    for change in [
        "UPDATE audit_events SET type = 'nothing'",
        "DELETE FROM audit_events",
        "DELETE FROM audit_events WHERE false",
        "TRUNCATE audit_events",
    ] {
        let refused = session.execute(change, &[]).await;
        let code = refused.err().and_then(|error| error.code().cloned());
        assert_eq!(code.as_ref().map(|code| code.code()), Some("23001"), "{change}");
    }
    // Not even with the account that it is about.
    session.execute("DELETE FROM users", &[]).await.ok();
    assert_eq!(database.rows().await?["audit_events"], before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_behind_a_proxy_hides_its_address_by_nothing_that_it_sends() -> Result<()> {
    let database = Database::empty().await?;
    let server = start(&database).await?;
    let admin = server.client().join("admin@example.org").await?;
    let body = json!({"email": "ada@example.org", "password": "a wrong horse"}).to_string();
    // What the client sent, and what its proxy adds to it in the same line or in one of its own.
    let spoofed = [b"\xff\xfe, ".as_slice(), b"nonsense, ", b"6.6.6.6, ", b"\xe4\r\nx-forwarded-for: "];
    for sent in spoofed {
        for added in [ADDRESS.to_owned(), format!("{ADDRESS}:4711")] {
            let request = Uuid::now_v7().to_string();
            let headers = [("content-type", "application/json"), ("x-request-id", request.as_str())];
            let mut whole = head("POST", "/api/v1/auth/login", &headers, body.len() as u64);
            whole.truncate(whole.len() - 2);
            for piece in [b"x-forwarded-for: ", sent, added.as_bytes(), b"\r\n\r\n", body.as_bytes()] {
                whole.extend_from_slice(piece);
            }
            let mut raw = Raw::connect(server.address()).await?;
            raw.send(whole).await?;
            let reply = raw.reply().await?;
            assert!([401, 429].contains(&reply.status), "{}", reply.text());
            check_recorded(&admin, "login_failed", &request, None).await?;
        }
    }
    Ok(())
}
