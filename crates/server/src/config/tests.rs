//! The promises of the settings to operators.

use std::io::Write;

use gathering_edge::limits::RateLimits;

use super::*;

fn load(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    load_with(None, variables)
}

fn load_with(file: Option<&Path>, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::from_sources(file, |name| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    })
}

#[test]
fn without_any_setting_there_are_defaults() {
    let config = load(&[]).unwrap();
    assert_eq!(config.bind.to_string(), "127.0.0.1:8080");
    assert_eq!(config.workspace_root, Path::new(".gathering/workspaces"));
    assert_eq!((config.bcrypt_cost, config.max_recoveries), (12, 20));
    assert!(config.database_url.is_none());
    assert_eq!((config.max_file_bytes, config.cache_limiters_entries), (2_147_483_648, 100_000));
}

#[test]
fn each_wrong_value_is_named_with_its_variable_and_what_is_right() {
    let wrong = [
        ("GATHERING_BIND", "here"),
        ("GATHERING_BCRYPT_COST", "3"),
        ("GATHERING_REGISTRATION", "maybe"),
        ("GATHERING_TRUSTED_PROXIES", "10.0.0.0/99"),
        ("GATHERING_OUTBOUND_ALLOW", "localhost"),
        ("GATHERING_MCP_COMMANDS", "bin/server"),
        ("GATHERING_MCP_ALLOWANCE", "maybe"),
        ("GATHERING_SHUTDOWN_DRAIN_SECONDS", "-1"),
        ("GATHERING_SHUTDOWN_GRACE_SECONDS", "1.5"),
        ("GATHERING_MAX_CONCURRENT_RUNS", "0"),
        ("GATHERING_DB_POOL_SIZE", "many"),
        ("GATHERING_MAX_RECOVERIES", "x"),
        ("GATHERING_STUCK_INSTANCE_SECONDS", "1"),
        ("GATHERING_RETENTION_JOURNAL_DAYS", "-1"),
        ("GATHERING_RETENTION_RUNS_DAYS", "a month"),
        ("GATHERING_RETENTION_EVENTS_DAYS", "40000"),
        ("GATHERING_RETENTION_FIRES_DAYS", "-7"),
        ("GATHERING_RETENTION_DELIVERIES_DAYS", "few"),
        ("GATHERING_RETENTION_AUDIT_DAYS", "1.5"),
        ("GATHERING_RATE_LIMITS", "yes"),
        ("GATHERING_RATE_LIMIT_AUTH", "5/day"),
        ("GATHERING_RATE_LIMIT_WRITE", "0/s"),
        ("GATHERING_RATE_LIMIT_READ", "120"),
        ("GATHERING_RATE_LIMIT_HEALTH", "none"),
        ("GATHERING_MAX_FILE_BYTES", "9007199254740993"),
        ("GATHERING_CACHE_GRAPHS_ENTRIES", "0"),
        ("GATHERING_CACHE_EVENTS_ENTRIES", "0"),
        ("GATHERING_CACHE_REVOCATIONS_ENTRIES", "-1"),
        ("GATHERING_CACHE_KEY_OWNERS_ENTRIES", "many"),
        ("GATHERING_CACHE_DIRECTORIES_ENTRIES", "1.5"),
        ("GATHERING_CACHE_WORKSPACES_ENTRIES", "x"),
        ("GATHERING_CACHE_LIMITERS_ENTRIES", "10000001"),
        ("GATHERING_LOG", "a=b=c"),
        ("GATHERING_LOG_FORMAT", "xml"),
        ("OPENAI_BASE_URL", "localhost:11434"),
        ("GATHERING_SMTP_HOST", "mail.example.org:25"),
        ("GATHERING_SMTP_PORT", "0"),
        ("GATHERING_SMTP_TLS", "maybe"),
        ("GATHERING_SMTP_FROM", "gathering"),
        ("GATHERING_SMTP_TIMEOUT_SECONDS", "0"),
    ];
    let ConfigError::Invalid(problems) = load(&wrong).unwrap_err() else { panic!("not invalid") };
    let named: Vec<&str> = problems.iter().map(|problem| problem.name.as_str()).collect();
    assert_eq!(named.len(), wrong.len(), "{problems:?}");
    for (variable, value) in wrong {
        let problem = problems.iter().find(|problem| problem.name == variable).unwrap();
        assert_eq!(problem.value.as_deref(), Some(value));
        assert!(problem.to_string().starts_with(&format!("{variable} is `{value}`: it must be ")));
    }
}

#[test]
fn the_address_of_a_server_is_a_whole_url() {
    let base_url = |url: &str| load(&[("OPENAI_BASE_URL", url)]).map(|config| config.openai_base_url);
    for right in ["http://127.0.0.1:11434/v1", "HTTP://127.0.0.1:11434/v1", "http:\\\\127.0.0.1:11434\\v1"] {
        assert_eq!(base_url(right).unwrap().as_deref(), Some("http://127.0.0.1:11434/v1"));
    }
    for wrong in ["http://", "https://[::1/v1", "http://a b/", "http://h:port/v1", "ftp://h/v1"] {
        assert!(base_url(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn the_settings_of_the_mail_server_fit_each_other() {
    let (host, from) =
        (("GATHERING_SMTP_HOST", "mail.example.org"), ("GATHERING_SMTP_FROM", "a@example.org"));
    let local = ("GATHERING_SMTP_HOST", "127.0.0.1");
    let (none, insecure) = (("GATHERING_SMTP_TLS", "none"), ("GATHERING_SMTP_TLS", "insecure"));
    let (user, password) = (("GATHERING_SMTP_USER", "ada"), ("GATHERING_SMTP_PASSWORD", "hunter2"));
    for right in [
        &[][..],
        &[from],
        &[host, from],
        &[local, from, none],
        &[("GATHERING_SMTP_HOST", "::1"), from, none],
        &[host, from, insecure],
        &[host, from, user, password],
    ] {
        assert!(load(right).is_ok(), "{right:?}: {:?}", load(right).err());
    }
    for (wrong, message) in [
        (&[host][..], "GATHERING_SMTP_HOST: e-mail needs a sender: set GATHERING_SMTP_FROM"),
        (&[host, from, none], "GATHERING_SMTP_TLS: `none` is for a mail server on this machine"),
        (&[host, from, user], "GATHERING_SMTP_USER: a login needs GATHERING_SMTP_PASSWORD, too"),
        (&[host, from, password], "GATHERING_SMTP_PASSWORD: a login needs GATHERING_SMTP_USER, too"),
    ] {
        assert_eq!(load(wrong).unwrap_err().to_string(), message);
    }
}

#[test]
fn a_wrong_secret_is_named_and_not_shown() {
    let wrong = [("DATABASE_URL", "mysql://ada:hunter2@db"), ("GATHERING_TOKEN_KEY", "hunter2")];
    let message = load(&wrong).unwrap_err().to_string();
    assert!(message.contains("DATABASE_URL: ") && message.contains("GATHERING_TOKEN_KEY: "), "{message}");
    assert!(!message.contains("hunter2"), "{message}");
}

#[test]
fn a_variable_wins_over_the_file_and_the_file_over_the_default() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "bind = '0.0.0.0:1'\nbcrypt_cost = 10\noutbound_allow = ['10.0.0.0/8', '::1']").unwrap();
    let config = load_with(Some(file.path()), &[("GATHERING_BIND", "127.0.0.1:2")]).unwrap();
    assert_eq!(config.bind.port(), 2);
    assert_eq!(config.bcrypt_cost, 10);
    assert_eq!(config.outbound_allow.len(), 2);
}

#[test]
fn an_unknown_setting_in_the_file_is_refused() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "bindd = '0.0.0.0:1'\nlog_format = 7").unwrap();
    let message = load_with(Some(file.path()), &[]).unwrap_err().to_string();
    assert!(message.contains("`bindd` in the configuration file"), "{message}");
    assert!(message.contains("`log_format` in the configuration file is `7`"), "{message}");
}

#[test]
fn a_missing_file_stops_the_start() {
    assert!(matches!(load_with(Some(Path::new("/nowhere/x.toml")), &[]), Err(ConfigError::File(_))));
}

#[test]
fn the_rate_limits_have_defaults_per_tier_and_one_switch() {
    let text = |limits: RateLimits| {
        [limits.auth, limits.write, limits.read, limits.health]
            .map(|quota| quota.map_or_else(|| "off".to_owned(), |quota| quota.to_string()))
    };
    assert_eq!(text(load(&[]).unwrap().rate_limits), ["5/min", "30/s", "120/s", "off"]);
    let some = [("GATHERING_RATE_LIMIT_READ", "off"), ("GATHERING_RATE_LIMIT_HEALTH", "1000/h")];
    assert_eq!(text(load(&some).unwrap().rate_limits), ["5/min", "30/s", "off", "1000/h"]);
    let off = [("GATHERING_RATE_LIMITS", "off"), ("GATHERING_RATE_LIMIT_READ", "1/s")];
    assert_eq!(load(&off).unwrap().rate_limits, RateLimits::OFF);
    let wrong = [("GATHERING_RATE_LIMITS", "off"), ("GATHERING_RATE_LIMIT_READ", "1/x")];
    assert!(load(&wrong).is_err(), "it would come to light when the limits are turned on");
}

#[test]
fn a_variable_that_looks_like_a_setting_is_reported() {
    let names = [
        "GATHERING_BIND",
        "GATHERING_CONFIG",
        "GATHERING_TEST_BINARY",
        "GATHERING_BINDD",
        "GATHERING_RATE_LIMIT",
        "GATHERING_SECRET_KEY",
        "PATH",
    ];
    let unknown = unknown_variables(names.map(str::to_owned), Some("GATHERING_SECRET_"));
    assert_eq!(unknown.into_iter().collect::<Vec<_>>(), ["GATHERING_BINDD", "GATHERING_RATE_LIMIT"]);
}

/// Set to rewrite the documents instead of comparing them.
const REWRITE: &str = "GATHERING_TEST_REWRITE_DOCUMENTS";

fn check_document(path: &str, begin: &str, end: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    let text = std::fs::read_to_string(&path).unwrap();
    let from = text.find(begin).unwrap() + begin.len();
    let to = from + text[from..].find(end).unwrap_or(text.len() - from);
    let wanted = if end.is_empty() {
        expected.to_owned()
    } else {
        format!("{}{expected}{}", &text[..from], &text[to..])
    };
    if std::env::var_os(REWRITE).is_some() {
        std::fs::write(&path, wanted).unwrap();
    } else {
        assert!(text == wanted, "{} is out of date: run this test with {REWRITE}=1", path.display());
    }
}

#[test]
fn the_table_of_the_guide_is_that_of_the_declaration() {
    let (begin, end) = (
        "<!-- settings: made by a test of crates/server/src/config -->\n\n",
        "\n<!-- end of the settings -->",
    );
    check_document("docs/operations.md", begin, end, &render::table());
}

#[test]
fn the_example_file_is_that_of_the_declaration_and_sets_nothing_else_than_the_defaults() {
    check_document("deploy/gathering.example.toml", "", "", &render::example_file());
    for line in render::example_file().lines().filter_map(|line| line.strip_prefix('#')) {
        if line.starts_with(' ') || line.is_empty() {
            continue;
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        // Two settings that need another one.
        let beside = match line.split(' ').next() {
            Some("smtp_host") => "smtp_from = 'a@example.org'",
            Some("smtp_user") => "smtp_password = 'x'",
            _ => "",
        };
        writeln!(file, "{line}\n{beside}").unwrap();
        let is_secret = line.ends_with("\"\"");
        assert!(is_secret || load_with(Some(file.path()), &[]).is_ok(), "{line}");
    }
}

#[test]
fn the_help_names_every_setting_with_its_default() {
    let help = help();
    for setting in SETTINGS {
        assert!(help.contains(&format!("\n  {}", setting.variable)), "{}", setting.variable);
    }
    assert!(help.contains(" [127.0.0.1:8080]") && !help.contains('`'), "{help}");
}
