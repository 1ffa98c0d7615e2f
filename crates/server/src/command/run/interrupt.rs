//! Ctrl-C and SIGTERM: the first one lets the run go, the second one ends the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::command::progress::tell;

/// How long what executes may go on after the first signal, before it is dropped and handed back.
const GRACE: Duration = Duration::from_secs(3);

/// What the first signal asks for, and which it was.
pub(super) struct Interrupt {
    drain: CancellationToken,
    release: CancellationToken,
    signal: Arc<AtomicU8>,
    _listener: AbortOnDropHandle<()>,
}

impl Interrupt {
    /// Listens from now on; the process no longer ends by itself on either signal.
    pub(super) fn listen() -> anyhow::Result<Self> {
        let interrupts = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        let terminations = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let (drain, release) = (CancellationToken::new(), CancellationToken::new());
        let received = Arc::new(AtomicU8::new(0));
        let listener =
            listen(interrupts, terminations, drain.clone(), release.clone(), Arc::clone(&received));
        let listener = AbortOnDropHandle::new(tokio::spawn(listener));
        Ok(Self { drain, release, signal: received, _listener: listener })
    }

    /// Cancelled by the first signal.
    pub(super) const fn drain(&self) -> &CancellationToken {
        &self.drain
    }

    /// Cancelled a little later.
    pub(super) const fn release(&self) -> &CancellationToken {
        &self.release
    }

    /// 128 and the number of the signal, as shells say it.
    pub(super) fn exit_code(&self) -> u8 {
        128 + self.signal.load(Ordering::Relaxed)
    }
}

async fn listen(
    mut interrupts: Signal,
    mut terminations: Signal,
    drain: CancellationToken,
    release: CancellationToken,
    received: Arc<AtomicU8>,
) {
    received.store(next(&mut interrupts, &mut terminations).await, Ordering::Relaxed);
    tell("stopping: the run is handed back (once more to end at once)");
    drain.cancel();
    tokio::select! {
        number = next(&mut interrupts, &mut terminations) => std::process::exit(i32::from(128 + number)),
        () = tokio::time::sleep(GRACE) => release.cancel(),
    }
    let number = next(&mut interrupts, &mut terminations).await;
    std::process::exit(i32::from(128 + number));
}

async fn next(interrupts: &mut Signal, terminations: &mut Signal) -> u8 {
    const SIGINT: u8 = 2;
    const SIGTERM: u8 = 15;
    tokio::select! {
        _ = interrupts.recv() => SIGINT,
        _ = terminations.recv() => SIGTERM,
    }
}
