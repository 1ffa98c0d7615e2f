//! Who may do what: every route, asked by everybody.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use gathering_e2e::{Client, Database, ROUTES, Reply, Scene, Server, without_parameter_names};
use serde_json::json;

/// Who asks, in the order of the columns of [`TABLE`].
const CALLERS: [&str; 8] = [
    "anonymous",
    "stranger",
    "viewer",
    "editor",
    "owner",
    "admin",
    "key of the owner that reads",
    "key of the admin without the scope admin",
];

const OPEN: [u16; 8] = [200; 8];
const ANYBODY: [u16; 8] = [401, 200, 200, 200, 200, 200, 200, 200];
const ADMIN: [u16; 8] = [401, 403, 403, 403, 403, 200, 403, 403];
const READ: [u16; 8] = [401, 404, 200, 200, 200, 200, 200, 404];

/// What each caller gets. An editor writes and runs, an owner manages; who is no member is told that there is nothing.
const TABLE: [(&str, [u16; 8]); 48] = [
    ("GET /health/live", OPEN),
    ("GET /health/ready", OPEN),
    ("GET /health", OPEN),
    ("GET /metrics", OPEN),
    ("GET /api/openapi.json", OPEN),
    ("POST /api/v1/auth/register", [201; 8]),
    ("POST /api/v1/auth/login", OPEN),
    ("POST /api/v1/auth/refresh", OPEN),
    ("POST /api/v1/auth/logout", [401, 204, 204, 204, 204, 204, 403, 403]),
    ("GET /api/v1/auth/me", ANYBODY),
    ("PUT /api/v1/auth/password", [401, 204, 204, 204, 204, 204, 403, 403]),
    ("GET /api/v1/auth/api-keys", ANYBODY),
    ("POST /api/v1/auth/api-keys", [401, 201, 201, 201, 201, 201, 403, 403]),
    ("DELETE /api/v1/auth/api-keys/{}", [401, 404, 404, 404, 204, 404, 403, 403]),
    ("GET /api/v1/users", ADMIN),
    ("PATCH /api/v1/users/{}", ADMIN),
    ("GET /api/v1/audit/events", ADMIN),
    ("GET /api/v1/projects", ANYBODY),
    ("POST /api/v1/projects", [401, 201, 201, 201, 201, 201, 403, 201]),
    ("GET /api/v1/projects/{}", READ),
    ("PATCH /api/v1/projects/{}", [401, 404, 403, 403, 200, 200, 403, 404]),
    ("DELETE /api/v1/projects/{}", [401, 404, 403, 403, 204, 204, 403, 404]),
    ("GET /api/v1/projects/{}/members", READ),
    ("PUT /api/v1/projects/{}/members/{}", [401, 404, 403, 403, 204, 204, 403, 404]),
    ("DELETE /api/v1/projects/{}/members/{}", [401, 404, 403, 403, 204, 204, 403, 404]),
    ("GET /api/v1/projects/{}/budget", READ),
    ("PUT /api/v1/projects/{}/budget", [401, 404, 403, 403, 200, 200, 403, 404]),
    ("GET /api/v1/projects/{}/files", READ),
    ("GET /api/v1/projects/{}/files/{}", READ),
    ("PUT /api/v1/projects/{}/files/{}", [401, 404, 403, 204, 204, 204, 403, 404]),
    ("DELETE /api/v1/projects/{}/files/{}", [401, 404, 403, 204, 204, 204, 403, 404]),
    ("POST /api/v1/pipelines/validate", ANYBODY),
    ("GET /api/v1/pipelines", ANYBODY),
    ("POST /api/v1/pipelines", [401, 404, 403, 201, 201, 201, 403, 404]),
    ("GET /api/v1/pipelines/{}", READ),
    ("PUT /api/v1/pipelines/{}", [401, 404, 403, 200, 200, 200, 403, 404]),
    ("DELETE /api/v1/pipelines/{}", [401, 404, 403, 204, 204, 204, 403, 404]),
    ("GET /api/v1/pipelines/{}/versions", READ),
    ("POST /api/v1/pipelines/{}/runs", [401, 404, 403, 202, 202, 202, 403, 404]),
    ("GET /api/v1/runs", ANYBODY),
    ("GET /api/v1/runs/{}", READ),
    // The run has ended, so whoever may cancel it hears 409.
    ("POST /api/v1/runs/{}/cancel", [401, 404, 403, 409, 409, 409, 403, 404]),
    ("GET /api/v1/runs/{}/journal", READ),
    ("GET /api/v1/runs/{}/stream", READ),
    ("POST /api/v1/runs/{}/rerun", [401, 404, 403, 202, 202, 202, 403, 404]),
    // The run has ended, so nothing in it waits for a decision.
    ("POST /api/v1/runs/{}/nodes/{}/decision", [401, 404, 403, 409, 409, 409, 403, 404]),
    // The run has ended, so nothing in it waits for its budget.
    ("POST /api/v1/runs/{}/budget", [401, 404, 403, 403, 409, 409, 403, 404]),
    ("GET /api/v1/system/instances", ADMIN),
];

/// What anybody may ask, as nothing in it is somebody's.
const WITHOUT_LOGIN: [&str; 8] = [
    "GET /health/live",
    "GET /health/ready",
    "GET /health",
    "GET /metrics",
    "GET /api/openapi.json",
    "POST /api/v1/auth/register",
    "POST /api/v1/auth/login",
    "POST /api/v1/auth/refresh",
];

/// Every route of the running server, as names of routes have it.
async fn served(client: &Client) -> Result<BTreeSet<String>> {
    let document = client.get("/api/openapi.json").await?.expect(200)?;
    let mut names = BTreeSet::new();
    for (pattern, methods) in document["paths"].as_object().context("no paths")? {
        for method in methods.as_object().context("no methods")?.keys() {
            if ["get", "put", "post", "patch", "delete", "head", "options"].contains(&method.as_str()) {
                names.insert(format!("{} {}", method.to_uppercase(), without_parameter_names(pattern)));
            }
        }
    }
    Ok(names)
}

/// The callers of the columns. A logout takes a session of its own, or the next row would meet nobody.
async fn callers(scene: &Scene, nobody: &Client, is_logout: bool) -> Result<Vec<Client>> {
    let mut all = vec![
        nobody.clone(),
        scene.stranger.clone(),
        scene.viewer.clone(),
        scene.editor.clone(),
        scene.owner.clone(),
        scene.admin.clone(),
    ];
    if is_logout {
        for (client, name) in all.iter_mut().skip(1).zip(["stranger", "viewer", "editor", "owner", "admin"]) {
            *client = nobody.login(&format!("{name}@example.org")).await?;
        }
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_each_role_as_the_table_says() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let known: BTreeSet<String> = TABLE.iter().map(|(name, _)| (*name).to_owned()).collect();
    let served = served(server.client()).await?;
    let missing: Vec<_> = served.difference(&known).collect();
    assert!(missing.is_empty(), "routes without a row in the table of access: {missing:?}");
    let surplus: Vec<_> = known.difference(&served).collect();
    assert!(surplus.is_empty(), "rows without a route: {surplus:?}");
    assert_eq!(ROUTES.map(|route| route.name.to_owned()).into_iter().collect::<BTreeSet<_>>(), known);

    let scene = Scene::set(server.client()).await?;
    let reader = scene.owner.create_key(&["read"]).await?.0;
    let half_admin = scene.admin.create_key(&["read", "write", "run", "manage"]).await?.0;
    let mut wrong = Vec::new();
    for (name, expected) in TABLE {
        let route = ROUTES.iter().find(|route| route.name == name).context(name)?;
        let mut all = callers(&scene, server.client(), name.ends_with("/logout")).await?;
        all.extend([reader.clone(), half_admin.clone()]);
        for ((client, caller), expected) in all.iter().zip(CALLERS).zip(expected) {
            let reply = scene.ask(client, route).await?;
            if reply.status != expected {
                wrong.push(format!(
                    "{name} as {caller}: {} instead of {expected}: {}",
                    reply.status, reply.text
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn what_needs_no_login_is_a_short_list() {
    let open: Vec<&str> = TABLE.iter().filter(|(_, row)| row[0] != 401).map(|(name, _)| *name).collect();
    assert_eq!(open, WITHOUT_LOGIN);
}

/// Without what differs from request to request.
fn shown(mut reply: Reply) -> (u16, serde_json::Value) {
    reply.body["instance"].take();
    (reply.status, reply.body)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_may_not_see_looks_like_what_is_not_there() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let scene = Scene::set(server.client()).await?;
    let absent = "01990000-0000-7000-8000-000000000000";
    let key = scene.owner.create_key(&["read"]).await?.1;
    for (path, id) in [
        ("/api/v1/projects/{}", &scene.project),
        ("/api/v1/projects/{}/members", &scene.project),
        ("/api/v1/projects/{}/files", &scene.project),
        ("/api/v1/projects/{}/files/notes/a.txt", &scene.project),
        ("/api/v1/pipelines/{}", &scene.pipeline),
        ("/api/v1/pipelines/{}/versions", &scene.pipeline),
        ("/api/v1/runs/{}", &scene.run),
        ("/api/v1/runs/{}/journal", &scene.run),
        ("/api/v1/runs/{}/stream", &scene.run),
    ] {
        let hidden = scene.stranger.get(&path.replace("{}", id)).await?;
        let missing = scene.stranger.get(&path.replace("{}", absent)).await?;
        assert_eq!(hidden.status, 404, "{path}: {}", hidden.text);
        assert_eq!(shown(hidden), shown(missing), "{path}");
    }
    let delete = async |id: &str| scene.stranger.delete(&format!("/api/v1/auth/api-keys/{id}")).await;
    assert_eq!(shown(delete(&key).await?), shown(delete(absent).await?));
    for list in ["/api/v1/pipelines", "/api/v1/runs"] {
        let named = scene.stranger.get(&format!("{list}?project_id={}", scene.project)).await?.expect(200)?;
        assert_eq!(named["items"], json!([]), "{list}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_does_what_its_scopes_say_and_no_more_than_its_owner_may() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let scene = Scene::set(server.client()).await?;
    let route = |name: &str| ROUTES.into_iter().find(|route| route.name == name).context("no such route");
    let (read, write) = (route("GET /api/v1/projects/{}")?, route("PUT /api/v1/projects/{}/files/{}")?);
    let (run, manage) = (route("POST /api/v1/pipelines/{}/runs")?, route("PATCH /api/v1/projects/{}")?);
    let users = route("GET /api/v1/users")?;
    for (scopes, owner, viewer) in [
        (&["read"][..], [200, 403, 403, 403, 403], [200, 403, 403, 403, 403]),
        (&["write"], [200, 204, 403, 403, 403], [200, 403, 403, 403, 403]),
        (&["run"], [200, 403, 202, 403, 403], [200, 403, 403, 403, 403]),
        (&["manage"], [200, 403, 403, 200, 403], [200, 403, 403, 403, 403]),
        (&["run", "write"], [200, 204, 202, 403, 403], [200, 403, 403, 403, 403]),
    ] {
        for (person, expected) in [(&scene.owner, owner), (&scene.viewer, viewer)] {
            let key = person.create_key(scopes).await?.0;
            for (route, expected) in [read, write, run, manage, users].iter().zip(expected) {
                let reply = scene.ask(&key, route).await?;
                assert_eq!(reply.status, expected, "{scopes:?} {}: {}", route.name, reply.text);
            }
        }
    }
    let whole = scene.admin.create_key(&["admin"]).await?.0;
    for (route, expected) in [read, write, run, manage, users].iter().zip([200, 204, 202, 200, 200]) {
        assert_eq!(scene.ask(&whole, route).await?.status, expected, "admin {}", route.name);
    }
    let member = json!({"name": "too much", "scopes": ["read", "admin"]});
    let refused = scene.owner.post("/api/v1/auth/api-keys", &member).await?.expect(422)?;
    assert_eq!(refused["errors"][0]["pointer"], "/scopes/1", "{refused}");
    Ok(())
}
