//! Access: every route as the server declares it, asked by callers of every role.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use gathering_e2e::{Client, Database, ROUTES, Reply, Scene, Server, without_parameter_names};
use serde_json::{Value, json};

/// The callers, in the order of the columns of a row.
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

/// Routes whose sample request meets something other than the first success that the document names.
const OUTCOMES: [(&str, u16); 14] = [
    // The sample replaces a file.
    ("PUT /api/v1/projects/{}/files/{}", 204),
    // The sample replaces a secret.
    ("PUT /api/v1/projects/{}/secrets/{}", 204),
    // The sample names a program that the operator does not allow, and the others a server that is not mounted.
    ("POST /api/v1/mcp/servers", 422),
    ("GET /api/v1/mcp/servers/{}", 404),
    ("DELETE /api/v1/mcp/servers/{}", 404),
    ("POST /api/v1/mcp/servers/{}/accept", 404),
    ("POST /api/v1/runs/{}/rerun", 202),
    // The sample has no key, so the event is new.
    ("POST /api/v1/events", 201),
    // They become an event.
    ("POST /api/v1/hooks/in/{}", 202),
    ("POST /api/v1/hooks/{}/deliveries/{}/redeliver", 202),
    // The sample is no request for a WebSocket.
    ("GET /api/v1/events/ws", 400),
    // The run of the samples has ended: nothing is left to cancel, to decide or to pay for.
    ("POST /api/v1/runs/{}/cancel", 409),
    ("POST /api/v1/runs/{}/nodes/{}/decision", 409),
    ("POST /api/v1/runs/{}/budget", 409),
];

/// Routes with a rule that the table of routes does not declare.
const ROWS: [(&str, [u16; 8]); 1] =
    // A key can be revoked by its owner alone.
    [("DELETE /api/v1/auth/api-keys/{}", [401, 404, 404, 404, 204, 404, 403, 403])];

/// The routes that need no login.
const WITHOUT_LOGIN: [&str; 11] = [
    "GET /.well-known/oauth-protected-resource",
    "GET /.well-known/oauth-protected-resource/mcp",
    "GET /api/openapi.json",
    "GET /health",
    "GET /health/live",
    "GET /health/ready",
    "GET /metrics",
    "POST /api/v1/auth/login",
    "POST /api/v1/auth/refresh",
    "POST /api/v1/auth/register",
    "POST /api/v1/hooks/in/{}",
];

/// What the server declares about a route.
struct Declared {
    /// As names of routes have it.
    name: String,
    access: String,
    scope: Option<String>,
    /// The status of a request that does its work.
    success: u16,
}

impl Declared {
    fn of(name: String, operation: &Value) -> Result<Self> {
        let declared = &operation["x-gathering"];
        let documented = operation["responses"].as_object().context("no responses")?.keys();
        let first =
            documented.filter_map(|status| status.parse().ok()).find(|status| (200..300).contains(status));
        let outcome = OUTCOMES.iter().find(|(route, _)| *route == name).map(|(_, status)| *status);
        Ok(Self {
            access: declared["access"].as_str().context("no access")?.to_owned(),
            scope: declared["scope"].as_str().map(str::to_owned),
            success: outcome.or(first).context("no success is documented")?,
            name,
        })
    }

    /// The statuses for the callers of the columns. An editor writes and runs, an owner manages; a caller without
    /// membership is told that the resource does not exist.
    fn expected(&self) -> Result<[u16; 8]> {
        if let Some((_, row)) = ROWS.iter().find(|(name, _)| *name == self.name) {
            return Ok(*row);
        }
        let s = self.success;
        Ok(match (self.access.as_str(), self.scope.as_deref()) {
            ("public", None) => [s; 8],
            ("account", None) | ("own", Some("read")) => [401, s, s, s, s, s, s, s],
            ("session", None) => [401, s, s, s, s, s, 403, 403],
            ("own", Some(_)) => [401, s, s, s, s, s, 403, s],
            ("project", Some("read")) => [401, 404, s, s, s, s, s, 404],
            ("project", Some("write" | "run")) => [401, 404, 403, s, s, s, 403, 404],
            ("project", Some("manage")) => [401, 404, 403, 403, s, s, 403, 404],
            ("admin", Some("admin")) => [401, 403, 403, 403, 403, s, 403, 403],
            other => bail!("{}: no rule for {other:?}", self.name),
        })
    }
}

/// Every route of the running server.
async fn served(client: &Client) -> Result<Vec<Declared>> {
    let document = client.get("/api/openapi.json").await?.expect(200)?;
    let mut routes = Vec::new();
    for (pattern, methods) in document["paths"].as_object().context("no paths")? {
        for (method, operation) in methods.as_object().context("no methods")? {
            let name = format!("{} {}", method.to_uppercase(), without_parameter_names(pattern));
            routes.push(Declared::of(name, operation)?);
        }
    }
    Ok(routes)
}

/// The callers of the columns. A logout takes a session of its own, or the next row would have no valid session.
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
async fn every_route_answers_each_role_as_the_table_of_routes_declares() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let served = served(server.client()).await?;
    let names: BTreeSet<&str> = served.iter().map(|route| route.name.as_str()).collect();
    let samples: BTreeSet<&str> = ROUTES.iter().map(|route| route.name).collect();
    assert_eq!(samples, names, "every route has a sample request in tests/src/routes.rs");
    let public = served.iter().filter(|route| route.access == "public").map(|route| route.name.as_str());
    assert_eq!(public.collect::<BTreeSet<_>>(), WITHOUT_LOGIN.into_iter().collect());

    let scene = Scene::set(server.client()).await?;
    let reader = scene.owner.create_key(&["read"]).await?.0;
    let half_admin = scene.admin.create_key(&["read", "write", "run", "manage"]).await?.0;
    let mut wrong = Vec::new();
    for route in &ROUTES {
        let declared = served.iter().find(|declared| declared.name == route.name).context(route.name)?;
        let mut all = callers(&scene, server.client(), route.name.ends_with("/logout")).await?;
        all.extend([reader.clone(), half_admin.clone()]);
        for ((client, caller), expected) in all.iter().zip(CALLERS).zip(declared.expected()?) {
            let reply = scene.ask(client, route).await?;
            if reply.status != expected {
                let Reply { status, text, .. } = reply;
                wrong.push(format!("{} as {caller}: {status} instead of {expected}: {text}", route.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_lacks_only_the_declared_scope_is_refused_by_every_route() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let scene = Scene::set(server.client()).await?;
    let mut n_checked = 0;
    for declared in served(server.client()).await? {
        let Some(scope) = declared.scope.as_deref().filter(|scope| *scope != "read") else { continue };
        let others: Vec<&str> =
            ["read", "write", "run", "manage"].into_iter().filter(|other| *other != scope).collect();
        let key = scene.admin.create_key(&others).await?;
        let route = ROUTES.iter().find(|route| route.name == declared.name).context("no sample")?;
        let reply = scene.ask(&key.0, route).await?;
        assert_eq!(reply.status, 403, "{} without {scope}: {}", declared.name, reply.text);
        scene.admin.delete(&format!("/api/v1/auth/api-keys/{}", key.1)).await?.expect(204)?;
        n_checked += 1;
    }
    assert!(n_checked > 15, "only {n_checked} routes declare a scope");
    Ok(())
}

/// Without what differs from request to request.
fn shown(mut reply: Reply) -> (u16, Value) {
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
