//! `gathering doctor`: looks at what a server depends on, and says what to do.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use chrono::{DateTime, Datelike as _, TimeDelta, Utc};
use gathering_persistence::MigrateError;
use gathering_scheduler::ZoneData;
use serde::Serialize;

use crate::config::{self, Config};
use crate::database::{self, Examined};

/// Clocks that differ by less do no harm: due times are the database's, tokens last for minutes.
const CLOCKS_AGREE: TimeDelta = TimeDelta::seconds(2);

/// The arguments of `gathering doctor`.
#[derive(Debug, Clone, clap::Args)]
pub struct DoctorArgs {
    /// Print JSON: {status, checks: [{name, status, message}]}
    #[arg(long)]
    pub json: bool,
}

/// The worst comes last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warn,
    Fail,
}

/// What was looked at, and what came of it.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    status: Status,
    message: String,
}

impl Check {
    fn new(name: &'static str, status: Status, message: impl Into<String>) -> Self {
        Self { name, status, message: message.into() }
    }
}

/// Prints a line for each check. The exit code is 1 if one has failed. Nothing is changed, but an embedded database is
/// started for the time of the checks.
///
/// # Errors
/// If the result cannot be printed.
pub(crate) async fn examine(file: Option<&Path>, args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let mut checks = vec![zones(ZoneData::current(), Utc::now())];
    match Config::load(file) {
        Ok(config) => {
            checks.push(settings(&config));
            checks.extend(database(&config).await);
        }
        Err(error) => checks.push(Check::new("settings", Status::Fail, chain(&error))),
    }
    let status = checks.iter().map(|check| check.status).max().unwrap_or(Status::Ok);
    let text = if args.json {
        let report = serde_json::json!({ "status": status, "checks": checks });
        format!("{report:#}\n")
    } else {
        checks.iter().map(line).collect()
    };
    // A closed standard output is not an error.
    std::io::stdout().write_all(text.as_bytes()).ok();
    Ok(if status == Status::Fail { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn line(check: &Check) -> String {
    let word = match check.status {
        Status::Ok => "ok",
        Status::Warn => "warn",
        Status::Fail => "fail",
    };
    // What a message lists is on lines of its own.
    format!("{word:4}  {}: {}\n", check.name, check.message.replace('\n', "\n      "))
}

/// A release of a year counts as old from July of the next year on: by then there have been others.
fn zones(data: &ZoneData, now: DateTime<Utc>) -> Check {
    let year = data.version().get(..4).and_then(|year| year.parse::<i32>().ok());
    let is_old = year.is_none_or(|year| (now.year(), now.month()) >= (year + 1, 7));
    let status = if is_old { Status::Warn } else { Status::Ok };
    let advice = if is_old {
        ", which is old: install the time zones of your system (`tzdata`) or a newer gathering, and restart the \
         instances, or schedules fire by the rules of then"
    } else {
        ""
    };
    Check::new("time zones", status, format!("{data}{advice}"))
}

fn settings(config: &Config) -> Check {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let unknown: Vec<String> =
        config::unknown_variables(names, config.secrets_env_prefix.as_deref()).into_iter().collect();
    if unknown.is_empty() {
        return Check::new("settings", Status::Ok, "valid");
    }
    let message = format!("{} is set, but it is not a setting", unknown.join(", "));
    Check::new("settings", Status::Warn, message)
}

async fn database(config: &Config) -> Vec<Check> {
    match database::examine(config).await {
        Ok(Examined::NotMade) => {
            let message = "an embedded one, which is made when it is first needed, as by `gathering serve`";
            vec![Check::new("database", Status::Ok, message)]
        }
        Ok(Examined::InUse(error)) => {
            let message = format!("{error}; its server tells more at /health");
            vec![Check::new("database", Status::Warn, message)]
        }
        Ok(Examined::Reached { pending, clock_ahead }) => {
            vec![Check::new("database", Status::Ok, "reachable"), migrations(pending), clocks(clock_ahead)]
        }
        Err(error) => vec![Check::new("database", Status::Fail, format!("{error:#}"))],
    }
}

fn migrations(pending: Result<usize, MigrateError>) -> Check {
    match pending {
        Ok(0) => Check::new("migrations", Status::Ok, "all are applied"),
        Ok(n) => {
            let message = format!("{n} to apply: `gathering migrate` does so, and so does `gathering serve`");
            Check::new("migrations", Status::Warn, message)
        }
        Err(error) => Check::new("migrations", Status::Fail, chain(&error)),
    }
}

fn clocks(ahead: TimeDelta) -> Check {
    let seconds = format!("{:.1} s", ahead.abs().as_seconds_f64());
    if ahead.abs() <= CLOCKS_AGREE {
        return Check::new("clocks", Status::Ok, format!("the database's differs by {seconds}"));
    }
    let word = if ahead > TimeDelta::zero() { "ahead of" } else { "behind" };
    let message = format!(
        "the database's is {seconds} {word} this machine's: set both by NTP; schedules fire by the database's"
    );
    Check::new("clocks", Status::Warn, message)
}

/// The error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    let causes = causes.map(|cause| format!(": {cause}"));
    std::iter::once(error.to_string()).chain(causes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn time_zones_count_as_old_from_july_of_the_next_year_on() {
        let bundled = ZoneData::bundled();
        let year: i32 = bundled.version()[..4].parse().unwrap();
        let status =
            |month: u32| zones(&bundled, at(&format!("{}-{month:02}-30T12:00:00Z", year + 1))).status;
        assert_eq!((status(6), status(7)), (Status::Ok, Status::Warn));
        assert_eq!(zones(&bundled, at(&format!("{year}-12-31T00:00:00Z"))).status, Status::Ok);
        let old = zones(&bundled, at(&format!("{}-01-01T00:00:00Z", year + 2)));
        assert!(
            old.message.contains(bundled.version()) && old.message.contains("restart"),
            "{}",
            old.message
        );
    }

    #[test]
    fn clocks_that_differ_are_told_with_the_direction() {
        assert_eq!(clocks(TimeDelta::milliseconds(-1500)).status, Status::Ok);
        let ahead = clocks(TimeDelta::seconds(90));
        assert_eq!(ahead.status, Status::Warn);
        assert!(
            ahead.message.starts_with("the database's is 90.0 s ahead of this machine's"),
            "{}",
            ahead.message
        );
        assert!(clocks(TimeDelta::seconds(-90)).message.contains("behind"));
    }

    #[test]
    fn the_worst_check_decides() {
        assert!(Status::Ok < Status::Warn && Status::Warn < Status::Fail);
        let check = Check::new("settings", Status::Fail, "one\ntwo");
        assert_eq!(line(&check), "fail  settings: one\n      two\n");
    }
}
