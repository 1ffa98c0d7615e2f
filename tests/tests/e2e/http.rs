//! The HTTP interface as a client sees it: accounts, problems, and what every answer has.

use std::time::Duration;

use anyhow::{Context, Result};
use gathering_e2e::{Database, Reply, Server, begin, pipeline};
use reqwest::Method;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

/// Everything that an error must have, whatever it is about.
fn check_problem(reply: &Reply, status: u16, kind: &str) {
    let shown = format!("{} {}", reply.status, reply.text);
    assert_eq!(reply.status, status, "{shown}");
    assert_eq!(reply.header("content-type"), "application/problem+json", "{shown}");
    assert_eq!(reply.body["type"], format!("/problems/{kind}"), "{shown}");
    assert_eq!(reply.body["status"], status, "{shown}");
    assert!(reply.body["title"].is_string() && reply.body["detail"].is_string(), "{shown}");
    assert_eq!(reply.body["instance"], reply.header("x-request-id"), "{shown}");
    assert_eq!(reply.body["errors"].is_array(), status == 422, "{shown}");
}

fn pointers(reply: &Reply) -> Vec<&str> {
    let errors = reply.body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    errors.iter().filter_map(|error| error["pointer"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_user_is_admin_and_the_next_ones_are_members() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().register("Ada@Example.org").await?;
    assert_eq!((&ada["email"], &ada["role"]), (&json!("ada@example.org"), &json!("admin")), "{ada}");
    assert_eq!(ada["is_active"], true);
    assert!(!ada.to_string().contains("password"), "{ada}");
    let bob = server.client().register("bob@example.org").await?;
    assert_eq!(bob["role"], "member");
    let me = server.client().login("ADA@example.org").await?.get("/api/v1/auth/me").await?.expect(200)?;
    assert_eq!(me, ada);
    let again =
        json!({"email": "aDa@example.org", "name": "Eve", "password": "correct horse battery staple"});
    check_problem(&server.client().post("/api/v1/auth/register", &again).await?, 409, "conflict");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_fails_tells_nothing_about_why() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    server.client().register("ada@example.org").await?;
    let mut answers = Vec::new();
    for (email, password) in [("ada@example.org", "wrong horse"), ("nobody@example.org", "wrong horse")] {
        let body = json!({"email": email, "password": password});
        let reply = server.client().post("/api/v1/auth/login", &body).await?;
        check_problem(&reply, 401, "not-authenticated");
        let mut body = reply.body;
        body["instance"].take();
        answers.push(body);
    }
    assert_eq!(answers[0], answers[1]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_is_spent_once_and_a_logout_ends_the_session() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let client = server.client();
    client.register("ada@example.org").await?;
    let login = json!({"email": "ada@example.org", "password": "correct horse battery staple"});
    let tokens = client.post("/api/v1/auth/login", &login).await?.expect(200)?;
    assert_eq!(tokens["token_type"], "Bearer");
    let spend = json!({"refresh_token": tokens["refresh_token"]});
    let second = client.post("/api/v1/auth/refresh", &spend).await?.expect(200)?;
    check_problem(&client.post("/api/v1/auth/refresh", &spend).await?, 401, "not-authenticated");
    let family = json!({"refresh_token": second["refresh_token"]});
    let reply = client.post("/api/v1/auth/refresh", &family).await?;
    check_problem(&reply, 401, "not-authenticated");
    let ada = client.login("ada@example.org").await?;
    ada.post("/api/v1/auth/logout", &json!({})).await?.expect(204)?;
    check_problem(&ada.get("/api/v1/auth/me").await?, 401, "not-authenticated");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn i7_an_account_outlives_a_kill_of_its_server() -> Result<()> {
    let database = Database::empty().await?;
    let mut server = Server::start(&database).await?;
    let token = server.client().join("ada@example.org").await?.token().context("no token")?.to_owned();
    server.kill()?;
    let server = Server::start(&database).await?;
    server.client().login("ada@example.org").await?;
    let me = server.client().with_token(&token).get("/api/v1/auth/me").await?;
    assert_eq!(me.status, 200, "the key is kept, so its tokens stay valid: {}", me.text);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_is_a_problem_with_the_id_of_its_request() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let nobody = server.client();
    let ada = nobody.join("ada@example.org").await?;
    let malformed = ada.request(Method::POST, "/api/v1/pipelines").header("content-type", "application/json");
    check_problem(&ada.send(malformed.body("{")).await?, 400, "malformed");
    check_problem(&nobody.get("/api/v1/auth/me").await?, 401, "not-authenticated");
    check_problem(
        &nobody.with_token("v4.local.nonsense").get("/api/v1/runs").await?,
        401,
        "not-authenticated",
    );
    check_problem(&ada.get("/api/v1/nothing/here").await?, 404, "not-found");
    check_problem(&ada.get("/api/v1/runs/no-id").await?, 404, "not-found");
    let absent = "/api/v1/pipelines/01990000-0000-7000-8000-000000000000";
    check_problem(&ada.get(absent).await?, 404, "not-found");
    let delete = ada.request(Method::DELETE, "/api/v1/auth/login");
    let reply = ada.send(delete).await?;
    check_problem(&reply, 405, "method-not-allowed");
    assert!(reply.header("allow").contains("POST"), "{:?}", reply.headers);
    let large = json!({"email": "a@b.c", "password": "x".repeat(100_000)});
    check_problem(&nobody.post("/api/v1/auth/login", &large).await?, 413, "too-large");
    let invalid = nobody.post("/api/v1/auth/register", &json!({"email": "no", "nmae": "Ada"})).await?;
    check_problem(&invalid, 422, "invalid");
    for pointer in ["/name", "/password", "/nmae"] {
        assert!(pointers(&invalid).contains(&pointer), "{pointer} in {}", invalid.text);
    }
    let query = ada.get("/api/v1/runs?state=asleep&limit=9999").await?;
    check_problem(&query, 422, "invalid");
    assert_eq!(pointers(&query).len(), 2, "{}", query.text);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sane_request_id_is_echoed_and_another_replaced() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let client = server.client();
    for (sent, is_kept) in [("order-66.b", true), ("two words", false), (&"x".repeat(1000), false)] {
        let request = client.request(Method::GET, "/api/v1/auth/me").header("x-request-id", sent);
        let reply = client.send(request).await?;
        assert_eq!(reply.header("x-request-id") == sent, is_kept, "{sent}: {:?}", reply.headers);
        assert!(!reply.header("x-request-id").is_empty());
    }
    let reply = client.get("/health/live").await?;
    assert!(!reply.header("x-request-id").is_empty(), "every answer has one");
    assert!(server.log().contains("order-66.b"), "the log has it, too");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn openapi_names_every_route_that_is_served() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let document = server.client().get("/api/openapi.json").await?.expect(200)?;
    assert!(
        document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")),
        "{}",
        document["openapi"]
    );
    let paths = document["paths"].as_object().context("no paths")?;
    for path in
        ["/api/v1/auth/login", "/api/v1/pipelines/{id}/runs", "/api/v1/runs/{id}/cancel", "/health/ready"]
    {
        assert!(paths.contains_key(path), "{path} in {:?}", paths.keys());
    }
    // A route that is documented and not served would answer 404 or 405 without credentials as well.
    for (path, methods) in paths {
        let path = path.replace("{id}", "01990000-0000-7000-8000-000000000000");
        for method in methods.as_object().context("no methods")?.keys() {
            let Ok(method) = Method::from_bytes(method.to_uppercase().as_bytes()) else { continue };
            let reply = server.client().send(server.client().request(method.clone(), &path)).await?;
            assert!(![404, 405, 500].contains(&reply.status), "{method} {path}: {}", reply.text);
        }
    }
    let mut command = database.command(&["openapi"])?;
    let printed = gathering_e2e::Process::start(&mut command)?.end(LIMIT).await?;
    assert_eq!(serde_json::from_str::<Value>(&printed.stdout)?, document, "the command prints the same");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_of_others_answer_404() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let bob = server.client().join("bob@example.org").await?;
    let cleo = server.client().join("cleo@example.org").await?;
    let id = bob.create_pipeline(&pipeline(&[begin()], &[])).await?;
    let run = bob.start_run(&id).await?;
    bob.run_in(&run, &["succeeded"], LIMIT).await?;
    let (pipeline, run) = (format!("/api/v1/pipelines/{id}"), format!("/api/v1/runs/{run}"));
    for path in [&pipeline, &run, &format!("{run}/journal")] {
        check_problem(&cleo.get(path).await?, 404, "not-found");
        assert_eq!(ada.get(path).await?.status, 200, "the admin sees {path}");
    }
    for path in [format!("{pipeline}/runs"), format!("{run}/cancel")] {
        check_problem(&cleo.post(&path, &json!({})).await?, 404, "not-found");
    }
    for list in ["/api/v1/pipelines", "/api/v1/runs"] {
        assert_eq!(cleo.get(list).await?.expect(200)?["items"], json!([]), "{list}");
        assert_eq!(bob.get(list).await?.expect(200)?["items"].as_array().map(Vec::len), Some(1), "{list}");
    }
    Ok(())
}
