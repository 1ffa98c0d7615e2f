//! Servers with OpenAI's chat completions API: OpenAI, Ollama, vLLM, llama.cpp and many more.
//!
//! Owns the exchange. The key is sent in one header and nowhere else.

mod call_ids;
mod events;
mod schema;
mod stream;
mod wire;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gathering_domain::{ExposeSecret as _, Secret};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, Url};

use serde_json::{Value, json};

use self::events::EventReader;
use self::stream::Assembly;
use self::wire::{Fault, Form, Streaming};
use crate::chat::{ChatReply, ChatRequest};
use crate::model::{ChatModel, ModelError};

/// The longest answer: 8 MiB.
const MAX_REPLY_BYTES: usize = 8 * 1024 * 1024;
/// The longest part of a provider's error message that we repeat.
const MAX_MESSAGE_CHARS: usize = 300;
/// The time limit for opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest `Retry-After` that we pass on: a day.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(86_400);
/// How long after the end of an answer its usage may come.
const USAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long we wait for the end of a stream whose answer is complete, so that its connection can be used again.
const LINGER: Duration = Duration::from_millis(250);

/// A server with OpenAI's chat completions API.
///
/// The operator sets its address, so the address may be private, unlike those that tools request.
///
/// Answers are streamed: a server then notices when the caller is gone, and stops generating. A server that answers at
/// once nevertheless, or that does not know `stream_options`, is fine; so is a model that this caller may not stream.
///
/// Every answer is bounded: a request without `max_tokens` gets [`ChatRequest::ANSWER_TOKENS`] on its way, except to
/// OpenAI's own server, whose models bound themselves. A server that finds the number too large rejects the request, and
/// the error says what to set.
#[derive(Debug)]
pub struct OpenAiCompatible {
    client: Client,
    name: String,
    endpoint: Url,
    key: Option<Secret>,
    timeout: Duration,
    idle_timeout: Duration,
    official: bool,
    /// The server has refused `stream_options`.
    is_without_usage: AtomicBool,
}

impl OpenAiCompatible {
    /// The default time limit of an answer.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);
    /// The default time limit between two parts of a streamed answer. Before the first one, the model reads the question.
    pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(120);
    /// OpenAI's own server.
    pub const OFFICIAL_BASE_URL: &str = "https://api.openai.com/v1";

    /// The server at `base_url` (such as `http://localhost:11434/v1`), with its key if it needs one, as provider
    /// `openai`. Sends nothing yet.
    ///
    /// # Errors
    /// [`ModelError::Setup`] if the URL or the key is invalid.
    pub fn new(base_url: &str, key: Option<Secret>) -> Result<Self, ModelError> {
        let setup = |reason: String| ModelError::Setup { provider: "openai".to_owned(), reason };
        let endpoint = endpoint(base_url).map_err(setup)?;
        if key.as_ref().is_some_and(|key| bearer(key).is_none()) {
            return Err(setup("the API key contains characters that are invalid in a header".to_owned()));
        }
        // An error means that the process has already chosen its TLS provider, which is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // No redirects: they would send the key to another server.
        let builder = || {
            Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(CONNECT_TIMEOUT)
                .user_agent(concat!("gathering/", env!("CARGO_PKG_VERSION")))
        };
        let client = builder().build().or_else(|_| {
            tracing::warn!("cannot read the system's certificate authorities: install the CA certificates");
            builder().tls_certs_only([]).build().map_err(|error| setup(error.to_string()))
        })?;
        let official = endpoint.host_str() == Some("api.openai.com");
        Ok(Self {
            client,
            name: "openai".to_owned(),
            endpoint,
            key,
            timeout: Self::DEFAULT_TIMEOUT,
            idle_timeout: Self::DEFAULT_IDLE_TIMEOUT,
            official,
            is_without_usage: AtomicBool::new(false),
        })
    }

    /// Sets the provider's name, for a process with several such servers.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the time limit of a whole answer.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the time limit between two parts of a streamed answer.
    #[must_use]
    pub const fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    async fn exchange(&self, request: &ChatRequest) -> Result<ChatReply, ModelError> {
        let is_without_usage = self.is_without_usage.load(Ordering::Relaxed);
        let streaming = if is_without_usage { Streaming::Plain } else { Streaming::WithUsage };
        // llama.cpp's server lets a model write nothing but the answer then, so that it never calls a tool.
        let has_schema = request.output_schema.is_some() && (self.official || request.tools.is_empty());
        let mut form = Form { streaming, has_schema };
        loop {
            let response = self.send(request, form).await?;
            let (status, headers) = (response.status(), response.headers().clone());
            if status.is_success() {
                return self.read(response, &headers, &request.model).await;
            }
            let body = self.body(response).await?;
            let said = serde_json::from_slice(&body).unwrap_or_default();
            let Some(simpler) = form.simpler(status.as_u16(), &body, &said) else {
                return Err(self.refusal(status.as_u16(), retry_after(&headers, Utc::now()), &said));
            };
            // Whether it streams at all is a matter of the model.
            if simpler.streaming == Streaming::Plain {
                self.is_without_usage.store(true, Ordering::Relaxed);
            }
            form = simpler;
        }
    }

    async fn send(&self, request: &ChatRequest, form: Form) -> Result<Response, ModelError> {
        let body = wire::request(request, self.official, form);
        let mut post = self.client.post(self.endpoint.clone()).json(&body);
        if let Some(value) = self.key.as_ref().and_then(bearer) {
            post = post.header(AUTHORIZATION, value);
        }
        post.send().await.map_err(|error| self.broken(error))
    }

    async fn read(
        &self,
        response: Response,
        headers: &HeaderMap,
        asked_model: &str,
    ) -> Result<ChatReply, ModelError> {
        let reply = if is_stream(headers) {
            self.streamed(response, asked_model).await?
        } else {
            let body = self.body(response).await?;
            // Some proxies lose the type.
            match body.trim_ascii_start().starts_with(b"data:") {
                true => stream::whole(&body, &self.name, asked_model),
                false => wire::reply(&body, &self.name, asked_model),
            }
        };
        reply.map_err(|fault| self.faulty(fault))
    }

    async fn streamed(
        &self,
        mut response: Response,
        asked_model: &str,
    ) -> Result<Result<ChatReply, Fault>, ModelError> {
        let (mut events, mut assembly) = (EventReader::default(), Assembly::default());
        let mut limit = self.timeout;
        while !assembly.is_done() {
            let chunk = match tokio::time::timeout(limit, response.chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => break,
                // Only the usage is missing, if anything.
                Ok(Err(_)) | Err(_) if assembly.is_complete() => break,
                Ok(Err(error)) => return Err(self.broken(error)),
                Err(_) => {
                    let seconds = limit.as_secs_f64();
                    let reason = format!("the stream was cut off: nothing came for {seconds} seconds");
                    return Ok(Err(Fault::Malformed(reason)));
                }
            };
            if let Err(fault) = assembly.read(&mut events, &chunk) {
                return Ok(Err(fault));
            }
            let is_complete = assembly.is_complete();
            limit = if is_complete { self.idle_timeout.min(USAGE_TIMEOUT) } else { self.idle_timeout };
        }
        if assembly.is_done() {
            let rest = async { while let Ok(Some(_)) = response.chunk().await {} };
            let _ = tokio::time::timeout(LINGER, rest).await;
        }
        Ok(assembly.end(&mut events, &self.name, asked_model))
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, ModelError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.broken(error))? {
            if body.len() + chunk.len() > MAX_REPLY_BYTES {
                let reason = format!("it is larger than {MAX_REPLY_BYTES} bytes");
                return Err(ModelError::Malformed { provider: self.name.clone(), reason });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn broken(&self, error: reqwest::Error) -> ModelError {
        ModelError::Connection { provider: self.name.clone(), source: error.without_url() }
    }

    fn faulty(&self, fault: Fault) -> ModelError {
        match fault {
            Fault::Malformed(reason) => ModelError::Malformed { provider: self.name.clone(), reason },
            Fault::Said(error) => self.refusal(wire::status_of(&error), None, &json!({"error": error})),
        }
    }

    fn refusal(&self, status: u16, retry_after: Option<Duration>, said: &Value) -> ModelError {
        let provider = self.name.clone();
        match status {
            429 => ModelError::RateLimited { provider, retry_after },
            // The provider's message may contain a part of the key.
            code @ (401 | 403) => ModelError::Unauthorized {
                provider,
                status: code,
                hint: match self.key {
                    Some(_) => "check the configured API key".to_owned(),
                    None => "no API key is configured: set OPENAI_API_KEY".to_owned(),
                },
            },
            code if code == 408 || code == 409 || code >= 500 => {
                let message = self.words(said);
                ModelError::Unavailable { provider, status: code, message, retry_after }
            }
            code => {
                let words = self.words(said);
                let message = format!("{words}{}", wire::advice(&words));
                ModelError::Rejected { provider, status: code, message }
            }
        }
    }

    /// The provider's message, shortened and without the key.
    fn words(&self, said: &Value) -> String {
        let mut words = wire::error_message(said).unwrap_or_else(|| "it gave no reason".to_owned());
        if let Some(key) = self.key.as_ref().filter(|key| !key.expose_secret().is_empty()) {
            words = words.replace(key.expose_secret(), "[key]");
        }
        words.chars().filter(|char| !char.is_control()).take(MAX_MESSAGE_CHARS).collect()
    }
}

#[async_trait]
impl ChatModel for OpenAiCompatible {
    fn provider(&self) -> &str {
        &self.name
    }

    async fn complete(&self, request: &ChatRequest) -> Result<ChatReply, ModelError> {
        match tokio::time::timeout(self.timeout, self.exchange(request)).await {
            Ok(ended) => ended,
            Err(_) => Err(ModelError::TimedOut { provider: self.name.clone(), after: self.timeout }),
        }
    }
}

/// The base URL with the path of the API. A query, which some servers need, is kept.
fn endpoint(base_url: &str) -> Result<Url, String> {
    let mut url = Url::parse(base_url.trim()).map_err(|error| format!("invalid base URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("the base URL must begin with http:// or https://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the base URL must not contain credentials: set OPENAI_API_KEY".to_owned());
    }
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(["chat", "completions"]);
    }
    Ok(url)
}

fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream")
}

fn bearer(key: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The pause that `Retry-After` asks for: seconds, or the date of its end. A day at most.
fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => (DateTime::parse_from_rfc2822(text).ok()?.to_utc() - now).to_std().ok()?,
    };
    Some(pause.min(MAX_RETRY_AFTER))
}
