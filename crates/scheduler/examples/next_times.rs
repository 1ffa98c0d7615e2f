//! Prints the next due times of a trigger, given as JSON, or of an expression and a time zone.
//!
//! `cargo run -p gathering-scheduler --example next_times -- '30 2 * * *' Europe/Berlin 2026-03-27T00:00:00Z`

use chrono::{DateTime, Utc};
use gathering_domain::Pointer;
use gathering_scheduler::{Trigger, ZoneData};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_else(|| "0 9 * * MON-FRI".to_owned());
    let timezone = arguments.next().unwrap_or_else(|| "Europe/Berlin".to_owned());
    let after: DateTime<Utc> = arguments.next().map_or_else(|| Ok(Utc::now()), |text| text.parse())?;

    let trigger: Value = match what.strip_prefix('{') {
        Some(_) => serde_json::from_str(&what)?,
        None => json!({ "type": "cron", "expression": what, "timezone": timezone }),
    };
    let trigger = Trigger::parse(&trigger, &Pointer::root())?;
    say(&trigger.describe());
    if let Trigger::Cron(cron) = &trigger {
        say(&format!("{cron}, with the time zones of {}", ZoneData::current()));
        cron.ambiguity().iter().for_each(|note| say(&format!("It {note}.")));
    }
    for at in trigger.next_n(after, 5) {
        match &trigger {
            Trigger::Cron(cron) => say(&format!("{}  ({})", at, cron.timezone().local(at))),
            _ => say(&at.to_string()),
        }
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example prints its result")]
fn say(line: &str) {
    println!("{line}");
}
