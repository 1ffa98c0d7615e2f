//! Projects and their members.

use std::time::Duration;

use anyhow::{Context, Result};
use gathering_e2e::{Answer, Client, Database, Peer, Process, Server, begin, call, pipeline, wait_until};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);
const PROJECTS: &str = "/api/v1/projects";

fn path(project: &str) -> String {
    format!("{PROJECTS}/{project}")
}

fn member_path(project: &str, user: &str) -> String {
    format!("{PROJECTS}/{project}/members/{user}")
}

async fn items(client: &Client, path: &str) -> Result<Vec<Value>> {
    client.get(path).await?.expect(200)?["items"].as_array().cloned().context("no items")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_is_made_shown_changed_and_deleted() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    server.client().register("admin@example.org").await?;
    let ada = server.client().join("ada@example.org").await?;
    let default = items(&ada, PROJECTS).await?;
    assert_eq!(
        (default.len(), &default[0]["role"]),
        (1, &json!("owner")),
        "the default project: {default:?}"
    );
    let made = ada.post(PROJECTS, &json!({"name": "Tides", "description": "of\nthe sea"})).await?;
    let made = made.expect(201)?;
    let id = made["id"].as_str().context("no id")?;
    assert_eq!((&made["name"], &made["description"]), (&json!("Tides"), &json!("of\nthe sea")));
    assert_eq!(made["role"], "owner");
    assert_eq!(ada.get(&path(id)).await?.expect(200)?, made);
    let changed = ada.patch(&path(id), &json!({"name": "Moon"})).await?.expect(200)?;
    assert_eq!((&changed["name"], &changed["description"]), (&json!("Moon"), &made["description"]));
    assert!(changed["updated_at"].as_str() > made["updated_at"].as_str(), "{changed}");
    assert_eq!(ada.get(&path(id)).await?.expect(200)?, changed);
    let listed = items(&ada, PROJECTS).await?;
    assert_eq!((listed.len(), &listed[0]), (2, &changed), "the newest first");
    ada.delete(&path(id)).await?.expect(204)?;
    ada.get(&path(id)).await?.expect_problem(404, "not-found")?;
    ada.delete(&path(id)).await?.expect_problem(404, "not-found")?;
    assert_eq!(items(&ada, PROJECTS).await?, default);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_project_is_refused_with_every_reason() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let ada = server.client().join("ada@example.org").await?;
    for (body, pointers) in [
        (json!({}), &["/name"][..]),
        (json!({"name": ""}), &["/name"]),
        (json!({"name": "a\u{0}b"}), &["/name"]),
        (json!({"name": 7, "description": 7, "owner": "me"}), &["/description", "/name", "/owner"]),
        (json!({"name": "x".repeat(10_000)}), &["/name"]),
        (json!({"name": "a", "description": "a\u{0}b"}), &["/description"]),
    ] {
        let refused = ada.post(PROJECTS, &body).await?;
        refused.expect_problem(422, "invalid")?;
        assert_eq!(refused.pointers(), pointers, "{}", refused.text);
    }
    assert_eq!(database.rows().await?["projects"].len(), 1, "the default project");
    let id = ada.create_project("a").await?;
    let refused = ada.patch(&path(&id), &json!({"name": "", "role": "viewer"})).await?;
    assert_eq!((refused.status, refused.pointers()), (422, vec!["/name", "/role"]), "{}", refused.text);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_and_body_make_one_project() -> Result<()> {
    let database = Database::empty().await?;
    let (one, other) = (Server::start(&database).await?, Server::start(&database).await?);
    let ada = one.client().join("ada@example.org").await?;
    let elsewhere = other.client().login("ada@example.org").await?;
    let post = async |client: &Client, key: &str, body: Value| {
        client.with_header("idempotency-key", key).post(PROJECTS, &body).await
    };
    let body = json!({"name": "Tides", "description": "of the sea"});
    let (first, second) = tokio::join!(post(&ada, "k", body.clone()), post(&elsewhere, "k", body.clone()));
    let (first, second) = (first?.expect(201)?, second?.expect(201)?);
    assert_eq!(first, second);
    let again = post(&elsewhere, "k", json!({"description": "of the sea", "name": "Tides"})).await?;
    assert_eq!(again.expect(201)?, first, "the order of fields means nothing");
    assert_eq!(items(&ada, PROJECTS).await?.len(), 2, "with the default project");
    post(&ada, "k", json!({"name": "Moon"})).await?.expect_problem(409, "conflict")?;
    post(&ada, "", body.clone()).await?.expect_problem(422, "invalid")?;
    assert_ne!(post(&ada, "l", body.clone()).await?.expect(201)?["id"], first["id"]);
    ada.delete(&path(first["id"].as_str().context("no id")?)).await?.expect(204)?;
    post(&ada, "k", body).await?.expect_problem(409, "conflict")?;
    assert_eq!(items(&ada, PROJECTS).await?.len(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_projects_is_read_page_by_page() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    server.client().register("admin@example.org").await?;
    let ada = server.client().join("ada@example.org").await?;
    let bob = server.client().join("bob@example.org").await?;
    for n in 0..5 {
        ada.create_project(&format!("project {n}")).await?;
        bob.create_project("of bob").await?;
    }
    let whole = items(&ada, &format!("{PROJECTS}?limit=200")).await?;
    assert_eq!(whole.len(), 6, "her own: {whole:?}");
    let (mut paged, mut query) = (Vec::new(), "?limit=2".to_owned());
    loop {
        let page = ada.get(&format!("{PROJECTS}{query}")).await?.expect(200)?;
        paged.extend(page["items"].as_array().cloned().unwrap_or_default());
        match page["next_cursor"].as_str() {
            Some(cursor) => query = format!("?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(paged, whole);
    let admin = server.client().login("admin@example.org").await?;
    let seen = items(&admin, &format!("{PROJECTS}?limit=200")).await?;
    let of_others = seen.iter().filter(|project| project["role"].is_null()).count();
    assert_eq!((seen.len(), of_others), (13, 12), "an admin sees all and is member of one");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn members_come_get_another_role_and_go_and_that_counts_at_once() -> Result<()> {
    let database = Database::empty().await?;
    let (one, other) = (Server::start(&database).await?, Server::start(&database).await?);
    one.client().register("admin@example.org").await?;
    let ada = one.client().join("ada@example.org").await?;
    let bob = other.client().join("bob@example.org").await?;
    let (ada_id, bob_id) = (ada.user_id().await?, bob.user_id().await?);
    let project = ada.create_project("shared").await?;
    let (path, member) = (path(&project), member_path(&project, &bob_id));
    bob.get(&path).await?.expect_problem(404, "not-found")?;
    for (role, may_write) in [("viewer", 403), ("editor", 204), ("viewer", 403)] {
        ada.put(&member, &json!({"role": role})).await?.expect(204)?;
        assert_eq!(bob.get(&path).await?.expect(200)?["role"], role);
        let file = format!("{path}/files/{role}.txt");
        let status = bob.put_bytes(&file, "x").await?.status;
        assert!(status == may_write || (may_write == 204 && status == 201), "{role}: {status}");
    }
    let members = items(&ada, &format!("{path}/members")).await?;
    let shown: Vec<_> = members.iter().map(|member| (&member["user_id"], &member["role"])).collect();
    assert!(shown.contains(&(&json!(ada_id), &json!("owner"))), "{members:?}");
    assert!(shown.contains(&(&json!(bob_id), &json!("viewer"))) && shown.len() == 2, "{members:?}");
    let him = members.iter().find(|member| member["user_id"] == bob_id).context("no bob")?;
    assert_eq!((&him["email"], &him["name"]), (&json!("bob@example.org"), &json!("Ada")), "{him}");
    let unknown = member_path(&project, "01990000-0000-7000-8000-000000000000");
    ada.put(&unknown, &json!({"role": "viewer"})).await?.expect_problem(404, "not-found")?;
    ada.delete(&unknown).await?.expect_problem(404, "not-found")?;
    let wrong = ada.put(&member, &json!({"role": "god"})).await?;
    assert_eq!((wrong.status, wrong.pointers()), (422, vec!["/role"]), "{}", wrong.text);
    bob.put(&member, &json!({"role": "owner"})).await?.expect_problem(403, "forbidden")?;
    bob.delete(&member_path(&project, &ada_id)).await?.expect_problem(403, "forbidden")?;
    bob.delete(&member).await?.expect(204)?;
    bob.get(&path).await?.expect_problem(404, "not-found")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_keeps_its_last_owner_also_when_two_leave_at_once() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    server.client().register("admin@example.org").await?;
    let ada = server.client().join("ada@example.org").await?;
    let bob = server.client().join("bob@example.org").await?;
    let project = ada.create_project("shared").await?;
    let (hers, his) =
        (member_path(&project, &ada.user_id().await?), member_path(&project, &bob.user_id().await?));
    ada.delete(&hers).await?.expect_problem(409, "conflict")?;
    ada.put(&hers, &json!({"role": "editor"})).await?.expect_problem(409, "conflict")?;
    ada.put(&hers, &json!({"role": "owner"})).await?.expect(204)?;
    ada.put(&his, &json!({"role": "owner"})).await?.expect(204)?;
    let (one, other) = tokio::join!(ada.delete(&hers), bob.delete(&his));
    let mut statuses = [one?.status, other?.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 409]);
    let owners = "SELECT count(*) FROM project_members WHERE role = 'owner' AND project_id::text = $1";
    let n_owners: i64 = database.session().await?.query_one(owners, &[&project]).await?.get(0);
    assert_eq!(n_owners, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_project_and_one_with_a_run_under_way_are_not_deleted() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let peer = Peer::start(|_| Answer::held(json!({}))).await?;
    let ada = server.client().join("ada@example.org").await?;
    let default = items(&ada, PROJECTS).await?[0]["id"].as_str().context("no id")?.to_owned();
    ada.delete(&path(&default)).await?.expect_problem(409, "conflict")?;
    assert_eq!(ada.get(&path(&default)).await?.status, 200);

    let project = ada.create_project("busy").await?;
    let definition = pipeline(&[begin(), call("wait", &peer.url("/"))], &[("begin", "wait")]);
    let body = json!({"project_id": project, "name": "waits", "definition": definition});
    let created = ada.post("/api/v1/pipelines", &body).await?.expect(201)?;
    let pipeline = created["id"].as_str().context("no id")?;
    let run = ada.start_run(pipeline).await?;
    peer.asked(1, LIMIT).await?;
    ada.put_bytes(&format!("{}/files/a/b.txt", path(&project)), "kept").await?.expect(201)?;
    ada.delete(&path(&project)).await?.expect_problem(409, "conflict")?;
    let kept = ada.get(&format!("{}/files/a/b.txt", path(&project))).await?;
    assert_eq!((kept.status, kept.text.as_str()), (200, "kept"), "nothing was deleted");
    peer.release();
    ada.run_in(&run, &["succeeded"], LIMIT).await?;

    let files = database.files_of(&project);
    assert!(files.join("a/b.txt").is_file());
    ada.delete(&path(&project)).await?.expect(204)?;
    assert!(!files.exists(), "its files are gone: {}", files.display());
    for gone in [format!("/api/v1/pipelines/{pipeline}"), format!("/api/v1/runs/{run}"), path(&project)] {
        ada.get(&gone).await?.expect_problem(404, "not-found")?;
    }
    Ok(())
}

/// A pipeline that asks the peer and then writes into its workspace.
fn asks_and_writes(peer: &Peer) -> Value {
    let params = json!({"path": "written.txt", "content": "by the run"});
    let write = json!({"id": "write", "type": "tool", "config": {"tool": "write_file", "params": params}});
    let nodes = [begin(), call("ask", &peer.url("/")), write];
    pipeline(&nodes, &[("begin", "ask"), ("ask", "write")])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_of_a_local_run_is_hidden_from_the_api_but_the_run_is_finished() -> Result<()> {
    let (database, peer) = (Database::empty().await?, Peer::start(|_| Answer::held(json!({}))).await?);
    let (directory, file) = (database.directory().join("mine"), database.directory().join("mine.json"));
    std::fs::create_dir(&directory)?;
    std::fs::write(directory.join("diary.txt"), "private")?;
    std::fs::write(&file, asks_and_writes(&peer).to_string())?;
    let arguments = ["run", &file.display().to_string(), "--workspace", &directory.display().to_string()];
    let mut process = Process::start(&mut database.command(&arguments)?)?;
    peer.asked(1, LIMIT).await.with_context(|| process.last_words())?;
    process.kill()?;

    let server = Server::start(&database).await?;
    let admin = server.client().join("admin@example.org").await?;
    let session = database.session().await?;
    let local = "SELECT p.id::text, r.id::text FROM all_runs r JOIN projects p ON p.id = r.project_id \
                 WHERE p.workspace_path IS NOT NULL";
    let row = session.query_one(local, &[]).await?;
    let (project, run): (String, String) = (row.get(0), row.get(1));
    peer.release();
    wait_until(LIMIT, "the server finishes the run", async || {
        let state =
            session.query_one("SELECT state FROM all_runs", &[]).await.map_err(|error| error.to_string())?;
        let state: String = state.get(0);
        if state == "succeeded" { Ok(()) } else { Err(state) }
    })
    .await?;
    assert_eq!(std::fs::read_to_string(directory.join("written.txt"))?, "by the run");

    // Neither as an admin, nor as one who was made a member, or left a pipeline there, when that was possible.
    let eve = server.client().join("eve@example.org").await?;
    let pipeline = uuid::Uuid::now_v7().to_string();
    let left_over = "WITH member AS (INSERT INTO project_members (project_id, user_id, role) VALUES ($1::text::uuid, $2::text::uuid, 'owner')), \
                     pipeline AS (INSERT INTO pipelines (id, project_id, name, version) VALUES ($3::text::uuid, $1::text::uuid, 'left over', 1)) \
                     INSERT INTO pipeline_versions (pipeline_id, version, graph_digest) SELECT $3::text::uuid, 1, graph_digest FROM all_runs";
    session.execute(left_over, &[&project, &eve.user_id().await?, &pipeline]).await?;
    for client in [&admin, &eve] {
        check_invisible(client, &project, &pipeline, &run).await?;
    }
    let mut names: Vec<_> =
        std::fs::read_dir(&directory)?.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<_>>()?;
    names.sort();
    assert_eq!(names, ["diary.txt", "written.txt"]);
    assert_eq!(std::fs::read_to_string(directory.join("diary.txt"))?, "private");
    Ok(())
}

/// That neither the project nor what is in it can be seen, changed or used.
async fn check_invisible(client: &Client, project: &str, pipeline: &str, run: &str) -> Result<()> {
    let path = path(project);
    let member = member_path(project, &client.user_id().await?);
    let diary = format!("{path}/files/diary.txt");
    let (pipeline_path, run_path) = (format!("/api/v1/pipelines/{pipeline}"), format!("/api/v1/runs/{run}"));
    let new = json!({"project_id": project, "name": "a", "definition": {"nodes": [begin()], "edges": []}});
    for refused in [
        client.get(&path).await?,
        client.patch(&path, &json!({"name": "ours"})).await?,
        client.get(&format!("{path}/members")).await?,
        client.put(&member, &json!({"role": "owner"})).await?,
        client.get(&format!("{path}/files")).await?,
        client.get(&diary).await?,
        client.put_bytes(&diary, "overwritten").await?,
        client.put_bytes(&format!("{path}/files/new.txt"), "new").await?,
        client.delete(&diary).await?,
        client.post("/api/v1/pipelines", &new).await?,
        client.get(&pipeline_path).await?,
        client.post(&format!("{pipeline_path}/runs"), &json!({})).await?,
        client.get(&run_path).await?,
        client.get(&format!("{run_path}/journal")).await?,
        client.get(&format!("{run_path}/stream")).await?,
        client.post(&format!("{run_path}/rerun"), &json!({"from": "start"})).await?,
        client.delete(&path).await?,
    ] {
        refused.expect_problem(404, "not-found")?;
    }
    for list in [PROJECTS, "/api/v1/pipelines", "/api/v1/runs"] {
        let listed = items(client, list).await?;
        assert!(
            listed.iter().all(|item| item["id"] != project && item["project_id"] != project),
            "{listed:?}"
        );
    }
    Ok(())
}
