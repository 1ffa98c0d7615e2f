//! The settings of a mounted server as its connection needs them: with the values of secrets, and the operator's limits.

use std::collections::BTreeMap;
use std::time::Duration;

use gathering_control::{
    McpGeneration, McpHttpAuth, McpMount, McpPins, McpReach, McpRules, McpSettings, SecretText,
};
use gathering_domain::{McpServerName, Secret};
use gathering_mcp::{
    EffectAllowance, HttpEndpoint, McpAuth, McpLimits, McpProtocol, McpServerConfig, McpTransport, OnConnect,
    StdioCommand, ToolDefinition, ToolPins,
};
use gathering_nodes::KnownSecrets;

/// How long a call may take. The node's own timeout is usually shorter.
const CALL: Duration = Duration::from_secs(300);

/// The settings without the values of secrets: for what is known of a server without a connection.
pub(super) fn without_secrets(mount: &McpMount, rules: &McpRules) -> McpServerConfig {
    // How a server is reached decides what its definitions mean.
    let transport = match &mount.settings.transport {
        McpReach::Stdio { .. } => McpTransport::Stdio(StdioCommand::default()),
        McpReach::Http { url, .. } => McpTransport::Http(HttpEndpoint::new(url)),
    };
    config(&mount.name, &mount.settings, &mount.pins, rules, transport)
}

/// The settings for a connection.
///
/// # Errors
/// Why the operator or the secrets do not allow one.
pub(super) fn of_connection(
    name: &McpServerName,
    settings: &McpSettings,
    pins: &McpPins,
    rules: &McpRules,
    secrets: &KnownSecrets,
) -> Result<McpServerConfig, String> {
    // The operator may have changed their mind since the server was mounted.
    settings.check(rules).map_err(|problems| problems.to_string())?;
    let transport = match &settings.transport {
        McpReach::Stdio { command, args, env } => McpTransport::Stdio(StdioCommand {
            command: command.clone(),
            args: args.clone(),
            env: reveal_all(env, secrets)?,
            cwd: None,
        }),
        McpReach::Http { url, headers, auth } => McpTransport::Http(HttpEndpoint {
            url: url.clone(),
            headers: reveal_all(headers, secrets)?,
            auth: reveal_auth(auth, secrets)?,
        }),
    };
    Ok(config(name, settings, pins, rules, transport))
}

fn config(
    name: &McpServerName,
    settings: &McpSettings,
    pins: &McpPins,
    rules: &McpRules,
    transport: McpTransport,
) -> McpServerConfig {
    McpServerConfig {
        name: name.as_str().to_owned(),
        transport,
        protocol: match settings.protocol {
            McpGeneration::Auto => McpProtocol::Auto,
            McpGeneration::V2026_07_28 => McpProtocol::V2026_07_28,
            McpGeneration::V2025_11_25 => McpProtocol::V2025_11_25,
        },
        limits: McpLimits { call: CALL, ..McpLimits::default() },
        allowance: EffectAllowance {
            most_lenient: settings.allow.stricter(rules.allowance),
            tools: BTreeMap::new(),
        },
        pins: to_pins(pins),
        on_connect: OnConnect::default(),
    }
}

/// Stored definitions as pins.
pub(super) fn to_pins(pins: &McpPins) -> ToolPins {
    let read = |(name, definition)| Some((String::clone(name), ToolDefinition::read(definition)?));
    ToolPins::Only(pins.iter().filter_map(read).collect())
}

fn reveal_all(
    texts: &BTreeMap<String, String>,
    secrets: &KnownSecrets,
) -> Result<BTreeMap<String, Secret>, String> {
    texts.iter().map(|(name, text)| Ok((name.clone(), reveal(text, secrets)?))).collect()
}

fn reveal_auth(auth: &McpHttpAuth, secrets: &KnownSecrets) -> Result<McpAuth, String> {
    Ok(match auth {
        McpHttpAuth::None => McpAuth::None,
        McpHttpAuth::Bearer { token } => McpAuth::Bearer(reveal(token, secrets)?),
        McpHttpAuth::ClientCredentials { token_url, client_id, client_secret, scope } => {
            McpAuth::ClientCredentials {
                token_url: token_url.clone(),
                client_id: client_id.clone(),
                client_secret: reveal(client_secret, secrets)?,
                scope: scope.clone(),
            }
        }
    })
}

fn reveal(text: &str, secrets: &KnownSecrets) -> Result<Secret, String> {
    let revealed =
        SecretText::read(text)?.reveal(|name| secrets.value(name).map_err(|failure| failure.message));
    revealed.map(Secret::from)
}

#[cfg(test)]
mod tests {
    use gathering_domain::{EffectClass, ExposeSecret as _};
    use serde_json::json;

    use super::*;

    fn secrets() -> KnownSecrets {
        KnownSecrets::new([("T".parse().unwrap(), Ok(Secret::from("hunter2")))].into())
    }

    fn connect(transport: serde_json::Value, rules: &McpRules) -> Result<McpServerConfig, String> {
        let settings = serde_json::from_value(json!({"transport": transport, "allow": "pure"})).unwrap();
        of_connection(&"a".parse().unwrap(), &settings, &McpPins::new(), rules, &secrets())
    }

    #[test]
    fn a_secret_is_revealed_only_for_the_connection() {
        let headers = json!({"Authorization": "Bearer ${{ secrets.T }}"});
        let config = connect(
            json!({"type": "http", "url": "https://a.example", "headers": headers}),
            &McpRules::default(),
        );
        let McpTransport::Http(endpoint) = config.unwrap().transport else { panic!("http") };
        assert_eq!(endpoint.headers["Authorization"].expose_secret(), "Bearer hunter2");
        let missing = json!({"type": "bearer", "token": "${{ secrets.U }}"});
        let missing = connect(
            json!({"type": "http", "url": "https://a.example", "auth": missing}),
            &McpRules::default(),
        );
        assert!(missing.unwrap_err().contains("no secret `U`"));
    }

    #[test]
    fn what_the_operator_no_longer_allows_is_not_started() {
        let command = json!({"type": "stdio", "command": "time-server"});
        let allowed =
            McpRules { commands: ["time-server".to_owned()].into(), allowance: EffectClass::Idempotent };
        let config = connect(command.clone(), &allowed).unwrap();
        assert_eq!(config.allowance.most_lenient, EffectClass::Idempotent, "the stricter one of the two");
        assert!(connect(command, &McpRules::default()).unwrap_err().contains("GATHERING_MCP_COMMANDS"));
    }
}
