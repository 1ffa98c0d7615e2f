//! The settings of an MCP server in a request.

use std::collections::BTreeMap;

use gathering_control::{McpGeneration, McpHttpAuth, McpReach, McpSettings};
use gathering_domain::{EffectClass, McpServerName, Pointer, Problems};
use gathering_edge::input::Input;
use gathering_edge::problem::ProblemDetails;
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::api::words::{EffectClassSchema, McpAuthSchema, McpGenerationSchema, McpTransportSchema};

/// An MCP server to be mounted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MountServer {
    /// Absent: the caller's default project.
    #[schema(required = false)]
    pub(super) project_id: Option<Uuid>,
    /// The first part of the names of its tools: letters, digits, `-`, and single `_` between other characters.
    #[schema(min_length = 1, max_length = 24)]
    name: String,
    /// How it is reached.
    transport: TransportBody,
    /// The generation of the protocol.
    #[schema(value_type = Option<McpGenerationSchema>, required = false)]
    protocol: Option<McpGeneration>,
    /// How far its hints of what a repeated call may do are believed; never further than the operator says.
    #[schema(value_type = Option<EffectClassSchema>, required = false)]
    allow: Option<EffectClass>,
}

impl Input for MountServer {}

/// How an MCP server is reached.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = McpTransport)]
#[serde(deny_unknown_fields)]
pub(crate) struct TransportBody {
    #[schema(value_type = McpTransportSchema)]
    r#type: TransportType,
    /// With `stdio`: a program that the operator allows.
    #[schema(required = false)]
    command: Option<String>,
    /// With `stdio`: its arguments, without secrets.
    #[schema(required = false)]
    args: Option<Vec<String>>,
    /// With `stdio`: its environment. A value may refer to secrets: `${{ secrets.NAME }}`.
    #[schema(required = false)]
    env: Option<BTreeMap<String, String>>,
    /// With `http`: its URL.
    #[schema(required = false)]
    url: Option<String>,
    /// With `http`: headers of every request. A value may refer to secrets: `Bearer ${{ secrets.NAME }}`.
    #[schema(required = false)]
    headers: Option<BTreeMap<String, String>>,
    /// With `http`: how requests are authenticated.
    #[schema(required = false)]
    auth: Option<AuthBody>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TransportType {
    Stdio,
    Http,
}

/// How requests are authenticated.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = McpAuth)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuthBody {
    #[schema(value_type = McpAuthSchema)]
    r#type: AuthType,
    /// With `bearer`: `${{ secrets.NAME }}`.
    #[schema(required = false)]
    token: Option<String>,
    /// With `client_credentials`: where the token comes from.
    #[schema(required = false)]
    token_url: Option<String>,
    /// With `client_credentials`: who the client is.
    #[schema(required = false)]
    client_id: Option<String>,
    /// With `client_credentials`: `${{ secrets.NAME }}`.
    #[schema(required = false)]
    client_secret: Option<String>,
    /// With `client_credentials`: what the token is for, if the server asks for a scope.
    #[schema(required = false)]
    scope: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum AuthType {
    None,
    Bearer,
    ClientCredentials,
}

impl MountServer {
    /// The name and the settings.
    ///
    /// # Errors
    /// 422 with every field that is missing or belongs to another type.
    pub(super) fn into_settings(self) -> Result<(McpServerName, McpSettings), ProblemDetails> {
        let name = self.name.parse::<McpServerName>();
        let mut problems = Problems::new();
        if let Err(error) = &name {
            problems.add(Pointer::root().join("name"), error.to_string());
        }
        let transport = self.transport.read(&Pointer::root().join("transport"), &mut problems);
        match (name, transport) {
            (Ok(name), Some(transport)) if problems.is_empty() => {
                let (protocol, allow) = (self.protocol.unwrap_or_default(), self.allow);
                let allow = allow.unwrap_or(EffectClass::Unsafe);
                Ok((name, McpSettings { transport, protocol, allow }))
            }
            _ => Err(ProblemDetails::invalid(problems)),
        }
    }
}

impl TransportBody {
    fn read(self, at: &Pointer, problems: &mut Problems) -> Option<McpReach> {
        let Self { r#type, command, args, env, url, headers, auth } = self;
        match r#type {
            TransportType::Stdio => {
                let others =
                    [("url", url.is_some()), ("headers", headers.is_some()), ("auth", auth.is_some())];
                refuse(others, "stdio", at, problems);
                let command = require(command, "command", at, problems)?;
                Some(McpReach::Stdio {
                    command,
                    args: args.unwrap_or_default(),
                    env: env.unwrap_or_default(),
                })
            }
            TransportType::Http => {
                let others =
                    [("command", command.is_some()), ("args", args.is_some()), ("env", env.is_some())];
                refuse(others, "http", at, problems);
                let auth = match auth {
                    Some(auth) => auth.read(&at.join("auth"), problems),
                    None => Some(McpHttpAuth::None),
                };
                let url = require(url, "url", at, problems)?;
                Some(McpReach::Http { url, headers: headers.unwrap_or_default(), auth: auth? })
            }
        }
    }
}

impl AuthBody {
    fn read(self, at: &Pointer, problems: &mut Problems) -> Option<McpHttpAuth> {
        let Self { r#type, token, token_url, client_id, client_secret, scope } = self;
        let of_client = [
            ("token_url", token_url.is_some()),
            ("client_id", client_id.is_some()),
            ("client_secret", client_secret.is_some()),
            ("scope", scope.is_some()),
        ];
        match r#type {
            AuthType::None => {
                refuse(of_client, "none", at, problems);
                refuse([("token", token.is_some())], "none", at, problems);
                Some(McpHttpAuth::None)
            }
            AuthType::Bearer => {
                refuse(of_client, "bearer", at, problems);
                Some(McpHttpAuth::Bearer { token: require(token, "token", at, problems)? })
            }
            AuthType::ClientCredentials => {
                refuse([("token", token.is_some())], "client_credentials", at, problems);
                let token_url = require(token_url, "token_url", at, problems);
                let client_id = require(client_id, "client_id", at, problems);
                let client_secret = require(client_secret, "client_secret", at, problems);
                let (token_url, client_id, client_secret) = (token_url?, client_id?, client_secret?);
                Some(McpHttpAuth::ClientCredentials { token_url, client_id, client_secret, scope })
            }
        }
    }
}

fn require(value: Option<String>, name: &str, at: &Pointer, problems: &mut Problems) -> Option<String> {
    if value.is_none() {
        problems.add(at.join(name), "is required");
    }
    value
}

fn refuse<const N: usize>(others: [(&str, bool); N], kind: &str, at: &Pointer, problems: &mut Problems) {
    for (name, _) in others.into_iter().filter(|(_, is_there)| *is_there) {
        problems.add(at.join(name), format!("does not belong to the type `{kind}`"));
    }
}

#[cfg(test)]
mod tests {
    use gathering_edge::input::read;
    use serde_json::{Value, json};

    use super::*;

    fn settings(transport: Value) -> Result<McpSettings, ProblemDetails> {
        let mount: MountServer = read(json!({"name": "time", "transport": transport}))?;
        mount.into_settings().map(|(_, settings)| settings)
    }

    #[test]
    fn a_transport_has_the_fields_of_its_type() {
        let stdio = settings(json!({"type": "stdio", "command": "time-server", "args": ["-v"]})).unwrap();
        assert!(matches!(stdio.transport, McpReach::Stdio { args, .. } if args == ["-v"]));
        assert_eq!((stdio.allow, stdio.protocol), (EffectClass::Unsafe, McpGeneration::Auto));
        let bearer = json!({"type": "bearer", "token": "${{ secrets.T }}"});
        let http = settings(json!({"type": "http", "url": "https://a.example/mcp", "auth": bearer})).unwrap();
        assert!(matches!(http.transport, McpReach::Http { auth: McpHttpAuth::Bearer { .. }, .. }));
        for wrong in [
            json!({"type": "stdio"}),
            json!({"type": "stdio", "command": "a", "url": "https://a.example"}),
            json!({"type": "http"}),
            json!({"type": "http", "url": "https://a.example", "auth": {"type": "bearer"}}),
            json!({"type": "http", "url": "https://a.example", "auth": {"type": "none", "token": "x"}}),
            json!({"type": "http", "url": "https://a.example", "auth": {"type": "client_credentials"}}),
            json!({"type": "pipe"}),
        ] {
            assert_eq!(settings(wrong.clone()).unwrap_err().status().as_u16(), 422, "{wrong}");
        }
    }
}
