//! How a mounted MCP server is reached, as a project stores it: secrets stand in it by their names alone.

use std::collections::{BTreeMap, BTreeSet};

use gathering_domain::{EffectClass, Pointer, Problems, SecretName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

use super::secret_text::SecretText;

/// The most arguments, variables of the environment, or headers.
const MAX_ENTRIES: usize = 64;
/// The longest text of the settings, in bytes.
const MAX_TEXT: usize = 8 * 1024;

/// Words in the name of a header or variable whose value is a credential.
const CREDENTIALS: [&str; 12] = [
    "authorization",
    "auth",
    "cookie",
    "token",
    "secret",
    "password",
    "passwd",
    "credential",
    "apikey",
    "api-key",
    "key",
    "signature",
];

/// Headers that the protocol or the connection decides about.
const OWN_HEADERS: [&str; 9] = [
    "accept",
    "connection",
    "content-length",
    "content-type",
    "host",
    "last-event-id",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Variables that would have an allowed program run other code.
const LOADERS: [&str; 14] = [
    "PATH",
    "BASH_ENV",
    "ENV",
    "IFS",
    "SHELLOPTS",
    "NODE_OPTIONS",
    "NODE_PATH",
    "PERL5LIB",
    "PERL5OPT",
    "RUBYLIB",
    "RUBYOPT",
    "JAVA_TOOL_OPTIONS",
    "GCONV_PATH",
    "GIT_SSH_COMMAND",
];
const LOADER_PREFIXES: [&str; 3] = ["LD_", "DYLD_", "PYTHON"];

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

fn check_command(command: &str, rules: &McpRules, at: &Pointer, problems: &mut Problems) {
    if !rules.commands.contains(command) {
        let shown: String = command.chars().take(100).collect();
        let message = format!(
            "the operator does not allow the program `{shown}`: it must be in the setting `mcp_commands` (GATHERING_MCP_COMMANDS)"
        );
        problems.add(at.clone(), message);
    }
}

fn check_args(args: &[String], at: &Pointer, problems: &mut Problems) {
    if args.len() > MAX_ENTRIES {
        problems.add(at.clone(), format!("has more than {MAX_ENTRIES} entries"));
    }
    for (index, arg) in args.iter().enumerate().take(MAX_ENTRIES) {
        // Everybody on the host sees the arguments of a process.
        check_plain(arg, &at.join(index), problems);
    }
}

/// A text without references.
fn check_plain(text: &str, at: &Pointer, problems: &mut Problems) {
    check_text(text, at, problems);
    if text.contains("${{") {
        problems.add(at.clone(), "is shown to others: a secret must not stand here");
    }
}

fn check_text(text: &str, at: &Pointer, problems: &mut Problems) {
    if text.len() > MAX_TEXT {
        problems.add(at.clone(), format!("has more than {MAX_TEXT} bytes"));
    }
    if text.contains('\0') {
        problems.add(at.clone(), "has a character with the code 0");
    }
}

/// A text that must be a secret.
fn check_secret(text: &str, at: &Pointer, problems: &mut Problems) {
    match SecretText::read(text) {
        Err(message) => problems.add(at.clone(), message),
        Ok(read) if !read.has_secret() => problems.add(at.clone(), USE_A_SECRET),
        Ok(_) => check_text(text, at, problems),
    }
}

const USE_A_SECRET: &str =
    "must not be written here: set it as a secret of the project, and write `${{ secrets.NAME }}`";

fn check_url(text: &str, at: &Pointer, problems: &mut Problems) {
    check_plain(text, at, problems);
    match Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https")) {
        None => problems.add(at.clone(), "must be a URL that begins with http:// or https://"),
        Some(url) if !url.username().is_empty() || url.password().is_some() => {
            problems
                .add(at.clone(), "must have no user and no password: use `headers` or `auth` with a secret");
        }
        Some(_) => {}
    }
}

fn check_entries(
    entries: &BTreeMap<String, String>,
    at: &Pointer,
    name_problem: impl Fn(&str) -> Option<&'static str>,
    problems: &mut Problems,
) {
    if entries.len() > MAX_ENTRIES {
        problems.add(at.clone(), format!("has more than {MAX_ENTRIES} entries"));
    }
    for (name, value) in entries.iter().take(MAX_ENTRIES) {
        let at = at.join(name);
        match name_problem(name) {
            Some(problem) => problems.add(at, problem),
            None if is_credential(name) => check_secret(value, &at, problems),
            None => match SecretText::read(value) {
                Err(message) => problems.add(at, message),
                Ok(_) if value.contains(['\r', '\n']) => problems.add(at, "must have one line"),
                Ok(_) => check_text(value, &at, problems),
            },
        }
    }
}

/// Whether a header or variable of this name holds a credential.
fn is_credential(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('_', "-");
    CREDENTIALS.iter().any(|word| match *word {
        // Short words that stand in others, such as `author` and `keyboard`.
        "auth" | "key" => name.split('-').any(|part| part == *word),
        word => name.contains(word),
    })
}

fn variable_problem(name: &str) -> Option<&'static str> {
    let is_inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_name = !name.is_empty() && name.len() <= 128 && name.bytes().all(is_inside);
    if !is_name || name.starts_with(|first: char| first.is_ascii_digit()) {
        return Some("is not the name of a variable");
    }
    let upper = name.to_ascii_uppercase();
    let is_loader =
        LOADERS.contains(&upper.as_str()) || LOADER_PREFIXES.iter().any(|prefix| upper.starts_with(prefix));
    is_loader.then_some("decides which code the program runs, and cannot be set")
}

fn header_problem(name: &str) -> Option<&'static str> {
    let is_inside = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > 128 || !name.bytes().all(is_inside) {
        return Some("is not the name of a header");
    }
    let name = name.to_ascii_lowercase();
    let is_own = OWN_HEADERS.contains(&name.as_str()) || name.starts_with("mcp-");
    is_own.then_some("belongs to the protocol, and cannot be set")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(settings: Value) -> Vec<String> {
        let rules = McpRules { commands: ["time-server".to_owned()].into(), ..McpRules::default() };
        let settings: McpSettings = serde_json::from_value(settings).unwrap();
        match settings.check(&rules) {
            Ok(()) => Vec::new(),
            Err(found) => found.into_iter().map(|problem| problem.to_string()).collect(),
        }
    }

    fn stdio(command: &str, env: Value) -> Vec<String> {
        problems(json!({"transport": {"type": "stdio", "command": command, "env": env}, "allow": "unsafe"}))
    }

    fn http(url: &str, headers: Value, auth: Value) -> Vec<String> {
        problems(
            json!({"transport": {"type": "http", "url": url, "headers": headers, "auth": auth}, "allow": "unsafe"}),
        )
    }

    #[test]
    fn only_the_programs_of_the_operator_are_started() {
        assert_eq!(
            stdio("time-server", json!({"LOG_LEVEL": "debug", "MONKEY": "a", "AUTHOR": "b"})),
            [""; 0]
        );
        for other in ["sh", "/bin/time-server", "./time-server", ""] {
            let found = stdio(other, json!({}));
            assert!(found.len() == 1 && found[0].contains("GATHERING_MCP_COMMANDS"), "{found:?}");
        }
        for loader in ["LD_PRELOAD", "PATH", "PYTHONSTARTUP", "node_options"] {
            assert_eq!(stdio("time-server", json!({ loader: "x" })).len(), 1, "{loader}");
        }
    }

    #[test]
    fn a_credential_is_a_reference_to_a_secret() {
        for name in
            ["Authorization", "X-Api-Key", "api_key", "GITHUB_TOKEN", "PGPASSWORD", "Cookie", "x-auth"]
        {
            let found = stdio("time-server", json!({ name.replace('-', "_"): "literal" }));
            assert!(found.len() == 1 && found[0].contains("secrets.NAME"), "{name}: {found:?}");
            let found = http("https://example.org/mcp", json!({ name: "literal" }), json!({"type": "none"}));
            assert!(found.len() == 1 && !found[0].contains("literal"), "{name}: {found:?}");
            let referring = json!({ name: "Bearer ${{ secrets.T }}" });
            assert_eq!(http("https://example.org/mcp", referring, json!({"type": "none"})), [""; 0]);
        }
        let token =
            |token: &str| http("https://example.org", json!({}), json!({"type": "bearer", "token": token}));
        assert_eq!(token("${{ secrets.T }}"), [""; 0]);
        assert!(token("literal")[0].starts_with("/transport/auth/token: "));
    }

    #[test]
    fn every_problem_is_named_at_its_place() {
        let auth = json!({"type": "client_credentials", "token_url": "ftp://x", "client_id": "${{ secrets.A }}",
            "client_secret": "x", "scope": null});
        let found = http(
            "https://user:pw@example.org",
            json!({"Mcp-Method": "x", "A B": "x", "X": "${{ input }}"}),
            auth,
        );
        let places: Vec<&str> = found.iter().filter_map(|problem| problem.split(": ").next()).collect();
        assert_eq!(
            places,
            [
                "/transport/url",
                "/transport/headers/A B",
                "/transport/headers/Mcp-Method",
                "/transport/headers/X",
                "/transport/auth/token_url",
                "/transport/auth/client_id",
                "/transport/auth/client_secret"
            ]
        );
    }
}
