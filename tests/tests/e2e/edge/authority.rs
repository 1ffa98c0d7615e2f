//! A right that is revoked during a request: the rights at the end of the request's body count.

use std::time::Duration;

use anyhow::{Context, Result};
use gathering_e2e::{Client, Database, PASSWORD, Raw, RawReply, Scene, Server, head, wait_until};
use serde_json::{Value, json};
use uuid::Uuid;

const LIMIT: Duration = Duration::from_secs(30);
const KEYS: &str = "/api/v1/auth/api-keys";

/// The server's answer once it knows the caller and waits for the rest.
const AWAITED: &str = "waiting for the rest of a body";

/// A request of a known caller, with all but its last byte sent.
struct HalfOpen {
    raw: Raw,
    last: Vec<u8>,
}

impl HalfOpen {
    /// Sends all but the last byte, and waits until the server waits for it.
    async fn begin(
        server: &Server,
        client: &Client,
        method: &str,
        target: &str,
        body: &[u8],
    ) -> Result<HalfOpen> {
        let bearer = format!("Bearer {}", client.token().context("no token")?);
        let id = Uuid::new_v4().to_string();
        let headers = [("authorization", bearer.as_str()), ("x-request-id", id.as_str())];
        let mut bytes = head(method, target, &headers, body.len() as u64);
        bytes.extend_from_slice(body);
        let last = bytes.split_off(bytes.len() - 1);
        let mut raw = Raw::connect(server.address()).await?;
        raw.send(bytes).await?;
        let what = format!("{method} {target} is known and waited for");
        wait_until(LIMIT, &what, async || if is_awaited(server, &id) { Ok(()) } else { Err("not yet") })
            .await?;
        Ok(HalfOpen { raw, last })
    }

    /// The same with JSON.
    async fn json(
        server: &Server,
        client: &Client,
        method: &str,
        target: &str,
        body: &Value,
    ) -> Result<HalfOpen> {
        Self::begin(server, client, method, target, body.to_string().as_bytes()).await
    }

    /// Sends the last byte; what is answered then.
    async fn end(mut self) -> Result<RawReply> {
        self.raw.send(&self.last).await?;
        self.raw.reply().await
    }
}

/// Whether the server has waited for the body of this request.
fn is_awaited(server: &Server, request_id: &str) -> bool {
    server.log().lines().any(|line| line.contains(AWAITED) && line.contains(request_id))
}

async fn set_role(admin: &Client, user: &str, role: &str) -> Result<()> {
    admin.patch(&format!("/api/v1/users/{user}"), &json!({ "role": role })).await?.expect(200)?;
    Ok(())
}

async fn log_out(client: &Client) -> Result<()> {
    client.post("/api/v1/auth/logout", &json!({})).await?.expect(204)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_admin_any_more_when_the_body_is_there_changes_no_account() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let bob = server.client().join("bob@example.org").await?;
    let eve = server.client().join("eve@example.org").await?.user_id().await?;
    let (bob_id, change) = (bob.user_id().await?, json!({"role": "admin"}));
    let path = format!("/api/v1/users/{eve}");
    set_role(&ada, &bob_id, "admin").await?;

    let demoted = HalfOpen::json(&server, &bob, "PATCH", &path, &change).await?;
    set_role(&ada, &bob_id, "member").await?;
    let refused = demoted.end().await?;
    assert_eq!((refused.status, &refused.json()["type"]), (403, &json!("/problems/forbidden")));

    set_role(&ada, &bob_id, "admin").await?;
    let disabled = HalfOpen::json(&server, &bob, "PATCH", &path, &change).await?;
    ada.patch(&format!("/api/v1/users/{bob_id}"), &json!({"is_active": false})).await?.expect(200)?;
    assert_eq!(disabled.end().await?.status, 401);
    let users = ada.get("/api/v1/users").await?.expect(200)?;
    assert_eq!((&users["items"][0]["id"], &users["items"][0]["role"]), (&json!(eve), &json!("member")));

    let still = HalfOpen::json(&server, &ada, "PATCH", &path, &change).await?.end().await?;
    assert_eq!(
        (still.status, &still.json()["role"]),
        (200, &json!("admin")),
        "a caller with the right succeeds"
    );

    let (id, body) = (Uuid::new_v4().to_string(), change.to_string());
    let bearer = format!("Bearer {}", ada.token().context("no token")?);
    let headers = [("authorization", bearer.as_str()), ("x-request-id", id.as_str())];
    let mut whole = head("PATCH", &path, &headers, body.len() as u64);
    whole.extend_from_slice(body.as_bytes());
    let mut raw = Raw::connect(server.address()).await?;
    // In one piece: a client that sends the body after the head may have to be waited for.
    raw.send(whole).await?;
    assert_eq!(raw.reply().await?.status, 200);
    assert!(!is_awaited(&server, &id), "a body that is there at once costs no second look");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_over_when_the_body_is_there_does_nothing_to_its_account() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    let key = json!({"name": "late", "scopes": ["read"]});
    let (logs_out, changed) =
        (server.client().login("ada@example.org").await?, server.client().login("ada@example.org").await?);

    let late = HalfOpen::json(&server, &logs_out, "POST", KEYS, &key).await?;
    log_out(&logs_out).await?;
    assert_eq!(late.end().await?.status, 401);

    let other = "another correct horse";
    let change = json!({"current_password": other, "new_password": PASSWORD});
    let (late, also_late) = (
        HalfOpen::json(&server, &changed, "POST", KEYS, &key).await?,
        HalfOpen::json(&server, &changed, "PUT", "/api/v1/auth/password", &change).await?,
    );
    let to_other = json!({"current_password": PASSWORD, "new_password": other});
    ada.put("/api/v1/auth/password", &to_other).await?.expect(204)?;
    assert_eq!((late.end().await?.status, also_late.end().await?.status), (401, 401));
    assert_eq!(ada.get(KEYS).await?.expect(200)?["items"], json!([]));
    assert_eq!(server.client().try_login("ada@example.org", other).await?.status, 200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_left_a_project_when_the_body_is_there_changes_nothing_in_it() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let scene = Scene::set(server.client()).await?;
    let (project, pipeline, run) = (&scene.project, &scene.pipeline, &scene.run);
    let member = format!("/api/v1/projects/{project}/members/{}", scene.stranger.user_id().await?);
    let guest = format!("/api/v1/projects/{project}/members/{}", scene.guest);
    let put = async |role: &str| scene.owner.put(&member, &json!({ "role": role })).await?.expect(204);
    let definition = json!({"nodes": [{"id": "begin", "type": "trigger"}]});
    let requests = [
        ("PUT", guest.clone(), json!({"role": "owner"})),
        ("PATCH", format!("/api/v1/projects/{project}"), json!({"name": "taken over"})),
        (
            "POST",
            "/api/v1/pipelines".to_owned(),
            json!({"project_id": project, "name": "late", "definition": definition}),
        ),
        ("PUT", format!("/api/v1/pipelines/{pipeline}"), json!({"name": "taken over"})),
        ("POST", format!("/api/v1/pipelines/{pipeline}/runs"), json!({"input": {}})),
        ("POST", format!("/api/v1/runs/{run}/rerun"), json!({"from": "start"})),
        ("POST", format!("/api/v1/runs/{run}/nodes/begin/decision"), json!({"approve": true})),
    ];
    put("owner").await?;
    let mut late = Vec::new();
    for (method, target, body) in &requests {
        late.push(HalfOpen::json(&server, &scene.stranger, method, target, body).await?);
    }
    let before = shown(&scene).await?;
    scene.owner.delete(&member).await?.expect(204)?;
    for (late, (method, target, _)) in late.into_iter().zip(&requests) {
        assert_eq!(late.end().await?.status, 404, "{method} {target}");
    }

    put("owner").await?;
    let late = HalfOpen::json(&server, &scene.stranger, "PUT", &guest, &json!({"role": "owner"})).await?;
    put("editor").await?;
    assert_eq!(late.end().await?.status, 403, "a caller who still sees it gets 403");
    scene.owner.delete(&member).await?.expect(204)?;
    assert_eq!(shown(&scene).await?, before);
    Ok(())
}

/// What could have been changed in the project.
async fn shown(scene: &Scene) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for path in [
        format!("/api/v1/projects/{}", scene.project),
        format!("/api/v1/pipelines/{}", scene.pipeline),
        "/api/v1/pipelines".to_owned(),
        "/api/v1/runs".to_owned(),
    ] {
        all.push(scene.owner.get(&path).await?.expect(200)?);
    }
    let members = format!("/api/v1/projects/{}/members/{}", scene.project, scene.guest);
    all.push(json!(scene.owner.delete(&members).await?.status));
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_right_is_gone_when_it_is_there_leaves_no_file() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let scene = Scene::set(server.client()).await?;
    let files = format!("/api/v1/projects/{}/files", scene.project);
    let member = format!("/api/v1/projects/{}/members/{}", scene.project, scene.editor.user_id().await?);
    let put = async |role: &str| scene.owner.put(&member, &json!({ "role": role })).await?.expect(204);
    let session = server.client().login("editor@example.org").await?;
    let upload = async |client: &Client, name: &str| {
        HalfOpen::begin(&server, client, "PUT", &format!("{files}/{name}"), &vec![b'x'; 300_000]).await
    };
    let (removed, logged_out) =
        (upload(&scene.editor, "late/removed").await?, upload(&session, "late/over").await?);
    let (weaker, old) =
        (upload(&scene.editor, "late/weaker").await?, upload(&scene.editor, "notes/a.txt").await?);
    log_out(&session).await?;
    assert_eq!(logged_out.end().await?.status, 401);
    put("viewer").await?;
    assert_eq!(weaker.end().await?.status, 403);
    scene.owner.delete(&member).await?.expect(204)?;
    assert_eq!((removed.end().await?.status, old.end().await?.status), (404, 404));

    put("editor").await?;
    assert_eq!(
        upload(&scene.editor, "in-time").await?.end().await?.status,
        201,
        "a caller with the right succeeds"
    );
    let list = scene.owner.get(&format!("{files}?recursive=true")).await?.expect(200)?;
    let files_left = list["items"].as_array().context("no items")?.iter();
    let files_left: Vec<_> = files_left.filter(|item| item["kind"] == "file").collect();
    let paths: Vec<_> = files_left.iter().filter_map(|item| item["path"].as_str()).collect();
    assert_eq!(paths, ["in-time", "notes/a.txt"], "{list}");
    let kept = scene.owner.get(&format!("{files}/notes/a.txt")).await?;
    assert_eq!(kept.text, "of the owner");
    Ok(())
}
