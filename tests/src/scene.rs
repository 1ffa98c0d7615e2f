//! One project with a member of each role, and everybody else: what routes are tried on.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::json;

use crate::{Client, PASSWORD, Reply, Route, begin, pipeline};

/// The people, the project, and what is in it.
#[derive(Debug)]
pub struct Scene {
    /// Admin, and no member of the project.
    pub admin: Client,
    /// Owner of the project.
    pub owner: Client,
    /// Editor of the project.
    pub editor: Client,
    /// Viewer of the project.
    pub viewer: Client,
    /// Has an account and nothing to do with the project.
    pub stranger: Client,
    /// The id of an account that is sometimes a member.
    pub guest: String,
    /// The project.
    pub project: String,
    /// A pipeline in it.
    pub pipeline: String,
    /// An agent in it.
    pub agent: String,
    /// A run of it that has succeeded.
    pub run: String,
    /// A file in it.
    pub file: String,
    /// The name of a secret in it.
    pub secret: String,
    /// A schedule in it.
    pub schedule: String,
    /// A hook in it, which posts events.
    pub hook: String,
    /// The token of that hook.
    pub hook_token: String,
    /// A call of it.
    pub delivery: String,
    count: AtomicU32,
}

impl Scene {
    /// Sets it up on an empty server.
    ///
    /// # Errors
    /// If something is refused.
    pub async fn set(nobody: &Client) -> Result<Scene> {
        let admin = nobody.join("admin@example.org").await?;
        let owner = nobody.join("owner@example.org").await?;
        let editor = nobody.join("editor@example.org").await?;
        let viewer = nobody.join("viewer@example.org").await?;
        let stranger = nobody.join("stranger@example.org").await?;
        let guest = nobody.join("guest@example.org").await?.user_id().await?;
        let project = owner.create_project("shared").await?;
        let definition = pipeline(&[begin()], &[]);
        let body = json!({"project_id": project, "name": "shared", "definition": definition});
        let created = owner.post("/api/v1/pipelines", &body).await?.expect(201)?;
        let pipeline = created["id"].as_str().context("no id")?.to_owned();
        let agent = create_agent(&owner, &project).await?;
        let run = owner.start_run(&pipeline).await?;
        owner.run_in(&run, &["succeeded"], Duration::from_secs(30)).await?;
        let file = "notes/a.txt".to_owned();
        let secret = "API_KEY".to_owned();
        let schedule = create_schedule(&owner, &project, &pipeline).await?;
        let (hook, hook_token) = create_hook(&owner, &project).await?;
        let called = nobody.post(&format!("/api/v1/hooks/in/{hook_token}"), &json!({})).await?.expect(202)?;
        let delivery = called["delivery_id"].as_str().context("no id")?.to_owned();
        let scene = Scene {
            admin,
            owner,
            editor,
            viewer,
            stranger,
            guest,
            project,
            pipeline,
            agent,
            run,
            file,
            secret,
            schedule,
            hook,
            hook_token,
            delivery,
            count: AtomicU32::new(0),
        };
        scene.add_members(&scene.project).await?;
        let file = format!("/api/v1/projects/{}/files/{}", scene.project, scene.file);
        scene.owner.put_bytes(&file, "of the owner").await?.expect(201)?;
        scene.set_secret(&scene.secret).await?;
        Ok(scene)
    }

    async fn set_secret(&self, name: &str) -> Result<()> {
        let path = format!("/api/v1/projects/{}/secrets/{name}", self.project);
        let reply = self.owner.put(&path, &json!({"value": PASSWORD})).await?;
        // The name may be taken, as a project has a bounded number of secrets.
        ensure!([201, 204].contains(&reply.status), "{}: {}", reply.status, reply.text);
        Ok(())
    }

    async fn add_members(&self, project: &str) -> Result<()> {
        for (member, role) in [(&self.editor, "editor"), (&self.viewer, "viewer")] {
            let path = format!("/api/v1/projects/{project}/members/{}", member.user_id().await?);
            self.owner.put(&path, &json!({"role": role})).await?.expect(204)?;
        }
        Ok(())
    }

    /// Fills in the placeholders in braces; a `new` one is created first, so that the request can change or delete it.
    ///
    /// # Errors
    /// If it cannot be made.
    pub async fn fill(&self, template: &str) -> Result<String> {
        let mut text = template.to_owned();
        let fixed: [(&str, &str); 12] = [
            ("{password}", PASSWORD),
            ("{guest}", &self.guest),
            ("{project}", &self.project),
            ("{pipeline}", &self.pipeline),
            ("{agent}", &self.agent),
            ("{run}", &self.run),
            ("{file}", &self.file),
            ("{secret}", &self.secret),
            ("{schedule}", &self.schedule),
            ("{hook}", &self.hook),
            ("{hook_token}", &self.hook_token),
            ("{delivery}", &self.delivery),
        ];
        for (name, value) in fixed {
            text = text.replace(name, value);
        }
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        if text.contains("{new_email}") {
            text = text.replace("{new_email}", &format!("new{number}@example.org"));
        }
        if text.contains("{refresh_token}") {
            text = text.replace("{refresh_token}", &self.owner.session("owner@example.org").await?.1);
        }
        if text.contains("{new_key}") {
            text = text.replace("{new_key}", &self.owner.create_key(&["read"]).await?.1);
        }
        if text.contains("{new_project}") {
            let project = self.owner.create_project("new").await?;
            self.add_members(&project).await?;
            text = text.replace("{new_project}", &project);
        }
        if text.contains("{new_member}") {
            let path = format!("/api/v1/projects/{}/members/{}", self.project, self.guest);
            self.owner.put(&path, &json!({"role": "viewer"})).await?.expect(204)?;
            text = text.replace("{new_member}", &self.guest);
        }
        if text.contains("{new_pipeline}") {
            let body = json!({
                "project_id": self.project, "name": "new", "definition": pipeline(&[begin()], &[]),
            });
            let created = self.owner.post("/api/v1/pipelines", &body).await?.expect(201)?;
            text = text.replace("{new_pipeline}", created["id"].as_str().context("no id")?);
        }
        if text.contains("{new_agent}") {
            text = text.replace("{new_agent}", &create_agent(&self.owner, &self.project).await?);
        }
        if text.contains("{new_schedule}") {
            let schedule = create_schedule(&self.owner, &self.project, &self.pipeline).await?;
            text = text.replace("{new_schedule}", &schedule);
        }
        if text.contains("{new_hook}") {
            text = text.replace("{new_hook}", &create_hook(&self.owner, &self.project).await?.0);
        }
        if text.contains("{new_secret}") {
            self.set_secret("NEW").await?;
            text = text.replace("{new_secret}", "NEW");
        }
        if text.contains("{new_file}") {
            let file = format!("new/{number}.txt");
            let path = format!("/api/v1/projects/{}/files/{file}", self.project);
            self.owner.put_bytes(&path, "new").await?.expect(201)?;
            text = text.replace("{new_file}", &file);
        }
        Ok(text)
    }

    /// Sends the request of a route as `client`.
    ///
    /// # Errors
    /// If there is no answer, or what it needs cannot be made.
    pub async fn ask(&self, client: &Client, route: &Route) -> Result<Reply> {
        let method = Method::from_bytes(route.method().as_bytes())?;
        let mut request = client.request(method, &self.fill(route.path).await?);
        if !route.body.is_empty() {
            let body = self.fill(route.body).await?;
            request = request.header("content-type", "application/json").body(body);
        }
        client.send(request).await
    }
}

/// An agent that needs no model.
async fn create_agent(owner: &Client, project: &str) -> Result<String> {
    let body = json!({"project_id": project, "name": "Echo", "provider": "scripted"});
    let created = owner.post("/api/v1/agents", &body).await?.expect(201)?;
    Ok(created["id"].as_str().context("no id")?.to_owned())
}

/// A schedule of the pipeline that fires once a year.
async fn create_schedule(owner: &Client, project: &str, pipeline: &str) -> Result<String> {
    let body = json!({
        "project_id": project, "name": "yearly", "trigger": {"type": "cron", "expression": "@yearly"},
        "action": {"action": "execute_pipeline", "pipeline_id": pipeline},
    });
    let created = owner.post("/api/v1/schedules", &body).await?.expect(201)?;
    Ok(created["id"].as_str().context("no id")?.to_owned())
}

/// A hook that posts events, and its token.
async fn create_hook(owner: &Client, project: &str) -> Result<(String, String)> {
    let body = json!({"project_id": project, "name": "calls", "target": {"event_type": "call.received"}});
    let created = owner.post("/api/v1/hooks", &body).await?.expect(201)?;
    let text = |name: &str| created[name].as_str().map(str::to_owned).with_context(|| format!("no {name}"));
    Ok((text("id")?, text("token")?))
}
