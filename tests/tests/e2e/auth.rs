//! Accounts and sessions: what was answered holds at once, on every instance, through restarts.

use anyhow::{Context, Result};
use gathering_e2e::{Client, Database, PASSWORD, Reply, Server};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const ME: &str = "/api/v1/auth/me";
const REFRESH: &str = "/api/v1/auth/refresh";

/// Every cache as small as it may be.
const SMALLEST_CACHES: [&str; 6] =
    ["REVOCATIONS", "KEY_OWNERS", "DIRECTORIES", "WORKSPACES", "LIMITERS", "GRAPHS"];

async fn me(client: &Client) -> Result<u16> {
    Ok(client.get(ME).await?.status)
}

async fn refresh(client: &Client, token: &str) -> Result<Reply> {
    client.as_nobody().post(REFRESH, &json!({"refresh_token": token})).await
}

fn text(tokens: &Value, name: &str) -> Result<String> {
    Ok(tokens[name].as_str().with_context(|| format!("no {name}"))?.to_owned())
}

/// The same session, at another server.
fn at(server: &Server, client: &Client) -> Result<Client> {
    Ok(server.client().with_token(client.token().context("no token")?))
}

#[tokio::test(flavor = "multi_thread")]
async fn i7_who_was_told_that_the_account_exists_logs_in_after_a_kill() -> Result<()> {
    let database = Database::empty().await?;
    let mut server = Server::start(&database).await?;
    for number in 0..5 {
        server.client().register(&format!("ada{number}@example.org")).await?;
        server.kill()?;
        server = Server::start(&database).await?;
        server.client().login(&format!("ada{number}@example.org")).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_outlives_a_kill_of_its_server() -> Result<()> {
    let database = Database::empty().await?;
    let mut server = Server::start(&database).await?;
    server.client().register("ada@example.org").await?;
    let (ada, token) = server.client().session("ada@example.org").await?;
    ada.post("/api/v1/auth/logout", &json!({})).await?.expect(204)?;
    server.kill()?;
    let server = Server::start(&database).await?;
    at(&server, &ada)?.get(ME).await?.expect_problem(401, "not-authenticated")?;
    refresh(server.client(), &token).await?.expect_problem(401, "not-authenticated")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_on_one_instance_holds_for_the_next_request_to_another() -> Result<()> {
    for smallest in [false, true] {
        let database = Database::empty().await?;
        let start = || {
            Server::start_with(&database, |command| {
                for cache in SMALLEST_CACHES.into_iter().filter(|_| smallest) {
                    command.env(format!("GATHERING_CACHE_{cache}_ENTRIES"), "1");
                }
            })
        };
        let (one, other) = (start().await?, start().await?);
        one.client().register("ada@example.org").await?;
        let mut sessions = Vec::new();
        for _ in 0..6 {
            sessions.push(one.client().session("ada@example.org").await?);
        }
        for (client, _) in &sessions {
            assert_eq!((me(client).await?, me(&at(&other, client)?).await?), (200, 200));
        }
        for (n, (client, token)) in sessions.iter().enumerate() {
            client.post("/api/v1/auth/logout", &json!({})).await?.expect(204)?;
            at(&other, client)?.get(ME).await?.expect_problem(401, "not-authenticated")?;
            refresh(other.client(), token).await?.expect_problem(401, "not-authenticated")?;
            for (ended, _) in &sessions[..=n] {
                assert_eq!((me(ended).await?, me(&at(&other, ended)?).await?), (401, 401));
            }
            for (open, _) in &sessions[n + 1..] {
                assert_eq!((me(open).await?, me(&at(&other, open)?).await?), (200, 200));
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_that_comes_twice_ends_its_family_on_every_instance() -> Result<()> {
    let database = Database::empty().await?;
    let (one, other) = (Server::start(&database).await?, Server::start(&database).await?);
    one.client().register("ada@example.org").await?;
    let (first, spent) = one.client().session("ada@example.org").await?;
    let (bystander, _) = one.client().session("ada@example.org").await?;
    let second = refresh(one.client(), &spent).await?.expect(200)?;
    let third = refresh(other.client(), &text(&second, "refresh_token")?).await?.expect(200)?;
    let newest = one.client().with_token(&text(&third, "access_token")?);
    assert_eq!((me(&newest).await?, me(&at(&other, &newest)?).await?), (200, 200));
    refresh(other.client(), &spent).await?.expect_problem(401, "not-authenticated")?;
    for client in [&newest, &first] {
        assert_eq!((me(client).await?, me(&at(&other, client)?).await?), (401, 401));
    }
    refresh(one.client(), &text(&third, "refresh_token")?).await?.expect_problem(401, "not-authenticated")?;
    assert_eq!(me(&bystander).await?, 200, "another session of the account is not concerned");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_refreshes_at_once_one_wins() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    server.client().register("ada@example.org").await?;
    let (_, token) = server.client().session("ada@example.org").await?;
    let mut attempts = JoinSet::new();
    for _ in 0..20 {
        let (client, token) = (server.client().clone(), token.clone());
        attempts.spawn(async move { refresh(&client, &token).await.map(|reply| reply.status) });
    }
    let statuses = attempts.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 19, "{statuses:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_ends_the_other_sessions_and_not_the_own() -> Result<()> {
    let database = Database::empty().await?;
    let (one, other) = (Server::start(&database).await?, Server::start(&database).await?);
    one.client().register("ada@example.org").await?;
    let (own, own_refresh) = one.client().session("ada@example.org").await?;
    let (elsewhere, elsewhere_refresh) = other.client().session("ada@example.org").await?;
    let key = own.create_key(&["read"]).await?.0;
    let change = |current: &str, new: &str| json!({"current_password": current, "new_password": new});
    let put = async |current: &str, new: &str| own.put("/api/v1/auth/password", &change(current, new)).await;
    put("another horse", "quite a new password").await?.expect_problem(403, "forbidden")?;
    let short = put(PASSWORD, "short").await?;
    short.expect_problem(422, "invalid")?;
    assert_eq!(short.pointers(), ["/new_password"]);
    assert_eq!(me(&elsewhere).await?, 200, "nothing was changed");
    put(PASSWORD, "quite a new password").await?.expect(204)?;
    assert_eq!((me(&own).await?, me(&at(&other, &own)?).await?), (200, 200));
    assert_eq!((me(&elsewhere).await?, me(&at(&one, &elsewhere)?).await?), (401, 401));
    refresh(one.client(), &elsewhere_refresh).await?.expect_problem(401, "not-authenticated")?;
    refresh(other.client(), &own_refresh).await?.expect(200)?;
    assert_eq!(me(&key).await?, 200, "keys stay");
    assert_eq!(other.client().try_login("ada@example.org", PASSWORD).await?.status, 401);
    assert_eq!(one.client().try_login("ada@example.org", "quite a new password").await?.status, 200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_account_is_refused_everywhere_and_its_sessions_do_not_come_back() -> Result<()> {
    let database = Database::empty().await?;
    let (one, other) = (Server::start(&database).await?, Server::start(&database).await?);
    let admin = one.client().join("admin@example.org").await?;
    one.client().register("bob@example.org").await?;
    let (bob, token) = other.client().session("bob@example.org").await?;
    let key = bob.create_key(&["read", "write"]).await?.0;
    let (id, unknown) = (bob.user_id().await?, "01990000-0000-7000-8000-000000000000");
    let set = async |id: &str, body: Value| admin.patch(&format!("/api/v1/users/{id}"), &body).await;
    let disabled = set(&id, json!({"is_active": false})).await?.expect(200)?;
    assert_eq!((&disabled["id"], &disabled["is_active"]), (&json!(id), &json!(false)));
    for server in [&one, &other] {
        for client in [at(server, &bob)?, at(server, &key)?] {
            client.get(ME).await?.expect_problem(401, "not-authenticated")?;
            client.post("/api/v1/projects", &json!({"name": "x"})).await?.expect(401)?;
        }
        refresh(server.client(), &token).await?.expect(401)?;
        assert_eq!(server.client().try_login("bob@example.org", PASSWORD).await?.status, 401);
    }
    set(&id, json!({"is_active": true})).await?.expect(200)?;
    assert_eq!((me(&bob).await?, refresh(one.client(), &token).await?.status), (401, 401));
    assert_eq!(me(&key).await?, 200, "a key was never revoked");
    one.client().login("bob@example.org").await?;
    set(unknown, json!({"is_active": true})).await?.expect_problem(404, "not-found")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_active_admin_stays_one() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let admin = server.client().join("admin@example.org").await?;
    let bob = server.client().join("bob@example.org").await?;
    let (admin_id, bob_id) = (admin.user_id().await?, bob.user_id().await?);
    let path = |id: &str| format!("/api/v1/users/{id}");
    for body in [json!({"role": "member"}), json!({"is_active": false})] {
        admin.patch(&path(&admin_id), &body).await?.expect_problem(409, "conflict")?;
    }
    admin.patch(&path(&bob_id), &json!({"role": "admin"})).await?.expect(200)?;
    assert_eq!(bob.get("/api/v1/users").await?.status, 200, "the role counts from now on");
    // Each takes the role from the other, at once: one of them stays.
    let demotion = json!({"role": "member"});
    let (admin_path, bob_path) = (path(&admin_id), path(&bob_id));
    let (one, other) = tokio::join!(admin.patch(&bob_path, &demotion), bob.patch(&admin_path, &demotion));
    let mut statuses = [one?.status, other?.status];
    statuses.sort_unstable();
    assert!(statuses[0] == 200 && [403, 409].contains(&statuses[1]), "{statuses:?}");
    let session = database.session().await?;
    let active = "SELECT count(*) FROM users WHERE role = 'admin' AND is_active";
    assert_eq!(session.query_one(active, &[]).await?.get::<_, i64>(0), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_registrations_at_once_make_one_account() -> Result<()> {
    let database = Database::empty().await?;
    let (one, other) = (Server::start(&database).await?, Server::start(&database).await?);
    let mut attempts = JoinSet::new();
    for n in 0..50 {
        let client = if n % 2 == 0 { one.client() } else { other.client() }.clone();
        let email = [" ada@example.org ", "ADA@example.org", "ada@EXAMPLE.org"][n % 3];
        let body = json!({"email": email, "name": "Ada", "password": PASSWORD});
        attempts.spawn(async move { Ok(client.post("/api/v1/auth/register", &body).await?.status) });
    }
    let statuses = attempts.join_all().await.into_iter().collect::<Result<Vec<u16>>>()?;
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 49, "{statuses:?}");
    let rows = database.rows().await?;
    assert_eq!((rows["users"].len(), rows["projects"].len()), (1, 1), "one account, one default project");
    for email in ["ada@example.org", "  Ada@Example.Org"] {
        one.client().login(email).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_refused_rather_than_cut_off() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let register = async |email: &str, password: &str| {
        let body = json!({"email": email, "name": "Ada", "password": password});
        server.client().post("/api/v1/auth/register", &body).await
    };
    // In bytes: the second and the last have fewer characters than that.
    for password in ["7 chars".to_owned(), "p".repeat(73), "ä".repeat(37), "with\0zero".to_owned()] {
        let refused = register("ada@example.org", &password).await?;
        refused.expect_problem(422, "invalid")?;
        assert_eq!(refused.pointers(), ["/password"], "{password:?}");
    }
    for (email, password) in [("a@example.org", "8 chars!".to_owned()), ("b@example.org", "ä".repeat(36))] {
        register(email, &password).await?.expect(201)?;
        assert_eq!(server.client().try_login(email, &password).await?.status, 200);
        let longer = server.client().try_login(email, &format!("{password}x")).await?;
        assert!([401, 422].contains(&longer.status), "{}", longer.text);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_in_the_answer_to_a_login_tells_whether_the_account_exists() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let admin = server.client().join("admin@example.org").await?;
    let bob = server.client().join("bob@example.org").await?.user_id().await?;
    admin.patch(&format!("/api/v1/users/{bob}"), &json!({"is_active": false})).await?.expect(200)?;
    let mut answers = Vec::new();
    for (email, password) in [
        ("nobody@example.org", "a wrong horse"),
        ("admin@example.org", "a wrong horse"),
        ("bob@example.org", "a wrong horse"),
        ("bob@example.org", PASSWORD),
        ("nobody@example.org", PASSWORD),
    ] {
        let mut reply = server.client().try_login(email, password).await?;
        reply.expect_problem(401, "not-authenticated")?;
        reply.body["instance"].take();
        let ids = ["x-request-id", "date"];
        let headers = reply.headers.iter().filter(|(name, _)| !ids.contains(&name.as_str()));
        let mut headers: Vec<_> = headers.map(|(name, value)| format!("{name}: {value:?}")).collect();
        // Their order is by chance, and each worker of the server has its own.
        headers.sort_unstable();
        answers.push((reply.status, reply.body.to_string(), headers));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_registration_answers_403_and_makes_no_account() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start_with(&database, |command| {
        command.env("GATHERING_REGISTRATION", "closed");
    })
    .await?;
    let body = json!({"email": "ada@example.org", "name": "Ada", "password": PASSWORD});
    server.client().post("/api/v1/auth/register", &body).await?.expect_problem(403, "forbidden")?;
    assert!(database.rows().await?["users"].is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_logged_out_in_the_middle_of_requests_is_never_believed_again() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let mut watchers = JoinSet::new();
    for _ in 0..4 {
        let ada = ada.clone();
        watchers.spawn(async move {
            let mut statuses = Vec::new();
            while statuses.iter().filter(|status| **status == 401).count() < 20 && statuses.len() < 5000 {
                statuses.push(me(&ada).await?);
            }
            Ok(statuses)
        });
    }
    ada.post("/api/v1/auth/logout", &json!({})).await?.expect(204)?;
    assert_eq!(me(&ada).await?, 401);
    for statuses in watchers.join_all().await.into_iter().collect::<Result<Vec<_>>>()? {
        let n_believed = statuses.iter().take_while(|status| **status == 200).count();
        let rest = statuses.split_at(n_believed).1;
        assert!(rest.len() == 20 && rest.iter().all(|status| *status == 401), "{rest:?}");
    }
    Ok(())
}
