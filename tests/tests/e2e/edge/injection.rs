//! SQL in every place where a request can carry text: it stays text.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gathering_e2e::{Client, Database, ROUTES, Reply, Route, Scene, Server, without_parameter_names};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// No answer takes this long, unless the database was made to sleep.
const PROMPT: Duration = Duration::from_secs(8);

const CORPUS: [&str; 30] = [
    "'",
    "''",
    "\"",
    "\\'; --",
    "' OR '1'='1",
    "' OR 1=1 --",
    "\") OR (\"a\"=\"a",
    "x' AND 1=CAST((SELECT version()) AS int) --",
    "1; DROP TABLE users",
    "'; DROP TABLE users; --",
    "'); DELETE FROM users; --",
    "'; UPDATE users SET role = 'admin'; --",
    "'; TRUNCATE projects CASCADE; --",
    "'; SELECT pg_sleep(20); --",
    "' || pg_sleep(20) || '",
    "1 AND (SELECT 1 FROM pg_sleep(20))",
    "'; COPY (SELECT '') TO PROGRAM 'touch /tmp/injected'; --",
    "' UNION SELECT password_hash, email, id FROM users --",
    "$1",
    "$$; DROP TABLE users; $$",
    "$tag$ x $tag$",
    "E'\\047; DROP TABLE users; --",
    "U&'\\0027; DROP TABLE users'",
    "\u{2019}; DROP TABLE users; \u{ff07} OR \u{ff07}1\u{ff07}=\u{ff07}1",
    "/* */ OR /**/1=1/*",
    "{\"$ne\": null}' ->> 'a' #> '{b}",
    "<?xml version=\"1.0\"?><!DOCTYPE a [<!ENTITY b SYSTEM \"file:///etc/passwd\">]><a>&b;</a>",
    "%_%[a-z]*\\%",
    "zero\0byte",
    "line\r\nbreak\t\u{7f}\u{feff}\u{202e}",
];

/// Tables that legitimate answers to these requests add rows to.
const GROWING: [&str; 22] = [
    "users",
    "projects",
    "project_members",
    "refresh_tokens",
    "revoked_tokens",
    "api_keys",
    "audit_events",
    "login_throttles",
    "idempotency_keys",
    "agents",
    "agent_versions",
    "pipelines",
    "pipeline_versions",
    "graphs",
    "runs",
    "blobs",
    "events",
    "schedules",
    "schedule_fires",
    "hooks",
    "hook_deliveries",
    "secrets",
];

/// Where in a request the text goes.
#[derive(Debug, Clone)]
enum Place {
    /// A JSON pointer into the body.
    Body(String),
    /// The n-th parameter of the path.
    Path(usize),
    Query(String),
    Header(&'static str),
}

struct Bench {
    scene: Scene,
    nobody: Client,
    n_requests: AtomicUsize,
    n_accounts: AtomicUsize,
}

impl Bench {
    /// The caller: an admin with an address of their own, or a new account if the request ends its session or changes
    /// it.
    async fn client(&self, route: &Route) -> Result<Client> {
        let number = self.n_requests.fetch_add(1, Ordering::Relaxed);
        let address = format!("10.{}.{}.{}", number >> 16, (number >> 8) & 255, number & 255);
        if route.name.ends_with("/logout") || route.name.ends_with("/password") {
            self.n_accounts.fetch_add(1, Ordering::Relaxed);
            return self.nobody.from_address(&address).join(&format!("spare{number}@example.org")).await;
        }
        Ok(self.scene.admin.from_address(&address))
    }

    async fn inject(&self, route: &Route, place: &Place, text: &str) -> Result<()> {
        let client = self.client(route).await?;
        let mut path = self.path(route, place, text).await?;
        let mut body = match route.body {
            "" => Value::Null,
            body => serde_json::from_str(&self.scene.fill(body).await?)?,
        };
        if let Place::Query(name) = place {
            path = format!("{path}?{name}={}", encoded(text));
        }
        if let Place::Body(pointer) = place {
            put_at(&mut body, pointer, text);
        }
        let mut request = client.request(Method::from_bytes(route.method().as_bytes())?, &path);
        if let Place::Header(name) = place {
            request = request.header(*name, text);
        }
        if !body.is_null() {
            request = request.json(&body);
        }
        let begun = Instant::now();
        let reply = client.send(request).await?;
        let what =
            || format!("{} with {text:.40?} at {place:?}: {} {}", route.name, reply.status, reply.text);
        ensure!(reply.status < 500, "{}", what());
        ensure!(begun.elapsed() < PROMPT, "{} after {:?}", what(), begun.elapsed());
        ensure!(reply.status != 429, "{}: the test did not reach anything", what());
        if route.name.ends_with("/register") && reply.status == 201 {
            self.n_accounts.fetch_add(1, Ordering::Relaxed);
        }
        match place {
            Place::Body(pointer) => {
                self.read_back(&client, route, pointer, text, &reply).await.with_context(what)
            }
            _ => Ok(()),
        }
    }

    async fn path(&self, route: &Route, place: &Place, text: &str) -> Result<String> {
        let Place::Path(wanted) = place else { return self.scene.fill(route.path).await };
        let mut n_seen = 0;
        let parts = route.path.split('/').map(|part| {
            n_seen += usize::from(part.starts_with('{'));
            if part.starts_with('{') && n_seen == wanted + 1 { encoded(text) } else { part.to_owned() }
        });
        self.scene.fill(&parts.collect::<Vec<_>>().join("/")).await
    }

    /// Accepted text comes back as it was sent: in the answer, when it is read again, and as a password.
    async fn read_back(
        &self,
        client: &Client,
        route: &Route,
        pointer: &str,
        text: &str,
        reply: &Reply,
    ) -> Result<()> {
        if !(200..300).contains(&reply.status) {
            return Ok(());
        }
        if pointer.ends_with("password") {
            let email = match route.name.ends_with("/register") {
                true => reply.body["email"].clone(),
                false => client.get("/api/v1/auth/me").await?.expect(200)?["email"].clone(),
            };
            let new = pointer.trim_start_matches("/new_").trim_start_matches('/');
            if new == "password" {
                let login = client.try_login(email.as_str().context("no e-mail")?, text).await?;
                ensure!(login.status == 200, "the password is another: {}", login.text);
            }
            return Ok(());
        }
        check_same(reply.body.pointer(pointer), text)?;
        if let Some(id) = reply.body["id"].as_str() {
            for collection in ["projects", "agents", "pipelines", "runs"] {
                let again = client.get(&format!("/api/v1/{collection}/{id}")).await?;
                if again.status == 200 {
                    check_same(again.body.pointer(pointer), text)?;
                }
            }
        }
        Ok(())
    }
}

fn check_same(shown: Option<&Value>, sent: &str) -> Result<()> {
    if let Some(Value::String(shown)) = shown {
        let normalised = sent.trim().to_lowercase();
        let is_same = shown == sent || shown == sent.trim() || *shown == normalised;
        ensure!(is_same, "it came back as {shown:?}");
    }
    Ok(())
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

fn put_at(body: &mut Value, pointer: &str, text: &str) {
    if let Some(place) = body.pointer_mut(pointer) {
        *place = json!(text);
    } else if let Some(name) = pointer.strip_prefix('/').filter(|name| !name.contains('/')) {
        body[name] = json!(text);
    }
}

/// The pointers of all texts in a value.
fn texts(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| texts(value, &format!("{at}/{name}"), found));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, value)| texts(value, &format!("{at}/{n}"), found));
        }
        Value::String(_) => drop(found.insert(at.to_owned())),
        _ => {}
    }
}

/// Every place of a route: what its request has, and what the OpenAPI document says it may have.
fn places(document: &Value, route: &Route) -> Result<Vec<Place>> {
    let operation =
        document["paths"].as_object().context("no paths")?.iter().find_map(|(pattern, methods)| {
            let method = route.method().to_lowercase();
            let name = format!("{} {}", route.method(), without_parameter_names(pattern));
            (name == route.name).then(|| methods[&method].clone())
        });
    let operation = operation.with_context(|| format!("{} is not documented", route.name))?;
    let mut places = Vec::new();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        if parameter["in"] == "query" {
            places.push(Place::Query(parameter["name"].as_str().context("no name")?.to_owned()));
        }
    }
    places.extend((0..route.name.matches("{}").count()).map(Place::Path));
    let mut pointers = BTreeSet::new();
    if !route.body.is_empty() {
        texts(&serde_json::from_str(route.body)?, "", &mut pointers);
        let mut schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        if let Some(reference) = schema["$ref"].as_str() {
            schema = document.pointer(reference.trim_start_matches('#')).context("a dangling $ref")?;
        }
        let properties = schema["properties"].as_object().into_iter().flatten();
        pointers.extend(properties.map(|(name, _)| format!("/{name}")));
    }
    places.extend(pointers.into_iter().map(Place::Body));
    if route.name.starts_with("POST") {
        places.push(Place::Header("idempotency-key"));
    }
    Ok(places)
}

/// What no request may have changed: columns and roles, and the number of rows where none is asked for.
async fn fixed(
    database: &Database,
    accounts: &[String],
) -> Result<(Vec<String>, Vec<Value>, BTreeMap<String, usize>)> {
    let session = database.session().await?;
    let columns = "SELECT table_name || '.' || column_name || ' ' || data_type FROM information_schema.columns \
                   WHERE table_schema = current_schema() ORDER BY 1";
    let columns = session.query(columns, &[]).await?.iter().map(|row| row.get(0)).collect();
    let rows = database.rows().await?;
    let users = rows["users"].iter().map(|row| serde_json::from_str::<Value>(row));
    let mut users = users.collect::<serde_json::Result<Vec<_>>>()?;
    users.retain(|user| accounts.iter().any(|email| user["email"] == **email));
    users.sort_by_key(|user| user["email"].to_string());
    let is_fixed = |table: &str| !GROWING.contains(&table) && !table.starts_with("run_journal");
    let counts = rows.iter().filter(|(table, _)| is_fixed(table));
    Ok((columns, users, counts.map(|(table, rows)| (table.clone(), rows.len())).collect()))
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_in_any_field_path_or_parameter_stays_text() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start_with(&database, |command| {
        command.env("GATHERING_TRUSTED_PROXIES", "127.0.0.0/8");
    })
    .await?;
    let document = server.client().get("/api/openapi.json").await?.expect(200)?;
    let scene = Scene::set(server.client()).await?;
    let accounts = ["admin", "owner", "editor", "viewer", "stranger", "guest"];
    let accounts = accounts.map(|name| format!("{name}@example.org"));
    let before = fixed(&database, &accounts).await?;
    assert_eq!(before.1.len(), accounts.len());

    let (nobody, n_requests) = (server.client().clone(), AtomicUsize::default());
    let bench = Arc::new(Bench { scene, nobody, n_requests, n_accounts: AtomicUsize::new(accounts.len()) });
    let long = ["' OR 1=1 -- ".repeat(1000), "%27".repeat(2000)];
    let mut tasks = JoinSet::new();
    for route in ROUTES {
        let (bench, long) = (Arc::clone(&bench), long.clone());
        let places = places(&document, &route)?;
        tasks.spawn(async move {
            let mut wrong = Vec::new();
            for place in places {
                for text in CORPUS.into_iter().chain(long.iter().map(String::as_str)) {
                    let is_sendable =
                        text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) && text.len() < 1000;
                    if matches!(place, Place::Header(_)) && !is_sendable {
                        continue;
                    }
                    if let Err(error) = bench.inject(&route, &place, text).await {
                        wrong.push(format!("{error:#}"));
                    }
                }
            }
            wrong
        });
    }
    let wrong: Vec<String> = tasks.join_all().await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let n_requests = bench.n_requests.load(Ordering::Relaxed);
    assert!(n_requests > 1000, "{n_requests}");

    let after = fixed(&database, &accounts).await?;
    assert!(after.0 == before.0, "the tables are others: {:?}", after.0);
    assert!(after.1 == before.1, "the accounts are others: {:?}", after.1);
    assert_eq!(after.2, before.2, "more rows than expected, or fewer");
    let users = database.rows().await?["users"].clone();
    assert_eq!(
        users.len(),
        bench.n_accounts.load(Ordering::Relaxed),
        "more accounts than expected, or fewer"
    );
    let admins = users.iter().filter(|user| user.contains("\"role\":\"admin\"")).count();
    assert_eq!(admins, 1, "{users:?}");
    assert!(!std::path::Path::new("/tmp/injected").exists());
    let file = format!("/api/v1/projects/{}/files/{}", bench.scene.project, bench.scene.file);
    assert_eq!(bench.scene.owner.get(&file).await?.status, 200);
    for client in [&bench.scene.owner, &bench.scene.editor, &bench.scene.viewer] {
        client.get(&format!("/api/v1/projects/{}", bench.scene.project)).await?.expect(200)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wildcard_in_a_filter_finds_nothing() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let scene = Scene::set(server.client()).await?;
    for wildcard in ["%25", "_", "%25admin%25", "*"] {
        for path in ["/api/v1/audit/events?type=", "/api/v1/runs?state=", "/api/v1/runs?project_id="] {
            let reply = scene.admin.get(&format!("{path}{wildcard}")).await?;
            reply.expect_problem(422, "invalid").with_context(|| format!("{path}{wildcard}"))?;
        }
    }
    let email = scene.admin.try_login("%@example.org", "correct horse battery staple").await?;
    assert!([401, 422].contains(&email.status), "{}", email.text);
    Ok(())
}
