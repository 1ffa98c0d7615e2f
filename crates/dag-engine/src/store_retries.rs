//! Retries of a query that the store did not answer, and when they reach the log.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::StoreError;

/// The back-off before the next attempt.
const PAUSE: Duration = Duration::from_millis(200);
/// A store that has not answered for this long is worth a warning.
const WARN_AFTER: Duration = Duration::from_secs(5);
/// A store that has given nothing but faults for this long will not answer this query.
const FAULTS_FOR: Duration = Duration::from_secs(60);

/// The retries of one query. They have no limit while the store is unavailable: the engine drops the caller when the
/// attempt times out, the run's deadline passes or the run is released.
#[derive(Debug)]
pub(crate) struct StoreRetries {
    /// What the query is for, as a gerund.
    doing: &'static str,
    gives_up: bool,
    first_failure: Option<Instant>,
    has_warned: bool,
    first_fault: Option<Instant>,
}

impl StoreRetries {
    /// Gives up after a minute of faults: an operator may repair in that time what affects every query, but the query
    /// itself may be at fault.
    pub(crate) const fn of(doing: &'static str) -> Self {
        Self { doing, gives_up: true, first_failure: None, has_warned: false, first_fault: None }
    }

    /// Never gives up, for work that an operator's repair completes.
    pub(crate) const fn for_ever_of(doing: &'static str) -> Self {
        Self { gives_up: false, ..Self::of(doing) }
    }

    /// Waits before the next attempt. Warns once when the store has not answered for five seconds.
    ///
    /// Cancellation: safe.
    ///
    /// # Errors
    /// The error that was passed in, if another attempt is pointless: the query itself is wrong, or the store gave nothing
    /// but faults for a minute.
    pub(crate) async fn pause(&mut self, error: StoreError) -> Result<(), StoreError> {
        match &error {
            error if error.is_transient() => self.first_fault = None,
            StoreError::Fault(_) => {
                let is_first = self.first_fault.is_none();
                let since = *self.first_fault.get_or_insert_with(Instant::now);
                if self.gives_up && since.elapsed() >= FAULTS_FOR {
                    return Err(error);
                }
                if is_first {
                    tracing::error!(error = %error, "the store failed while {}; retrying: {error}", self.doing);
                }
            }
            _ => return Err(error),
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

    fn slow() -> StoreError {
        StoreError::TimedOut("no answer".into())
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
    async fn faults_are_retried_for_a_minute_and_a_wrong_question_never() {
        let mut retries = StoreRetries::of("testing");
        for interruption in [away, slow] {
            // What interrupts the faults shows that they may pass.
            retries.pause(interruption()).await.unwrap();
            let began = Instant::now();
            while began.elapsed() < FAULTS_FOR {
                retries.pause(fault()).await.unwrap();
            }
        }
        assert!(matches!(retries.pause(fault()).await, Err(StoreError::Fault(_))));
        let missing = StoreError::Missing { what: "the graph".to_owned() };
        assert!(matches!(StoreRetries::of("testing").pause(missing).await, Err(StoreError::Missing { .. })));
        let mut patient = StoreRetries::for_ever_of("testing");
        for _ in 0..1000 {
            patient.pause(fault()).await.unwrap();
        }
    }
}
