//! Schedules whose days come from iCalendar files of the workspace, on real processes.

use std::time::Duration;

use anyhow::{Context, Result};
use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};
use gathering_e2e::{Client, Database, Server, begin, pipeline, wait_until};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// Christmas of every year, and a bridge day.
const HOLIDAYS: &str = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nBEGIN:VEVENT\r\nUID:christmas@example.org\r\n\
    DTSTART;VALUE=DATE:20201224\r\nDTEND;VALUE=DATE:20201227\r\nRRULE:FREQ=YEARLY\r\nEND:VEVENT\r\n\
    BEGIN:VEVENT\r\nUID:bridge@example.org\r\nDTSTART;VALUE=DATE:20261228\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n";

/// A calendar with so many days from the first one on.
fn days_from(first: NaiveDate, n_days: u64) -> String {
    let end = first + Days::new(n_days);
    format!(
        "BEGIN:VCALENDAR\nBEGIN:VEVENT\nUID:1\nDTSTART;VALUE=DATE:{}\nDTEND;VALUE=DATE:{}\nEND:VEVENT\nEND:VCALENDAR\n",
        first.format("%Y%m%d"),
        end.format("%Y%m%d")
    )
}

/// An hourly schedule that leaves out the days of `holidays.ics`, and its path.
async fn create(client: &Client) -> Result<(String, Value)> {
    let id = client.create_pipeline(&pipeline(&[begin()], &[])).await?;
    let schedule = json!({
        "name": "hourly", "trigger": {"type": "cron", "expression": "0 * * * *"},
        "action": {"action": "execute_pipeline", "pipeline_id": id}, "except": {"file": "holidays.ics"},
    });
    let created = client.post("/api/v1/schedules", &schedule).await?.expect(201)?;
    let path = format!("/api/v1/schedules/{}", created["id"].as_str().context("no id")?);
    Ok((path, created))
}

fn midnight(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(NaiveTime::MIN).and_utc()
}

fn next_of(schedule: &Value) -> Result<DateTime<Utc>> {
    Ok(schedule["next_fire_at"].as_str().context("it does not fire")?.parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_follows_the_calendar_that_is_written_over_the_api() -> Result<()> {
    let database = Database::empty().await?;
    let server = Server::start(&database).await?;
    let client = server.client().join("ada@example.org").await?;
    let project = client.get("/api/v1/projects").await?.expect(200)?["items"][0]["id"].clone();
    let files = format!("/api/v1/projects/{}/files", project.as_str().context("no project")?);
    client.put_bytes(&format!("{files}/calendars/christmas.ics"), HOLIDAYS).await?.expect(201)?;
    let preview = json!({
        "trigger": {"type": "cron", "expression": "0 7 * * MON-FRI", "timezone": "Europe/Berlin"},
        "after": "2026-12-22T12:00:00Z", "count": 3, "except": {"file": "calendars/christmas.ics"},
    });
    let shown = client.post("/api/v1/schedules/preview", &preview).await?.expect(200)?;
    let times = shown["times"].as_array().context("no times")?;
    let local: Vec<&str> = times.iter().filter_map(|time| time["local"].as_str()).collect();
    assert_eq!(
        local,
        ["2026-12-23T07:00:00+01:00", "2026-12-29T07:00:00+01:00", "2026-12-30T07:00:00+01:00"],
        "the gap is from Christmas Eve, a Thursday, until the Monday after"
    );

    let today = Utc::now().date_naive();
    client.put_bytes(&format!("{files}/holidays.ics"), days_from(today, 4)).await?.expect(201)?;
    let (schedule, created) = create(&client).await?;
    assert_eq!((&created["except"], &created["only"]), (&json!({"file": "holidays.ics"}), &json!(null)));
    assert_eq!(created["calendar"]["problem"], json!(null));
    assert_eq!(next_of(&created)?, midnight(today + Days::new(4)));
    client.put_bytes(&format!("{files}/holidays.ics"), days_from(today, 2)).await?.expect(204)?;
    let changed = client.get(&schedule).await?.expect(200)?;
    assert_eq!(next_of(&changed)?, midnight(today + Days::new(2)), "as soon as the file is answered");
    assert_eq!(changed["updated_at"], created["updated_at"]);

    client.put_bytes(&format!("{files}/holidays.ics"), "BEGIN:VCALENDAR\nno line").await?.expect(204)?;
    let broken = client.get(&schedule).await?.expect(200)?;
    let problem = broken["calendar"]["problem"].as_str().context("no problem")?;
    assert!(problem.starts_with("/except/file: line 2: is neither a property"), "{problem}");
    assert!(server.log().contains("keeps the days of its calendar"), "{}", server.log());
    client.delete(&format!("{files}/holidays.ics")).await?.expect(204)?;
    let gone = client.get(&schedule).await?.expect(200)?;
    assert_eq!(gone["calendar"]["problem"], "/except/file: there is no file or directory `holidays.ics`");
    assert_eq!(next_of(&gone)?, next_of(&changed)?);
    let listed = json!({"except": []});
    let without = client.patch(&schedule, &listed).await?.expect(200)?;
    assert_eq!((&without["calendar"], &without["except"]), (&json!(null), &json!([])));
    assert!(next_of(&without)? <= Utc::now() + chrono::Duration::hours(1));

    for file in ["../x.ics", "/etc/hostname"] {
        let refused = client.patch(&schedule, &json!({"only": {"file": file}})).await?;
        refused.expect_problem(422, "invalid")?;
        assert_eq!(refused.pointers(), ["/only/file"]);
        assert!(refused.text.contains("the path is outside of the workspace"), "{}", refused.text);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_calendar_that_is_written_on_the_disk_is_found() -> Result<()> {
    let database = Database::empty().await?;
    let directory = tempfile::tempdir()?;
    let start = || {
        Server::start_with(&database, |command| {
            command.env("GATHERING_WORKSPACE_ROOT", directory.path());
        })
    };
    let mut server = start().await?;
    let client = server.client().join("ada@example.org").await?;
    let project = client.get("/api/v1/projects").await?.expect(200)?["items"][0]["id"].clone();
    let project = project.as_str().context("no project")?;
    let today = Utc::now().date_naive();
    let file = format!("/api/v1/projects/{project}/files/holidays.ics");
    client.put_bytes(&file, days_from(today, 4)).await?.expect(201)?;
    let (schedule, created) = create(&client).await?;
    server.stop(LIMIT).await?;
    std::fs::write(directory.path().join(project).join("holidays.ics"), days_from(today, 3))?;

    let server = start().await?;
    let client = server.client().login("ada@example.org").await?;
    let renewed = wait_until(LIMIT, "the calendar is read again", async || {
        let reply = client.get(&schedule).await.map_err(|error| format!("{error:#}"))?;
        if reply.body["next_fire_at"] == created["next_fire_at"] { Err(reply.text) } else { Ok(reply.body) }
    })
    .await?;
    assert_eq!(next_of(&renewed)?, midnight(today + Days::new(3)));
    Ok(())
}
