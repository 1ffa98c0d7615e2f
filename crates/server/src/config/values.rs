//! Reading single values: each answers with the value, or with what is valid.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use figment::value::Value;
use gathering_auth::{KeyRing, Registration};
use gathering_domain::{EffectClass, Secret};
use gathering_persistence::ConnectOptions;
use gathering_tools::{MailAddress, Network, SmtpTls};
use tracing_subscriber::EnvFilter;
use url::Url;

use super::declared::SETTINGS;
use super::{LogFormat, Quota};

pub(super) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text.clone()),
        Value::Char(_, char) => Some(char.to_string()),
        Value::Bool(_, bool) => Some(bool.to_string()),
        Value::Num(_, number) => number
            .to_i128()
            .map(|number| number.to_string())
            .or_else(|| number.to_f64().map(|number| number.to_string()))
            .or_else(|| number.to_u128().map(|number| number.to_string())),
        _ => None,
    }
}

/// A whole number within these bounds.
pub(super) fn number<T>(least: T, most: T) -> impl Fn(&str) -> Result<T, String>
where
    T: FromStr + PartialOrd + fmt::Display,
{
    move |text| {
        let number = text.parse().ok().filter(|number| (&least..=&most).contains(&number));
        number.ok_or_else(|| format!("a whole number from {least} to {most}"))
    }
}

pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    Ok(PathBuf::from(text))
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let text =
        text.strip_prefix("localhost:").map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
    text.parse().map_err(|_| "an address and a port, such as 127.0.0.1:8080 or [::1]:0".to_owned())
}

/// A name or an address, without a port.
pub(super) fn host(text: &str) -> Result<String, String> {
    let is_host = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '.' | ':');
    if text.parse::<SocketAddr>().is_ok() || !text.chars().all(is_host) || text.split(':').count() == 2 {
        Err("the name or address of a host, such as mail.example.org".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// Whether a host is this machine, by its address or as `localhost`.
pub(super) fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

pub(super) fn smtp_tls(text: &str) -> Result<SmtpTls, String> {
    text.parse().map_err(|_| "`starttls`, `implicit`, `none` or `insecure`".to_owned())
}

pub(super) fn mail_address(text: &str) -> Result<MailAddress, String> {
    text.parse().map_err(|_| "an address such as `GatheRing <gathering@example.org>`".to_owned())
}

pub(super) fn database_url(text: &str) -> Result<Secret, String> {
    let url = Secret::from(text);
    ConnectOptions::parse(&url).map(|_| url).map_err(|error| error.to_string())
}

pub(super) fn token_key(text: &str) -> Result<Secret, String> {
    KeyRing::parse(text).map(|_| Secret::from(text)).map_err(|error| error.to_string())
}

/// The beginning of names of variables, which no setting's begins with: those hold secrets of the server itself.
pub(super) fn variable_prefix(text: &str) -> Result<String, String> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if !text.bytes().all(is_name) || text.starts_with(|first: char| first.is_ascii_digit()) {
        return Err("the beginning of the name of a variable, such as GATHERING_SECRET_".to_owned());
    }
    match SETTINGS.iter().find(|setting| setting.variable.starts_with(text)) {
        Some(setting) => Err(format!("another beginning: {} is a setting of the server", setting.variable)),
        None => Ok(text.to_owned()),
    }
}

pub(super) fn registration(text: &str) -> Result<Registration, String> {
    match text {
        "open" => Ok(Registration::Open),
        "closed" => Ok(Registration::Closed),
        _ => Err("`open` or `closed`".to_owned()),
    }
}

pub(super) fn networks(text: &str) -> Result<Vec<Network>, String> {
    text.split(',')
        .map(str::trim)
        .filter(|network| !network.is_empty())
        .map(|network| network.parse().map_err(|_| "networks such as 10.0.0.0/8,fd00::/8".to_owned()))
        .collect()
}

/// Names and absolute paths of programs.
pub(super) fn programs(text: &str) -> Result<BTreeMap<String, PathBuf>, String> {
    text.split(',')
        .map(str::trim)
        .filter(|program| !program.is_empty())
        .map(|program| match program.split_once('=') {
            Some((name, path)) if !name.trim().is_empty() && path.trim().starts_with('/') => {
                Ok((name.trim().to_owned(), PathBuf::from(path.trim())))
            }
            _ => Err("programs such as git=/usr/bin/git, jq=/usr/bin/jq".to_owned()),
        })
        .collect()
}

/// Names and absolute paths of programs, without names for themselves.
pub(super) fn commands(text: &str) -> Result<BTreeSet<String>, String> {
    let commands = text.split(',').map(str::trim).filter(|command| !command.is_empty());
    let checked = commands.map(|command| match command.starts_with('/') || !command.contains('/') {
        true => Ok(command.to_owned()),
        false => Err("names or absolute paths of programs, such as uvx, /usr/bin/npx".to_owned()),
    });
    checked.collect()
}

pub(super) fn effect_class(text: &str) -> Result<EffectClass, String> {
    let class = EffectClass::ALL.into_iter().find(|class| class.as_str() == text);
    class.ok_or_else(|| "`unsafe`, `idempotent` or `pure`".to_owned())
}

pub(super) fn confinement_required(text: &str) -> Result<bool, String> {
    match text {
        "required" => Ok(true),
        "if_available" => Ok(false),
        _ => Err("`required` or `if_available`".to_owned()),
    }
}

/// `None` is off.
pub(super) fn quota(text: &str) -> Result<Option<Quota>, String> {
    if text == "off" { Ok(None) } else { text.parse().map(Some) }
}

pub(super) fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("`on` or `off`".to_owned()),
    }
}

pub(super) fn log_filter(text: &str) -> Result<String, String> {
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("a filter such as `info` or `info,gathering_server=debug`".to_owned()),
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "json" => Ok(LogFormat::Json),
        "pretty" => Ok(LogFormat::Pretty),
        _ => Err("`json` or `pretty`".to_owned()),
    }
}

pub(super) fn http_url(text: &str) -> Result<String, String> {
    match Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https")) {
        Some(url) => Ok(url.into()),
        None => Err("a URL such as http://127.0.0.1:11434/v1".to_owned()),
    }
}
