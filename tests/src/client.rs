//! A client of the HTTP interface, as a program would write one.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::secrets;

/// More than any answer may take, so that a test fails rather than hangs.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The password of every account that [`Client::register`] makes.
pub const PASSWORD: &str = "correct horse battery staple";

/// A client of one server, as one account or without credentials.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
    headers: Vec<(String, String)>,
}

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as it came.
    pub text: String,
    /// The body as JSON; null if it is none.
    pub body: Value,
}

impl Reply {
    /// A header as text; empty if it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body, if the status is the one expected.
    ///
    /// # Errors
    /// With status and body if it is another.
    pub fn expect(self, status: u16) -> Result<Value> {
        ensure!(self.status == status, "{} instead of {status}: {}", self.status, self.text);
        Ok(self.body)
    }

    /// Checks that it is the problem expected, with everything that a problem has.
    ///
    /// # Errors
    /// If it is something else.
    pub fn expect_problem(&self, status: u16, kind: &str) -> Result<()> {
        let is_one = self.status == status
            && self.header("content-type") == "application/problem+json"
            && self.body["type"] == format!("/problems/{kind}")
            && self.body["status"] == status
            && self.body["title"].is_string()
            && self.body["detail"].is_string()
            && self.body["instance"] == self.header("x-request-id");
        ensure!(is_one, "{} {} instead of {status} {kind}", self.status, self.text);
        Ok(())
    }

    /// The pointers of the things that are wrong with the input.
    pub fn pointers(&self) -> Vec<&str> {
        let errors = self.body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        errors.iter().filter_map(|error| error["pointer"].as_str()).collect()
    }

    /// `Retry-After` as a duration.
    ///
    /// # Errors
    /// If it is missing or no whole number of seconds.
    pub fn retry_after(&self) -> Result<Duration> {
        let text = self.header("retry-after");
        Ok(Duration::from_secs(text.parse().with_context(|| format!("Retry-After is {text:?}"))?))
    }

    /// A text of the body.
    ///
    /// # Errors
    /// If there is none under this name.
    pub fn text_of(&self, name: &str) -> Result<&str> {
        self.body[name].as_str().with_context(|| format!("no `{name}` in {} {}", self.status, self.text))
    }
}

impl Client {
    /// A client of the server at `base`, such as `http://127.0.0.1:8080`, without credentials.
    ///
    /// # Errors
    /// If it cannot be set up.
    pub fn new(base: String) -> Result<Client> {
        // Another test of this process may have chosen it already, which is as good.
        rustls::crypto::ring::default_provider().install_default().ok();
        let http = reqwest::Client::builder().tls_certs_only([]).no_proxy().timeout(TIMEOUT).build()?;
        Ok(Client { http, base, token: None, headers: Vec::new() })
    }

    /// The same client with this access token.
    pub fn with_token(&self, token: &str) -> Client {
        Client { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same client without credentials.
    pub fn as_nobody(&self) -> Client {
        Client { token: None, ..self.clone() }
    }

    /// The same client, which sends this header with every request.
    pub fn with_header(&self, name: &str, value: &str) -> Client {
        let mut client = self.clone();
        client.headers.push((name.to_owned(), value.to_owned()));
        client
    }

    /// The same client behind a proxy that says this is its address.
    pub fn from_address(&self, address: &str) -> Client {
        self.with_header("x-forwarded-for", address)
    }

    /// The access token.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Registers an account with the password of all tests; the answer is the user.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn register(&self, email: &str) -> Result<Value> {
        let body = json!({"email": email, "name": "Ada", "password": PASSWORD});
        self.as_nobody().post("/api/v1/auth/register", &body).await?.expect(201)
    }

    /// Logs in to an account that [`Client::register`] made: a client that speaks as that account.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn login(&self, email: &str) -> Result<Client> {
        Ok(self.session(email).await?.0)
    }

    /// As [`Client::login`], with the refresh token of the session.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn session(&self, email: &str) -> Result<(Client, String)> {
        let tokens = self.try_login(email, PASSWORD).await?.expect(200)?;
        let text =
            |name: &str| tokens[name].as_str().map(str::to_owned).with_context(|| format!("no {name}"));
        Ok((self.with_token(&text("access_token")?), text("refresh_token")?))
    }

    /// Asks for a session, whatever the answer.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn try_login(&self, email: &str, password: &str) -> Result<Reply> {
        let body = json!({"email": email, "password": password});
        self.as_nobody().post("/api/v1/auth/login", &body).await
    }

    /// The id of the account that this client speaks as.
    ///
    /// # Errors
    /// If it has no credentials.
    pub async fn user_id(&self) -> Result<String> {
        let me = self.get("/api/v1/auth/me").await?.expect(200)?;
        Ok(me["id"].as_str().context("no id")?.to_owned())
    }

    /// Makes an API key; the answer is a client that shows it, and the key's id.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn create_key(&self, scopes: &[&str]) -> Result<(Client, String)> {
        let body = json!({"name": "a key", "scopes": scopes});
        let key = self.post("/api/v1/auth/api-keys", &body).await?.expect(201)?;
        let secret = key["secret"].as_str().context("no secret")?;
        Ok((self.with_token(secret), key["id"].as_str().context("no id")?.to_owned()))
    }

    /// Makes a project; the answer is its id.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn create_project(&self, name: &str) -> Result<String> {
        let project = self.post("/api/v1/projects", &json!({"name": name})).await?.expect(201)?;
        Ok(project["id"].as_str().context("no id")?.to_owned())
    }

    /// Registers an account and logs in to it.
    ///
    /// # Errors
    /// If either is refused.
    pub async fn join(&self, email: &str) -> Result<Client> {
        self.register(email).await?;
        self.login(email).await
    }

    /// A request to be completed and handed to [`Client::send`].
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request and reads the answer whole.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Result<Reply> {
        let request = request.build()?;
        if let Some(value) = request.headers().get("authorization").and_then(|value| value.to_str().ok()) {
            secrets::note_authorization(value);
        }
        if let Some(Ok(body)) = request.body().and_then(|body| body.as_bytes()).map(serde_json::from_slice) {
            secrets::note_secrets_in(&body);
        }
        let response = self.http.execute(request).await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        let body = serde_json::from_str(&text).unwrap_or_default();
        secrets::note_secrets_in(&body);
        Ok(Reply { status, headers, text, body })
    }

    /// GET.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn get(&self, path: &str) -> Result<Reply> {
        self.send(self.request(Method::GET, path)).await
    }

    /// POST of JSON.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Reply> {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// PUT of JSON.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Reply> {
        self.send(self.request(Method::PUT, path).json(body)).await
    }

    /// PATCH of JSON.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn patch(&self, path: &str, body: &Value) -> Result<Reply> {
        self.send(self.request(Method::PATCH, path).json(body)).await
    }

    /// DELETE.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn delete(&self, path: &str) -> Result<Reply> {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// PUT of bytes, such as a file.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn put_bytes(&self, path: &str, bytes: impl Into<Vec<u8>>) -> Result<Reply> {
        self.send(self.request(Method::PUT, path).body(bytes.into())).await
    }

    /// Creates a pipeline; the answer is its id.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn create_pipeline(&self, definition: &Value) -> Result<String> {
        let body = json!({"name": "a pipeline", "definition": definition});
        let created = self.post("/api/v1/pipelines", &body).await?;
        Ok(created.clone().expect(201)?["id"].as_str().context("no id")?.to_owned())
    }

    /// Starts a run of a pipeline without input; the answer is its id.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn start_run(&self, pipeline: &str) -> Result<String> {
        let started = self.post(&format!("/api/v1/pipelines/{pipeline}/runs"), &json!({})).await?;
        Ok(started.expect(202)?["id"].as_str().context("no id")?.to_owned())
    }

    /// Waits until a run is in one of these states; the answer is the run with its nodes.
    ///
    /// # Errors
    /// If `limit` passes first.
    pub async fn run_in(&self, run: &str, states: &[&str], limit: Duration) -> Result<Value> {
        let path = format!("/api/v1/runs/{run}");
        crate::wait_until(limit, &format!("run {run} is {}", states.join(" or ")), async || {
            let reply = self.get(&path).await.map_err(|error| format!("{error:#}"))?;
            let state = reply.body["state"].as_str().unwrap_or_default();
            if states.contains(&state) { Ok(reply.body) } else { Err(reply.text) }
        })
        .await
    }
}
