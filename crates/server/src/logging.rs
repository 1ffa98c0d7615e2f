//! Logs to standard error, filtered, as JSON or for people.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{Config, LogFormat};

/// A panic is logged like any other error, in the same form, instead of being printed beside the log.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("of an unknown kind");
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(panic.place = place, panic.backtrace = %backtrace, "panic at {place}: {message}");
    }));
}

/// Sets up logging, with these defaults where no setting says otherwise. Called once, by the binary.
///
/// # Errors
/// [`TryInitError`] if something else was set up before.
pub fn start(config: &Config, default_filter: &str, default_format: LogFormat) -> Result<(), TryInitError> {
    let filter = config.log_filter.as_deref().unwrap_or(default_filter);
    // The filter was checked with the other settings.
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    log_panics();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log_format.unwrap_or(default_format) {
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).finish().try_init(),
        LogFormat::Pretty => {
            lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).finish().try_init()
        }
    }
}
