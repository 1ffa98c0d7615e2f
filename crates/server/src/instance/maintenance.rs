//! Periodic work on the database: partitions of the journal, deletions, retention.
//!
//! Every instance that serves the queue does all of it. Each piece of work is safe on several instances at once.

use std::future::Future;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use gathering_persistence::{
    DatabaseError, Pool, clear_expired, delete_events_before, drop_journal_before, ensure_journal_partitions,
    finish_deletions, prune_audit_events, prune_blobs, prune_hook_deliveries, prune_runs,
    prune_schedule_fires,
};
use tokio_util::sync::CancellationToken;

use super::task::Task;
use crate::config::Config;
use crate::database::PARTITIONS_WEEKS;

const DAILY: Duration = Duration::from_secs(24 * 3600);
const HOURLY: Duration = Duration::from_secs(3600);
/// How often unfinished deletions are continued.
const DELETIONS: Duration = Duration::from_secs(30);
/// How long after the start the first round is done: until then the database has more urgent work.
const FIRST_ROUND: Duration = Duration::from_secs(5);
/// The longest pause after a failure.
const RETRY: Duration = Duration::from_secs(600);

/// A blob to which no entry of a journal refers is kept so long after the last one was written.
const BLOBS_AFTER: TimeDelta = TimeDelta::days(1);

/// Starts the tasks.
pub(super) fn start(pool: &Pool, config: &Config) -> Vec<Task> {
    let make_partitions =
        |pool| async move { ensure_journal_partitions(&pool, PARTITIONS_WEEKS).await.map(drop) };
    let mut tasks = vec![
        every("making journal partitions", DAILY, pool, make_partitions),
        every("clearing expired sessions and keys", HOURLY, pool, |pool| async move {
            clear_expired(&pool).await.map(drop)
        }),
        every("finishing deletions", DELETIONS, pool, |pool| async move {
            finish_deletions(&pool).await.map(drop)
        }),
        every("deleting unreferenced blobs", DAILY, pool, |pool| async move {
            prune_blobs(&pool, Utc::now() - BLOBS_AFTER).await.map(drop)
        }),
    ];
    let days = config.retention_journal_days;
    tasks.extend(daily_before("dropping old journals", days, pool, |pool, before| async move {
        drop_journal_before(&pool, before).await.map(drop)
    }));
    let days = config.retention_runs_days;
    tasks.extend(daily_before("deleting old runs", days, pool, |pool, before| async move {
        prune_runs(&pool, before).await.map(drop)
    }));
    let days = config.retention_events_days;
    tasks.extend(daily_before("deleting old events", days, pool, |pool, before| async move {
        delete_events_before(&pool, before).await.map(drop)
    }));
    let days = config.retention_fires_days;
    tasks.extend(daily_before("deleting old fires of schedules", days, pool, |pool, before| async move {
        prune_schedule_fires(&pool, before).await.map(drop)
    }));
    let days = config.retention_deliveries_days;
    tasks.extend(daily_before("deleting old calls of hooks", days, pool, |pool, before| async move {
        prune_hook_deliveries(&pool, before).await.map(drop)
    }));
    let days = config.retention_audit_days;
    tasks.extend(daily_before("deleting old audit events", days, pool, |pool, before| async move {
        prune_audit_events(&pool, before).await.map(drop)
    }));
    tasks
}

/// A daily task that works on everything older than this many days; none for 0 days, which keeps data for ever.
fn daily_before<F, Fut>(name: &'static str, days: u32, pool: &Pool, work: F) -> Option<Task>
where
    F: Fn(Pool, DateTime<Utc>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), DatabaseError>> + Send,
{
    let limit = limit_before(Utc::now(), days)?;
    // The settings bound the days, so a limit exists on later days, too.
    let before = move || limit_before(Utc::now(), days).unwrap_or(limit);
    Some(every(name, DAILY, pool, move |pool| work(pool, before())))
}

fn limit_before(now: DateTime<Utc>, days: u32) -> Option<DateTime<Utc>> {
    if days == 0 { None } else { now.checked_sub_signed(TimeDelta::days(days.into())) }
}

/// A task that does `work` soon after the start and at every interval. After a failure, which it logs, it retries sooner. A
/// stop drops work in progress: its transaction is rolled back.
fn every<F, Fut>(name: &'static str, interval: Duration, pool: &Pool, work: F) -> Task
where
    F: Fn(Pool) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), DatabaseError>> + Send,
{
    let pool = pool.clone();
    Task::start(name, move |stop: CancellationToken| async move {
        let mut pause = FIRST_ROUND;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let done = tokio::select! {
                () = stop.cancelled() => return,
                done = work(pool.clone()) => done,
            };
            pause = match done {
                Ok(()) => interval,
                Err(error) => {
                    let pause = interval.min(RETRY);
                    log(name, pause, &error);
                    pause
                }
            };
        }
    })
}

fn log(name: &str, pause: Duration, error: &DatabaseError) {
    let again = pause.as_secs();
    if let DatabaseError::Fault { .. } = error {
        tracing::error!(error = %error, task = name, "{name} failed; retrying in {again} s: {error}");
    } else {
        tracing::warn!(error = %error, task = name, "{name} failed; retrying in {again} s: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_days_are_for_ever_and_others_end_so_long_before_now() {
        let now: DateTime<Utc> = "2026-03-31T12:00:00Z".parse().unwrap();
        assert_eq!(limit_before(now, 0), None);
        assert_eq!(limit_before(now, 30).unwrap().to_rfc3339(), "2026-03-01T12:00:00+00:00");
        assert!(limit_before(now, 36_500).is_some());
    }
}
