//! The calendars of schedules: read again and again, as their files are also written by runs, and by others on the disk.

use std::time::Duration;

use gathering_control::ScheduleControl;
use tokio_util::sync::CancellationToken;

/// How often they are read.
const INTERVAL: Duration = Duration::from_secs(300);

/// How long after the start they are first read: until then the database has more urgent work.
const FIRST_ROUND: Duration = Duration::from_secs(5);

/// Reads the calendars of all schedules at every interval. A stop drops a round: the next one, of whichever instance, goes
/// over all of them.
pub(super) async fn renew(schedules: ScheduleControl, stop: CancellationToken) {
    let mut pause = FIRST_ROUND;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let renewed = tokio::select! {
            () = stop.cancelled() => return,
            renewed = schedules.renew_calendars() => renewed,
        };
        match renewed {
            Ok(0) => {}
            Ok(n) => tracing::info!("the calendars of {n} schedules have changed"),
            Err(error) => {
                let cause = &error as &dyn std::error::Error;
                tracing::warn!(error = cause, "cannot renew the calendars of schedules: {error}");
            }
        }
        pause = INTERVAL;
    }
}
