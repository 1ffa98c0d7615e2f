//! `http_request`: any request that the operator's network policy permits.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};

use super::read_params;
use crate::outbound::{Outbound, OutboundRequest};
use crate::spec::{ToolSource, ToolSpec};
use crate::tool::{Tool, ToolContext, ToolError};
use gathering_domain::EffectClass;

/// Sends a request and returns `{status, headers, body}` for every status.
#[derive(Debug)]
pub struct HttpRequest {
    spec: ToolSpec,
    outbound: Outbound,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    #[serde(default)]
    method: Option<String>,
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Option<Value>,
    #[serde(default)]
    timeout_seconds: Option<f64>,
}

impl HttpRequest {
    /// The tool, which sends through `outbound`.
    pub fn new(outbound: Outbound) -> Self {
        let spec = ToolSpec {
            name: "http_request".to_owned(),
            description: "Sends an HTTP request and returns the status, the headers and the body of the answer. A JSON \
                          body is returned as a value, any other as text. Follows redirects of GET and HEAD."
                .to_owned(),
            parameters: json!({
                "type": "object",
                "additionalProperties": false,
                "required": ["url"],
                "properties": {
                    "method": {
                        "description": "The method; GET by default.",
                        "enum": ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]
                    },
                    "url": {
                        "description": "An absolute http or https URL.",
                        "type": "string", "minLength": 1, "maxLength": 8192
                    },
                    "headers": {
                        "description": "Headers to send.",
                        "type": "object", "maxProperties": 64,
                        "additionalProperties": {"type": "string", "maxLength": 16384}
                    },
                    "body": {"description": "A string is sent as it is, any other value as JSON."},
                    "timeout_seconds": {
                        "description": "The longest time of the whole exchange in seconds; 30 by default.",
                        "type": "number", "exclusiveMinimum": 0, "maximum": 300
                    }
                }
            }),
            class: EffectClass::Unsafe,
            source: ToolSource::BuiltIn,
        };
        Self { spec, outbound }
    }
}

#[async_trait]
impl Tool for HttpRequest {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn uses_files(&self) -> bool {
        false
    }

    /// By the definition of the method (RFC 9110, 9.2).
    fn class_of(&self, params: &Value) -> EffectClass {
        match params.get("method").map_or(Some("GET"), Value::as_str) {
            Some("GET" | "HEAD" | "OPTIONS") => EffectClass::Pure,
            Some("PUT" | "DELETE") => EffectClass::Idempotent,
            _ => EffectClass::Unsafe,
        }
    }

    async fn call(&self, params: Value, context: &ToolContext) -> Result<Value, ToolError> {
        let params: Params = read_params(params)?;
        let mut request = OutboundRequest::new(params.method.as_deref().unwrap_or("GET"), &params.url)?;
        for (name, value) in &params.headers {
            request = request.header(name, value)?;
        }
        if let Some(body) = params.body.filter(|body| !body.is_null()) {
            request = request.body(&body);
        }
        if let Some(seconds) = params.timeout_seconds {
            request = request
                .timeout(Duration::try_from_secs_f64(seconds).unwrap_or(OutboundRequest::DEFAULT_TIMEOUT));
        }
        if let Some(key) = &context.idempotency_key {
            request = request.idempotency_key(key)?;
        }
        Ok(self.outbound.send(request).await?.to_value())
    }
}
