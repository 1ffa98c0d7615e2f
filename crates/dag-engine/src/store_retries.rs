//! Retries of a query that the store did not answer, and when they reach the log.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::StoreError;

/// The back-off before the next attempt.
const PAUSE: Duration = Duration::from_millis(200);
/// A store that has not answered for this long is worth a warning.
const WARN_AFTER: Duration = Duration::from_secs(5);
/// After this many faults in a row, retrying is pointless.
const MAX_FAULTS: u32 = 5;

/// The retries of one query. They have no limit while the store is unavailable: the engine drops the caller when the
/// attempt times out, the run's deadline passes or the run is released.
#[derive(Debug)]
pub(crate) struct StoreRetries {
    /// What the query is for, as a gerund.
    doing: &'static str,
    max_faults: u32,
    first_failure: Option<Instant>,
    has_warned: bool,
    n_faults: u32,
}

impl StoreRetries {
    /// Gives up at the fifth fault in a row.
    pub(crate) const fn of(doing: &'static str) -> Self {
        Self { doing, max_faults: MAX_FAULTS, first_failure: None, has_warned: false, n_faults: 0 }
    }

    /// Never gives up, for work that an operator's repair completes.
    pub(crate) const fn for_ever_of(doing: &'static str) -> Self {
        Self { max_faults: u32::MAX, ..Self::of(doing) }
    }

    /// Waits before the next attempt. Warns once when the store has not answered for five seconds.
    ///
    /// Cancellation: safe.
    ///
    /// # Errors
    /// The error that was passed in, if another attempt is pointless: the query itself is wrong, or this was the fifth
    /// fault in a row.
    pub(crate) async fn pause(&mut self, error: StoreError) -> Result<(), StoreError> {
        match &error {
            StoreError::Unavailable(_) => self.n_faults = 0,
            StoreError::Fault(_) => self.n_faults = self.n_faults.saturating_add(1),
            _ => return Err(error),
        }
        if self.n_faults >= self.max_faults {
            return Err(error);
        }
        if self.n_faults == 1 {
            tracing::error!(error = %error, "the store failed while {}; retrying: {error}", self.doing);
        }
        let waited = self.first_failure.get_or_insert_with(Instant::now).elapsed();
        if waited >= WARN_AFTER && !self.has_warned {
            self.has_warned = true;
            tracing::warn!(error = %error, "no answer from the store for 5 s while {}; retrying: {error}", self.doing);
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::field::{Field, Visit};

    use super::*;

    fn away() -> StoreError {
        StoreError::Unavailable("connection refused".into())
    }

    fn fault() -> StoreError {
        StoreError::Fault("no such column".into())
    }

    /// Keeps the messages of all warnings.
    #[derive(Clone, Default)]
    struct Warnings(Arc<Mutex<Vec<String>>>);

    impl tracing::Subscriber for Warnings {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            *metadata.level() == tracing::Level::WARN
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            struct Message(String);
            impl Visit for Message {
                fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                    if field.name() == "message" {
                        self.0 = format!("{value:?}");
                    }
                }
            }
            let mut message = Message(String::new());
            event.record(&mut message);
            self.0.lock().unwrap().push(message.0);
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_waited_for_and_warned_of_once_after_five_seconds() {
        let warnings = Warnings::default();
        let _guard = tracing::subscriber::set_default(warnings.clone());
        let mut retries = StoreRetries::of("counting sheep");
        let began = Instant::now();
        while began.elapsed() < WARN_AFTER {
            retries.pause(away()).await.unwrap();
            assert_eq!(warnings.0.lock().unwrap().len(), 0, "after {:?}", began.elapsed());
        }
        while began.elapsed() < Duration::from_secs(60) {
            retries.pause(away()).await.unwrap();
        }
        let warned = warnings.0.lock().unwrap().clone();
        assert_eq!(warned.len(), 1, "{warned:?}");
        assert!(
            warned[0].contains("counting sheep") && warned[0].contains("connection refused"),
            "{warned:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_is_retried_until_it_is_the_fifth_in_a_row_and_a_wrong_question_never() {
        let mut retries = StoreRetries::of("testing");
        for _ in 0..4 {
            retries.pause(fault()).await.unwrap();
        }
        retries.pause(away()).await.unwrap();
        for _ in 0..4 {
            retries.pause(fault()).await.unwrap();
        }
        assert!(matches!(retries.pause(fault()).await, Err(StoreError::Fault(_))));
        let missing = StoreError::Missing { what: "the graph".to_owned() };
        assert!(matches!(StoreRetries::of("testing").pause(missing).await, Err(StoreError::Missing { .. })));
        let mut patient = StoreRetries::for_ever_of("testing");
        for _ in 0..100 {
            patient.pause(fault()).await.unwrap();
        }
    }
}
