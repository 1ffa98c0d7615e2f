//! A connection: a link, and the generation of the protocol that both sides speak over it.
//!
//! Owns how the generation is chosen. Never knows why a connection is opened, and when again.

use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use gathering_tools::Outbound;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::McpError;
use crate::calls::Answer;
use crate::config::{McpLimits, McpProtocol, McpServerConfig};
use crate::link::Link;
use crate::peer::Peer;
use crate::protocol::{
    Dialect, HEADER_MISMATCH, LEGACY_VERSION, LEGACY_VERSIONS, MODERN_VERSION, UNSUPPORTED_VERSION,
    client_info, modern_params,
};
use crate::server_info::McpServerInfo;
use crate::tool_call::ToolCall;

/// How often a server may ask for more input in one call.
const MAX_INPUT_ROUNDS: usize = 8;
/// How many questions it may ask at once.
const MAX_QUESTIONS: usize = 16;
/// Entries of a log that are asked for, where somebody hears them: these and graver ones.
const LOG_LEVEL: &str = "info";
/// How long a process may take to end whose start failed: no call is in flight.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// A server that answers.
pub(crate) struct Connection {
    pub(crate) link: Link,
    pub(crate) dialect: Dialect,
    pub(crate) info: McpServerInfo,
    pub(crate) peer: Arc<Peer>,
    pub(crate) limits: McpLimits,
    /// A call has timed out: perhaps the server answers nothing more.
    pub(crate) doubt: Notify,
}

/// How a link is greeted.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Greeting {
    /// With `server/discover`, and a short silence means that the server does not know it.
    Probe,
    Modern,
    Legacy,
    /// As `Legacy`; a server without a handshake was perhaps only too slow for the probe.
    LegacyAfterSilence,
}

/// Why a greeting failed.
enum Refusal {
    /// A new link may be greeted in this way: the question may have spoilt this one.
    Again(Greeting),
    Final(McpError),
}

impl From<McpError> for Refusal {
    fn from(error: McpError) -> Self {
        Self::Final(error)
    }
}

impl Connection {
    /// Opens a connection within the time of a start, unless `stop` comes first. `known` is what the server spoke before.
    ///
    /// # Errors
    /// Why there is no connection. A process that was started has ended.
    pub(crate) async fn open(
        config: &McpServerConfig,
        outbound: &Outbound,
        peer: &Arc<Peer>,
        known: Option<Dialect>,
        stop: &CancellationToken,
    ) -> Result<Self, McpError> {
        let limits = &config.limits;
        let deadline = Instant::now() + limits.startup;
        let mut greeting = match (config.protocol, known) {
            (McpProtocol::V2026_07_28, _) | (McpProtocol::Auto, Some(Dialect::Modern)) => Greeting::Modern,
            (McpProtocol::V2025_11_25, _) | (McpProtocol::Auto, Some(Dialect::Legacy)) => Greeting::Legacy,
            (McpProtocol::Auto, None) => Greeting::Probe,
        };
        loop {
            let link = Link::start(config, outbound, peer)?;
            let greeted = tokio::select! {
                greeted = timeout_at(deadline, greet(&link, greeting, config, peer)) => greeted,
                () = stop.cancelled() => Ok(Err(Refusal::Final(McpError::Stopped))),
            };
            let error = match greeted {
                Ok(Ok((dialect, info))) => {
                    let (peer, limits) = (Arc::clone(peer), limits.clone());
                    return Ok(Self { link, dialect, info, peer, limits, doubt: Notify::new() });
                }
                Ok(Err(Refusal::Again(next))) => {
                    greeting = next;
                    None
                }
                Ok(Err(Refusal::Final(error))) => Some(error),
                Err(_) => None,
            };
            link.close(AFTER_FAILURE).await;
            match error {
                Some(error) => return Err(error),
                None if Instant::now() < deadline => {}
                None => return Err(silent(&link, greeting, limits.startup)),
            }
        }
    }

    /// Sends a request and waits for its answer, for `after` at most.
    ///
    /// # Errors
    /// [`McpError`].
    pub(crate) async fn request(
        &self,
        method: &str,
        params: Value,
        after: Duration,
    ) -> Result<Answer, McpError> {
        let asked = self.ask_without_end(method, params);
        timeout(after, asked).await.unwrap_or_else(|_| Err(self.timed_out(method, after)))
    }

    /// As [`Connection::request`], without a limit of time.
    pub(crate) async fn ask_without_end(&self, method: &str, params: Value) -> Result<Answer, McpError> {
        self.link.request(self.dialect, method, &self.with_meta(params), None).await
    }

    /// Calls a tool, and answers what the server asks in between.
    ///
    /// # Errors
    /// [`McpError`]. A result that says `isError` is a result here.
    pub(crate) async fn call(&self, call: &Arc<ToolCall>, arguments: &Value) -> Result<Answer, McpError> {
        let after = self.limits.call;
        let called = call.within(after, self.call_in_rounds(call, arguments)).await;
        let called = called.unwrap_or_else(|| Err(self.timed_out("tools/call", after)));
        if matches!(called, Err(McpError::Rpc { code: HEADER_MISMATCH, .. })) {
            // The server wants other headers: it describes the tool differently by now.
            self.peer.tools_changed.notify_one();
        }
        called
    }

    async fn call_in_rounds(&self, call: &Arc<ToolCall>, arguments: &Value) -> Result<Answer, McpError> {
        let mut params = json!({"name": call.tool, "arguments": arguments});
        for _ in 0..MAX_INPUT_ROUNDS {
            let mut asked = self.with_meta(params.clone());
            if self.dialect == Dialect::Modern && self.info.has_log && call.is_heard() {
                asked["_meta"]["io.modelcontextprotocol/logLevel"] = json!(LOG_LEVEL);
            }
            let answer = self.link.request(self.dialect, "tools/call", &asked, Some(call)).await?;
            match answer.result.get("resultType").and_then(Value::as_str) {
                None | Some("complete") => return Ok(answer),
                Some("input_required") => {
                    params["inputResponses"] = self.answer_all(&answer.result, call).await?;
                    if let Some(state) = answer.result.get("requestState") {
                        params["requestState"] = state.clone();
                    }
                }
                Some(_) => return Err(invalid("its `resultType` is unknown")),
            }
        }
        Err(invalid("it asks for input too often"))
    }

    async fn answer_all(&self, result: &Value, call: &ToolCall) -> Result<Value, McpError> {
        let questions = result.get("inputRequests").and_then(Value::as_object);
        let questions = questions.filter(|questions| questions.len() <= MAX_QUESTIONS);
        let questions = questions.ok_or_else(|| invalid("its `inputRequests` are missing or too many"))?;
        let answers = questions.iter().map(|(key, question)| async move {
            let method = question.get("method").and_then(Value::as_str).unwrap_or_default();
            let params = question.get("params").unwrap_or(&Value::Null);
            let answer = self.peer.answer(None, method, params, Some(call)).await?;
            Ok::<_, McpError>((key.clone(), answer))
        });
        Ok(Value::Object(try_join_all(answers).await?.into_iter().collect()))
    }

    fn with_meta(&self, params: Value) -> Value {
        match self.dialect {
            Dialect::Modern => modern_params(params, &self.peer.capabilities()),
            Dialect::Legacy => params,
        }
    }

    pub(crate) fn timed_out(&self, method: &str, after: Duration) -> McpError {
        McpError::TimedOut { method: method.to_owned(), after, hint: self.link.hint(), sent: true }
    }
}

async fn greet(
    link: &Link,
    greeting: Greeting,
    config: &McpServerConfig,
    peer: &Peer,
) -> Result<(Dialect, McpServerInfo), Refusal> {
    match greeting {
        Greeting::Modern => match discover(link, peer).await? {
            Some(info) => Ok((Dialect::Modern, info)),
            None => Err(handshake(format!("it does not speak {MODERN_VERSION}")).into()),
        },
        Greeting::Legacy => Ok((Dialect::Legacy, initialize(link, peer).await?)),
        Greeting::LegacyAfterSilence => match initialize(link, peer).await {
            Err(McpError::Rpc { .. }) => Err(Refusal::Again(Greeting::Modern)),
            initialized => Ok((Dialect::Legacy, initialized?)),
        },
        Greeting::Probe => match probe(link, config, peer).await? {
            Some(info) => Ok((Dialect::Modern, info)),
            None => match initialize(link, peer).await {
                Err(_) if link.is_stdio() => Err(Refusal::Again(Greeting::Legacy)),
                initialized => Ok((Dialect::Legacy, initialized?)),
            },
        },
    }
}

/// Asks whether the server is modern; `None` if it is not, and this link can be greeted in the old way.
async fn probe(link: &Link, config: &McpServerConfig, peer: &Peer) -> Result<Option<McpServerInfo>, Refusal> {
    let asked = timeout(config.limits.probe_silence, discover(link, peer)).await;
    match asked {
        Ok(Ok(found)) => Ok(found),
        // It is modern and speaks another version; perhaps it also knows the handshake.
        Ok(Err(McpError::Rpc { code: UNSUPPORTED_VERSION, .. })) => Err(Refusal::Again(Greeting::Legacy)),
        Ok(Err(McpError::Rpc { .. } | McpError::Status { status: 400..=499, .. })) => Ok(None),
        // The question alone makes some servers modern for the life of the process, and ends others.
        Ok(Err(_)) if link.is_stdio() => Err(Refusal::Again(Greeting::Legacy)),
        Err(_) if link.is_stdio() => Err(Refusal::Again(Greeting::LegacyAfterSilence)),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// `None` if the answer is not that of a modern server: older ones may answer whatever they are asked.
async fn discover(link: &Link, peer: &Peer) -> Result<Option<McpServerInfo>, McpError> {
    let params = modern_params(json!({}), &peer.capabilities());
    let answer = link.request(Dialect::Modern, "server/discover", &params, None).await?;
    let versions = answer.result.get("supportedVersions").and_then(Value::as_array);
    let speaks = versions.is_some_and(|versions| versions.iter().any(|version| version == MODERN_VERSION));
    let is_modern = answer.result.get("resultType").is_some_and(Value::is_string) && speaks;
    Ok(is_modern.then(|| McpServerInfo::discovered(&answer.result)))
}

async fn initialize(link: &Link, peer: &Peer) -> Result<McpServerInfo, McpError> {
    let params = json!({
        "protocolVersion": LEGACY_VERSION,
        "capabilities": peer.capabilities(),
        "clientInfo": client_info(),
    });
    let answer = link.request(Dialect::Legacy, "initialize", &params, None).await?;
    let version = answer.result.get("protocolVersion").and_then(Value::as_str).unwrap_or_default();
    if !LEGACY_VERSIONS.contains(&version) {
        let version = crate::message::shortened(version, 32);
        return Err(handshake(format!("it answers {LEGACY_VERSION} with `{version}`")));
    }
    link.notify(Dialect::Legacy, "notifications/initialized", &json!({})).await?;
    Ok(McpServerInfo::initialized(&answer.result))
}

fn silent(link: &Link, greeting: Greeting, after: Duration) -> McpError {
    let is_legacy = matches!(greeting, Greeting::Legacy | Greeting::LegacyAfterSilence);
    let method = if is_legacy { "initialize" } else { "server/discover" };
    McpError::TimedOut { method: method.to_owned(), after, hint: link.hint(), sent: false }
}

fn handshake(reason: String) -> McpError {
    McpError::Handshake { reason }
}

fn invalid(reason: &str) -> McpError {
    McpError::InvalidAnswer { reason: reason.to_owned() }
}
