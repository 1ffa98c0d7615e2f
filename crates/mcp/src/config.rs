//! How a server is reached, and the limits of the connection.
//!
//! Owns the settings and what makes them valid. Never knows where they were written down.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gathering_domain::{Digest, EffectClass, ExposeSecret as _, McpServerName, Secret};
use serde_json::json;
use url::Url;

use crate::McpError;
use crate::pins::ToolPins;

/// One MCP server: how it is reached, what it may do, and what bounds it.
#[derive(Debug, Clone)]
pub struct McpServerConfig {
    /// Its name, the first part of the names of its tools: 1 to 24 letters, digits, `-` and single `_` between them.
    pub name: String,
    /// How it is reached.
    pub transport: McpTransport,
    /// The generation of the protocol.
    pub protocol: McpProtocol,
    /// What bounds the connection.
    pub limits: McpLimits,
    /// How lenient the effect classes of its tools may be.
    pub allowance: EffectAllowance,
    /// The definitions of tools that the operator has seen and accepted.
    pub pins: ToolPins,
    /// What is done before each try to connect.
    pub on_connect: OnConnect,
}

/// What is done each time before a server is connected: the values that it is given in confidence are about to be used.
#[derive(Clone, Default)]
pub struct OnConnect(Option<Arc<dyn Fn() + Send + Sync>>);

impl OnConnect {
    /// Does this. The connection waits for it, so it must neither block nor take long.
    pub fn new(act: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(act)))
    }

    pub(crate) fn act(&self) {
        if let Some(act) = &self.0 {
            act();
        }
    }
}

impl fmt::Debug for OnConnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnConnect").field(&self.0.is_some()).finish()
    }
}

impl McpServerConfig {
    /// A server with the default limits: each tool is `unsafe`, and waits until it is pinned.
    pub fn new(name: impl Into<String>, transport: McpTransport) -> Self {
        Self {
            name: name.into(),
            transport,
            protocol: McpProtocol::default(),
            limits: McpLimits::default(),
            allowance: EffectAllowance::default(),
            pins: ToolPins::default(),
            on_connect: OnConnect::default(),
        }
    }

    /// Checks what no type says.
    ///
    /// # Errors
    /// [`McpError::Config`] with the first fault.
    pub fn check(&self) -> Result<(), McpError> {
        let invalid = |reason: &str| Err(McpError::Config { reason: reason.to_owned() });
        if let Err(error) = self.name.parse::<McpServerName>() {
            return invalid(&error.to_string());
        }
        let limits = &self.limits;
        if limits.max_tools == 0 || limits.max_calls == 0 || limits.max_line_bytes == 0 {
            return invalid("the limits of tools, calls and line bytes must be at least 1");
        }
        match &self.transport {
            McpTransport::Stdio(command) if command.command.is_empty() => invalid("the command is empty"),
            McpTransport::Stdio(_) => Ok(()),
            McpTransport::Http(endpoint) => endpoint.check(),
        }
    }
}

impl McpServerConfig {
    /// What tells a connection with these settings from one with others, whatever is accepted of its tools.
    pub(crate) fn settings_digest(&self) -> Digest {
        let plain = |values: &BTreeMap<String, Secret>| -> BTreeMap<String, String> {
            values.iter().map(|(name, value)| (name.clone(), value.expose_secret().to_owned())).collect()
        };
        let transport = match &self.transport {
            McpTransport::Stdio(StdioCommand { command, args, env, cwd }) => {
                json!(["stdio", command, args, plain(env), cwd])
            }
            McpTransport::Http(HttpEndpoint { url, headers, auth }) => {
                let auth = match auth {
                    McpAuth::None => json!(null),
                    McpAuth::Bearer(token) => json!(token.expose_secret()),
                    McpAuth::ClientCredentials { token_url, client_id, client_secret, scope } => {
                        json!([token_url, client_id, client_secret.expose_secret(), scope])
                    }
                };
                json!(["http", url, plain(headers), auth])
            }
        };
        let rest = format!("{:?} {:?} {:?}", self.protocol, self.limits, self.allowance);
        Digest::of_json(&json!([self.name, transport, rest]))
    }
}

/// How a server is reached.
#[derive(Debug, Clone)]
pub enum McpTransport {
    /// A program that this process starts, spoken to over its standard input and output.
    Stdio(StdioCommand),
    /// A server that listens to HTTP (Streamable HTTP).
    Http(HttpEndpoint),
}

/// A program to start.
#[derive(Debug, Clone, Default)]
pub struct StdioCommand {
    /// The program: a path, or a name to find on the `PATH`.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment. Besides these it inherits only `HOME`, `LANG`, `LOGNAME`, `PATH`, `SHELL`, `TERM`, `TMPDIR`,
    /// `TZ` and `USER`: the secrets of this process are no business of the server's.
    pub env: BTreeMap<String, Secret>,
    /// Its working directory; that of this process if there is none.
    pub cwd: Option<PathBuf>,
}

impl StdioCommand {
    /// A command with these arguments.
    pub fn new<A: Into<String>>(command: impl Into<String>, args: impl IntoIterator<Item = A>) -> Self {
        Self { command: command.into(), args: args.into_iter().map(Into::into).collect(), ..Self::default() }
    }
}

/// An address to send requests to.
#[derive(Debug, Clone)]
pub struct HttpEndpoint {
    /// The URL of the endpoint.
    pub url: String,
    /// Headers of every request.
    pub headers: BTreeMap<String, Secret>,
    /// How requests are authenticated.
    pub auth: McpAuth,
}

impl HttpEndpoint {
    /// An endpoint without authentication.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), headers: BTreeMap::new(), auth: McpAuth::None }
    }

    fn check(&self) -> Result<(), McpError> {
        let is_http = |url: &str| Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
        let token_url = match &self.auth {
            McpAuth::ClientCredentials { token_url, .. } => token_url,
            McpAuth::None | McpAuth::Bearer(_) => &self.url,
        };
        if is_http(&self.url) && is_http(token_url) {
            Ok(())
        } else {
            Err(McpError::Config { reason: "a URL must begin with http:// or https://".to_owned() })
        }
    }
}

/// How HTTP requests are authenticated.
#[derive(Debug, Clone)]
pub enum McpAuth {
    /// They are not.
    None,
    /// With this token.
    Bearer(Secret),
    /// With a token that this client gets for itself (OAuth 2.1, client credentials).
    ClientCredentials {
        /// Where the token comes from.
        token_url: String,
        /// Who this client is.
        client_id: String,
        /// How it proves that.
        client_secret: Secret,
        /// What the token is for, if the server asks for a scope.
        scope: Option<String>,
    },
}

/// The generation of the protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum McpProtocol {
    /// The newer one if the server speaks it, else the older one.
    #[default]
    Auto,
    /// 2026-07-28: every request says all that it needs.
    V2026_07_28,
    /// 2025-11-25, and what servers answer to it: a handshake comes first.
    V2025_11_25,
}

/// What bounds a connection.
#[derive(Debug, Clone)]
pub struct McpLimits {
    /// The time until the server's tools are known, from its start; 30 s.
    pub startup: Duration,
    /// How long [`McpProtocol::Auto`] waits for a server that is silent to the newer protocol; 2 s.
    pub probe_silence: Duration,
    /// The time of one call, without the time in which a person is asked; 60 s.
    pub call: Duration,
    /// How long a server may take to end once its input is closed; 10 s. Then it is terminated.
    pub shutdown: Duration,
    /// The delay before the first restart; doubles with each failure in a row, up to a minute; 0.5 s.
    pub restart: Duration,
    /// The longest message that is read, in bytes; 16 MiB.
    pub max_line_bytes: usize,
    /// The largest result of a tool, in bytes; 4 MiB.
    pub max_result_bytes: usize,
    /// Tools that are read from the server's list; 256.
    pub max_tools: usize,
    /// Calls in flight at once; further ones wait; 16.
    pub max_calls: usize,
    /// The last lines of standard error that are kept; 40.
    pub stderr_lines: usize,
}

impl Default for McpLimits {
    fn default() -> Self {
        Self {
            startup: Duration::from_secs(30),
            probe_silence: Duration::from_secs(2),
            call: Duration::from_secs(60),
            shutdown: Duration::from_secs(10),
            restart: Duration::from_millis(500),
            max_line_bytes: 16 * 1024 * 1024,
            max_result_bytes: 4 * 1024 * 1024,
            max_tools: 256,
            max_calls: 16,
            stderr_lines: 40,
        }
    }
}

/// How lenient the effect classes of a server's tools may be, whatever the server says of them.
///
/// A server's hints (`readOnlyHint`, `idempotentHint`, `destructiveHint`) are proposals: the class of a tool is the
/// stricter one of the proposal and the allowance.
#[derive(Debug, Clone)]
pub struct EffectAllowance {
    /// For tools that `tools` does not name.
    pub most_lenient: EffectClass,
    /// For single tools, by the server's names.
    pub tools: BTreeMap<String, EffectClass>,
}

impl Default for EffectAllowance {
    /// No hint is trusted: every tool is `unsafe`.
    fn default() -> Self {
        Self { most_lenient: EffectClass::Unsafe, tools: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_do_not_print_secrets() {
        let mut endpoint = HttpEndpoint::new("https://example.org/mcp");
        endpoint.headers.insert("x-key".to_owned(), Secret::from("s3cret"));
        endpoint.auth = McpAuth::Bearer(Secret::from("s3cret"));
        let config = McpServerConfig::new("a", McpTransport::Http(endpoint));
        assert!(!format!("{config:?}").contains("s3cret"));
        assert!(config.check().is_ok());
    }
}
