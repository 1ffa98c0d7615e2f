//! How a mounted MCP server is reached, as a project stores it: secrets stand in it by their names alone.

mod check;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use gathering_domain::{EffectClass, Pointer, Problems, SecretName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::check::{
    check_args, check_command, check_entries, check_plain, check_secret, check_url, header_problem,
    variable_problem,
};
use super::secret_text::SecretText;

/// What the operator allows of MCP servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct McpRules {
    /// The programs that may be started: names to find on the `PATH`, and absolute paths.
    pub commands: BTreeSet<String>,
    /// How far the hints of servers are believed at most.
    pub allowance: EffectClass,
}

impl Default for McpRules {
    /// No program may be started, and no hint is believed.
    fn default() -> Self {
        Self { commands: BTreeSet::new(), allowance: EffectClass::Unsafe }
    }
}

/// How a mounted MCP server is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct McpSettings {
    /// How it is reached.
    pub transport: McpReach,
    /// The generation of the protocol.
    #[serde(default)]
    pub protocol: McpGeneration,
    /// How far its hints are believed at most; never further than the operator says.
    pub allow: EffectClass,
}

/// How a mounted MCP server is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum McpReach {
    /// A program that an instance starts.
    Stdio {
        /// A name to find on the `PATH`, or an absolute path.
        command: String,
        /// Its arguments.
        #[serde(default)]
        args: Vec<String>,
        /// Its environment. The values may refer to secrets.
        #[serde(default)]
        env: BTreeMap<String, String>,
    },
    /// A server that listens to HTTP.
    Http {
        /// Its URL.
        url: String,
        /// Headers of every request. The values may refer to secrets.
        #[serde(default)]
        headers: BTreeMap<String, String>,
        /// How requests are authenticated.
        #[serde(default)]
        auth: McpHttpAuth,
    },
}

/// How requests are authenticated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum McpHttpAuth {
    /// They are not.
    #[default]
    None,
    /// With a token.
    Bearer {
        /// A reference to a secret.
        token: String,
    },
    /// With a token that an instance gets for itself (OAuth 2.1).
    ClientCredentials {
        /// Where the token comes from.
        token_url: String,
        /// Who the client is.
        client_id: String,
        /// A reference to a secret.
        client_secret: String,
        /// What the token is for, if the server asks for a scope.
        scope: Option<String>,
    },
}

/// The generation of the protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum McpGeneration {
    /// The newer one if the server speaks it, else the older one.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// 2026-07-28.
    #[serde(rename = "2026-07-28")]
    V2026_07_28,
    /// 2025-11-25.
    #[serde(rename = "2025-11-25")]
    V2025_11_25,
}

impl McpGeneration {
    /// Every generation.
    pub const ALL: [Self; 3] = [Self::Auto, Self::V2026_07_28, Self::V2025_11_25];

    /// The word for it in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::V2026_07_28 => "2026-07-28",
            Self::V2025_11_25 => "2025-11-25",
        }
    }
}

impl McpSettings {
    /// Whether the operator allows these settings, and nothing in them should be a secret.
    ///
    /// # Errors
    /// Every problem, with its place in a request.
    pub fn check(&self, rules: &McpRules) -> Result<(), Problems> {
        let mut problems = Problems::new();
        let at = Pointer::root().join("transport");
        match &self.transport {
            McpReach::Stdio { command, args, env } => {
                check_command(command, rules, &at.join("command"), &mut problems);
                check_args(args, &at.join("args"), &mut problems);
                check_entries(env, &at.join("env"), variable_problem, &mut problems);
            }
            McpReach::Http { url, headers, auth } => {
                check_url(url, &at.join("url"), &mut problems);
                check_entries(headers, &at.join("headers"), header_problem, &mut problems);
                auth.check(&at.join("auth"), &mut problems);
            }
        }
        problems.into_result()
    }

    /// The secrets that it refers to.
    pub fn secrets(&self) -> BTreeSet<SecretName> {
        let texts: Vec<&String> = match &self.transport {
            McpReach::Stdio { env, .. } => env.values().collect(),
            McpReach::Http { headers, auth, .. } => headers.values().chain(auth.secret()).collect(),
        };
        texts
            .into_iter()
            .filter_map(|text| SecretText::read(text).ok())
            .flat_map(|text| text.names())
            .collect()
    }

    /// What the audit says of it.
    pub(super) fn summary(&self) -> Value {
        let secrets = self.secrets();
        match &self.transport {
            McpReach::Stdio { command, .. } => {
                json!({"type": "stdio", "command": command, "secrets": secrets})
            }
            McpReach::Http { url, .. } => json!({"type": "http", "url": url, "secrets": secrets}),
        }
    }
}

impl McpHttpAuth {
    fn secret(&self) -> Option<&String> {
        match self {
            Self::None => None,
            Self::Bearer { token } => Some(token),
            Self::ClientCredentials { client_secret, .. } => Some(client_secret),
        }
    }

    fn check(&self, at: &Pointer, problems: &mut Problems) {
        match self {
            Self::None => {}
            Self::Bearer { token } => check_secret(token, &at.join("token"), problems),
            Self::ClientCredentials { token_url, client_id, client_secret, scope } => {
                check_url(token_url, &at.join("token_url"), problems);
                check_plain(client_id, &at.join("client_id"), problems);
                check_secret(client_secret, &at.join("client_secret"), problems);
                check_plain(scope.as_deref().unwrap_or_default(), &at.join("scope"), problems);
            }
        }
    }
}
