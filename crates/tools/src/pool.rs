//! A bounded share of the runtime's blocking threads.
//!
//! Owns how many blocking calls run at once. Never knows what they do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Runs blocking work on the runtime's blocking threads, at most a fixed number of calls at once. Other calls wait.
/// Long calls, such as tools, have half of the room, so that they never delay short ones. Clones share the bounds.
#[derive(Debug, Clone)]
pub struct BlockingPool {
    room: Arc<Semaphore>,
    long_room: Arc<Semaphore>,
    running: Arc<AtomicUsize>,
    awaited: Arc<AtomicUsize>,
}

/// A blocking call panicked. Its effects up to that point remain.
#[derive(Debug, thiserror::Error)]
#[error("blocking work panicked")]
pub struct BlockingWorkPanicked(#[source] tokio::task::JoinError);

impl BlockingPool {
    /// A pool that runs at most `max_concurrency` calls at once; at least 1.
    pub fn new(max_concurrency: usize) -> Self {
        let room = max_concurrency.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            room: Arc::new(Semaphore::new(room)),
            long_room: Arc::new(Semaphore::new((room / 2).max(1))),
            running: Arc::default(),
            awaited: Arc::default(),
        }
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
        self.start(None, work).await
    }

    /// As [`BlockingPool::run`], for work that may take seconds: it has half of the room.
    ///
    /// # Errors
    /// [`BlockingWorkPanicked`] if it panicked.
    pub async fn run_long<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, BlockingWorkPanicked> {
        let share = Arc::clone(&self.long_room).acquire_owned().await.ok();
        self.start(share, work).await
    }

    /// How many calls still run although their caller has gone away.
    pub fn n_abandoned(&self) -> usize {
        let awaited = self.awaited.load(Ordering::SeqCst);
        self.running.load(Ordering::SeqCst).saturating_sub(awaited)
    }

    async fn start<T: Send + 'static>(
        &self,
        share: Option<OwnedSemaphorePermit>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, BlockingWorkPanicked> {
        // The semaphores are never closed. If they were, work would run without a bound.
        let permit = Arc::clone(&self.room).acquire_owned().await.ok();
        let _awaited = Counted::one_more(&self.awaited);
        let running = Counted::one_more(&self.running);
        tokio::task::spawn_blocking(move || {
            let _held_until_done = (share, permit, running);
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

/// Counts while it exists.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn one_more(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!((pool.room.available_permits(), pool.n_abandoned()), (0, 1));
        release.send(()).unwrap();
        pool.run(|| ()).await.unwrap();
        assert_eq!(pool.n_abandoned(), 0);
    }

    #[tokio::test]
    async fn long_work_leaves_room_for_short_work() {
        let pool = BlockingPool::new(4);
        let mut released = Vec::new();
        for _ in 0..8 {
            let (release, wait) = mpsc::channel::<()>();
            let pool = pool.clone();
            tokio::spawn(async move { pool.run_long(move || wait.recv()).await });
            released.push(release);
        }
        while pool.room.available_permits() > 2 {
            tokio::task::yield_now().await;
        }
        let short = tokio::time::timeout(std::time::Duration::from_secs(10), pool.run(|| 1));
        assert_eq!(short.await.expect("short work waits for long work").unwrap(), 1);
    }
}
