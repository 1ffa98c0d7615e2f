//! The token of requests: given, or got with the client's own credentials (OAuth 2.1, client credentials).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use gathering_domain::{ExposeSecret as _, Secret};
use gathering_tools::{Outbound, OutboundRequest};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::form_urlencoded::{Serializer, byte_serialize};

use crate::McpError;
use crate::config::{HttpEndpoint, McpAuth};

/// The largest answer of a token endpoint, in bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// A token is replaced this long before it expires.
const EARLY: Duration = Duration::from_secs(30);
/// The life of a token whose server does not tell it.
const ASSUMED_LIFE: Duration = Duration::from_secs(300);

/// Gives the token of each request.
pub(super) struct Tokens {
    auth: McpAuth,
    resource: String,
    got: Mutex<Option<Token>>,
}

struct Token {
    secret: Secret,
    until: Instant,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: Secret,
    expires_in: Option<u64>,
}

impl Tokens {
    pub(super) fn new(endpoint: &HttpEndpoint) -> Self {
        Self { auth: endpoint.auth.clone(), resource: endpoint.url.clone(), got: Mutex::new(None) }
    }

    /// The token for a request.
    pub(super) async fn token(&self, outbound: &Outbound) -> Result<Option<Secret>, McpError> {
        match &self.auth {
            McpAuth::None => Ok(None),
            McpAuth::Bearer(token) => Ok(Some(token.clone())),
            McpAuth::ClientCredentials { .. } => {
                // Held over the request: the others wait for the same token.
                let mut got = self.got.lock().await;
                if let Some(token) = got.as_ref().filter(|token| token.until > Instant::now()) {
                    return Ok(Some(token.secret.clone()));
                }
                let token = self.get(outbound).await?;
                Ok(Some(got.insert(token).secret.clone()))
            }
        }
    }

    /// Forgets a token that the server refused. Whether a new one can be got.
    pub(super) async fn forget(&self) -> bool {
        self.got.lock().await.take().is_some()
    }

    fn form(&self, scope: Option<&str>) -> String {
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials").append_pair("resource", &self.resource);
        if let Some(scope) = scope {
            form.append_pair("scope", scope);
        }
        form.finish()
    }

    async fn get(&self, outbound: &Outbound) -> Result<Token, McpError> {
        let McpAuth::ClientCredentials { token_url, client_id, client_secret, scope } = &self.auth else {
            return Err(refused("there are no credentials to get a token with"));
        };
        let form = self.form(scope.as_deref());
        let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let credentials = format!("{}:{}", encoded(client_id), encoded(client_secret.expose_secret()));
        let request = OutboundRequest::new("POST", token_url)?
            .header("authorization", &format!("Basic {}", BASE64.encode(credentials)))?
            .header("content-type", "application/x-www-form-urlencoded")?
            .header("accept", "application/json")?
            .body(&Value::String(form))
            .max_response_bytes(MAX_ANSWER);
        let answered = outbound.send(request).await?;
        if !answered.is_success() {
            return Err(refused(format!("the token endpoint answered with status {}", answered.status)));
        }
        let answer: TokenAnswer = serde_json::from_slice(&answered.body)
            .map_err(|_| refused("the token endpoint gave no `access_token`"))?;
        let life = answer.expires_in.map_or(ASSUMED_LIFE, Duration::from_secs);
        Ok(Token { secret: answer.access_token, until: Instant::now() + life.saturating_sub(EARLY) })
    }
}

pub(super) fn refused(reason: impl Into<String>) -> McpError {
    McpError::Unauthorized { reason: reason.into() }
}
