//! Waiting for a condition, never for a time.

use std::fmt::Display;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Polls `look` until it returns a value; the last status that it returned is part of the failure.
///
/// # Errors
/// If `limit` passes first.
pub async fn wait_until<T, S: Display>(
    limit: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, S>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let status = match look().await {
            Ok(value) => return Ok(value),
            Err(status) => status,
        };
        if Instant::now() >= deadline {
            bail!("not within {limit:?}: {what}; at last: {status}");
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
