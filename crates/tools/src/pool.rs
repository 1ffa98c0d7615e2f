//! A bounded share of the runtime's blocking threads.
//!
//! Owns how many blocking calls run at once. Never knows what they do.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Runs blocking work on the runtime's blocking threads, at most a fixed number of calls at once. Other calls wait.
/// Clones share the bound.
#[derive(Debug, Clone)]
pub struct BlockingPool {
    room: Arc<Semaphore>,
}

/// A blocking call panicked. Its effects up to that point remain.
#[derive(Debug, thiserror::Error)]
#[error("blocking work panicked")]
pub struct BlockingWorkPanicked(#[source] tokio::task::JoinError);

impl BlockingPool {
    /// A pool that runs at most `max_concurrency` calls at once; at least 1.
    pub fn new(max_concurrency: usize) -> Self {
        let room = max_concurrency.clamp(1, Semaphore::MAX_PERMITS);
        Self { room: Arc::new(Semaphore::new(room)) }
    }

    /// Runs `work` as soon as the bound allows it.
    ///
    /// Cancel: waiting work is dropped before it starts. Started work runs to its end and counts towards the bound.
    ///
    /// # Errors
    /// [`BlockingWorkPanicked`] if it panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, BlockingWorkPanicked> {
        // The semaphore is never closed. If it were, work would run without a bound.
        let permit = Arc::clone(&self.room).acquire_owned().await.ok();
        tokio::task::spawn_blocking(move || {
            let _held_until_done = permit;
            work()
        })
        .await
        .map_err(BlockingWorkPanicked)
    }

    /// Drops `value` on a blocking thread if there is a runtime, without waiting for it. Use it for handles that are
    /// slow to close. It does not count towards the bound, because the value's owner has already had its turn.
    pub fn dispose(&self, value: impl Send + 'static) {
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(value))),
            Err(_no_runtime) => drop(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn calls_never_exceed_the_bound() {
        let pool = BlockingPool::new(2);
        let running = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let work = (0..32).map(|_| {
            let (pool, running, most) = (pool.clone(), Arc::clone(&running), Arc::clone(&most));
            tokio::spawn(async move {
                pool.run(move || {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                })
                .await
            })
        });
        for piece in work.collect::<Vec<_>>() {
            piece.await.unwrap().unwrap();
        }
        assert!(most.load(Ordering::SeqCst) <= 2);
    }

    #[tokio::test]
    async fn abandoned_work_counts_towards_the_bound_until_it_ends() {
        let pool = BlockingPool::new(1);
        let (started, has_started) = tokio::sync::oneshot::channel();
        let (release, released) = mpsc::channel::<()>();
        let abandoned = tokio::spawn({
            let pool = pool.clone();
            async move {
                pool.run(move || {
                    let _ = started.send(());
                    let _ = released.recv();
                })
                .await
            }
        });
        has_started.await.unwrap();
        abandoned.abort();
        let _ = abandoned.await;
        assert_eq!(pool.room.available_permits(), 0);
        release.send(()).unwrap();
        pool.run(|| ()).await.unwrap();
    }
}
