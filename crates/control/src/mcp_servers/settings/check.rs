//! What may stand in the settings of a mounted server, field by field.

use std::collections::BTreeMap;

use gathering_domain::{Pointer, Problems};
use url::Url;

use super::McpRules;
use crate::mcp_servers::secret_text::SecretText;

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

pub(super) fn check_command(command: &str, rules: &McpRules, at: &Pointer, problems: &mut Problems) {
    if !rules.commands.contains(command) {
        let shown: String = command.chars().take(100).collect();
        let message = format!(
            "the operator does not allow the program `{shown}`: it must be in the setting `mcp_commands` (GATHERING_MCP_COMMANDS)"
        );
        problems.add(at.clone(), message);
    }
}

pub(super) fn check_args(args: &[String], at: &Pointer, problems: &mut Problems) {
    if args.len() > MAX_ENTRIES {
        problems.add(at.clone(), format!("has more than {MAX_ENTRIES} entries"));
    }
    for (index, arg) in args.iter().enumerate().take(MAX_ENTRIES) {
        // Everybody on the host sees the arguments of a process.
        check_plain(arg, &at.join(index), problems);
    }
}

/// A text without references.
pub(super) fn check_plain(text: &str, at: &Pointer, problems: &mut Problems) {
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
pub(super) fn check_secret(text: &str, at: &Pointer, problems: &mut Problems) {
    match SecretText::read(text) {
        Err(message) => problems.add(at.clone(), message),
        Ok(read) if !read.has_secret() => problems.add(at.clone(), USE_A_SECRET),
        Ok(_) => check_text(text, at, problems),
    }
}

const USE_A_SECRET: &str =
    "must not be written here: set it as a secret of the project, and write `${{ secrets.NAME }}`";

pub(super) fn check_url(text: &str, at: &Pointer, problems: &mut Problems) {
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

pub(super) fn check_entries(
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

pub(super) fn variable_problem(name: &str) -> Option<&'static str> {
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

pub(super) fn header_problem(name: &str) -> Option<&'static str> {
    let is_inside = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > 128 || !name.bytes().all(is_inside) {
        return Some("is not the name of a header");
    }
    let name = name.to_ascii_lowercase();
    let is_own = OWN_HEADERS.contains(&name.as_str()) || name.starts_with("mcp-");
    is_own.then_some("belongs to the protocol, and cannot be set")
}
