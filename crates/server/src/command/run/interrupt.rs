//! Ctrl-C and SIGTERM: the first signal stops the run in order, the second one ends the process.

use anyhow::Context as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::command::progress::tell;

/// The stop that the first signal requests, and which signal it was.
pub(super) struct Interrupt {
    drain: CancellationToken,
    signal: Arc<AtomicU8>,
    _listener: AbortOnDropHandle<()>,
}

impl Interrupt {
    /// Listens from now on; the process no longer ends by itself on either signal.
    pub(super) fn listen() -> anyhow::Result<Self> {
        let interrupts = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        let terminations = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let drain = CancellationToken::new();
        let received = Arc::new(AtomicU8::new(0));
        let listener = listen(interrupts, terminations, drain.clone(), Arc::clone(&received));
        let listener = AbortOnDropHandle::new(tokio::spawn(listener));
        Ok(Self { drain, signal: received, _listener: listener })
    }

    /// Cancelled by the first signal.
    pub(super) const fn drain(&self) -> &CancellationToken {
        &self.drain
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
    received: Arc<AtomicU8>,
) {
    received.store(next(&mut interrupts, &mut terminations).await, Ordering::Relaxed);
    tell("stopping: releasing the run (send again to stop immediately)");
    drain.cancel();
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
