//! When the liveness session is probed, how long an answer may take, and what follows.
//!
//! Never knows how it is probed.

use std::fmt::Display;
use std::time::Duration;

use gathering_domain::InstanceId;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Liveness;

/// How often it is probed while runs are driven.
const PROOF_INTERVAL: Duration = Duration::from_secs(2);

/// How often it is probed while none is.
pub(super) const IDLE_PROOF_INTERVAL: Duration = Duration::from_secs(30);

/// How often the heartbeat is written, with the next probe: a write costs more than a query.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);

/// The least time that a late probe gets: a process that was paused probes before it gives up.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// The probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// Whether the instance's row is there, and the session holds the lock.
    IsThere,
    /// The same, and writes the heartbeat.
    Heartbeat,
}

/// The answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proved {
    /// The row is there, and the session holds the lock.
    Alive,
    /// Another instance has deleted the row.
    RowGone,
    /// The session that answered does not hold the lock.
    LockGone,
}

/// The session that is probed.
pub(super) trait Ask: Send + Sync {
    /// Why the answer is missing.
    type Error: Display + Send;

    /// The instance.
    fn instance(&self) -> InstanceId;

    /// Probes the session once.
    fn ask(&self, proof: Proof) -> impl Future<Output = Result<Proved, Self::Error>> + Send;
}

/// Probes until an answer fails to come; then cancels `lost`.
pub(super) async fn keep(asker: impl Ask, mut driving: watch::Receiver<bool>, lost: CancellationToken) {
    let give_up = |reason: &str| {
        let id = asker.instance();
        tracing::error!(instance.id = %id, reason, "instance {id} lost its liveness: {reason}");
        lost.cancel();
    };
    let begin = Instant::now();
    let (mut last_proof, mut last_heartbeat) = (begin, begin);
    // Runs that are driven now were claimed after this, or the instance was alive then. From here on silence counts.
    let mut believed_from = begin;
    loop {
        let is_driving = *driving.borrow_and_update();
        let interval = if is_driving { PROOF_INTERVAL } else { IDLE_PROOF_INTERVAL };
        let is_due = tokio::select! {
            () = lost.cancelled() => return,
            Ok(()) = driving.changed() => false,
            () = tokio::time::sleep_until(last_proof + interval) => true,
        };
        let start = Instant::now();
        if !is_driving {
            believed_from = start;
        }
        if !is_due {
            continue;
        }
        let is_heartbeat = start - last_heartbeat >= HEARTBEAT_INTERVAL;
        let proof = if is_heartbeat { Proof::Heartbeat } else { Proof::IsThere };
        let patience = Liveness::SELF_FENCING_LIMIT.saturating_sub(start - believed_from).max(LEAST_PATIENCE);
        match tokio::time::timeout(patience, asker.ask(proof)).await {
            Ok(Ok(Proved::Alive)) => {
                // The instance counts as alive since the start of the probe: a slow answer must not extend that.
                (last_proof, believed_from) = (start, start);
                if is_heartbeat {
                    last_heartbeat = start;
                }
            }
            Ok(Ok(Proved::RowGone)) => {
                return give_up("its row is gone: another instance declared it dead");
            }
            Ok(Ok(Proved::LockGone)) => {
                return give_up("its session no longer holds its lock: is it behind a transaction pooler?");
            }
            Ok(Err(error)) => return give_up(&error.to_string()),
            Err(_elapsed) => return give_up("the database did not answer in time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A database that answers after a while, or never.
    struct Scripted {
        asked: Arc<Mutex<Vec<(Duration, Proof)>>>,
        begin: Instant,
        answers_after: Option<Duration>,
        answer: Proved,
    }

    impl Ask for Scripted {
        type Error = std::convert::Infallible;

        fn instance(&self) -> InstanceId {
            InstanceId::new()
        }

        async fn ask(&self, proof: Proof) -> Result<Proved, Self::Error> {
            self.asked.lock().unwrap().push((self.begin.elapsed(), proof));
            match self.answers_after {
                Some(after) => tokio::time::sleep(after).await,
                None => std::future::pending().await,
            }
            Ok(self.answer)
        }
    }

    /// What is kept alive, and when it was probed.
    struct Kept {
        driving: watch::Sender<bool>,
        lost: CancellationToken,
        asked: Arc<Mutex<Vec<(Duration, Proof)>>>,
    }

    fn kept(is_driving: bool, answers_after: Option<Duration>) -> Kept {
        kept_with(is_driving, answers_after, Proved::Alive)
    }

    fn kept_with(is_driving: bool, answers_after: Option<Duration>, answer: Proved) -> Kept {
        let (driving, receiver) = watch::channel(is_driving);
        let (lost, asked) = (CancellationToken::new(), Arc::default());
        let asker = Scripted { asked: Arc::clone(&asked), begin: Instant::now(), answers_after, answer };
        tokio::spawn(keep(asker, receiver, lost.clone()));
        Kept { driving, lost, asked }
    }

    impl Kept {
        async fn after(&self, seconds: u64) -> Vec<(Duration, Proof)> {
            // A little more, so that what is due then has taken place.
            tokio::time::sleep(Duration::from_secs(seconds) + Duration::from_millis(100)).await;
            std::mem::take(&mut self.asked.lock().unwrap())
        }
    }

    const SOON: Option<Duration> = Some(Duration::from_millis(1));

    #[tokio::test(start_paused = true)]
    async fn who_drives_proves_its_life_every_two_seconds_and_writes_it_every_ten() {
        let asked = kept(true, SOON).after(60).await;
        assert!((29..=30).contains(&asked.len()), "{asked:?}");
        let n_heartbeats = asked.iter().filter(|(_, proof)| *proof == Proof::Heartbeat).count();
        assert!((5..=6).contains(&n_heartbeats), "{asked:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_drives_nothing_proves_its_life_every_thirty_seconds_with_its_heartbeat() {
        let asked = kept(false, SOON).after(24 * 3600).await;
        assert!((2870..=2880).contains(&asked.len()), "{}", asked.len());
        assert!(asked.iter().all(|(_, proof)| *proof == Proof::Heartbeat));
    }

    #[tokio::test(start_paused = true)]
    async fn who_begins_to_drive_proves_its_life_at_once_but_never_more_often_than_every_two_seconds() {
        let kept = kept(false, SOON);
        assert_eq!(kept.after(20).await, []);
        for _ in 0..100 {
            kept.driving.send_replace(true);
            tokio::time::sleep(Duration::from_millis(5)).await;
            kept.driving.send_replace(false);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        kept.driving.send_replace(true);
        let asked = kept.after(5).await;
        let seconds: Vec<u64> = asked.iter().map(|(at, _)| at.as_secs()).collect();
        assert_eq!(seconds, [20, 22, 24, 26], "{asked:?}");
        assert_eq!(asked[0].1, Proof::Heartbeat);
    }

    #[tokio::test(start_paused = true)]
    async fn who_drives_and_gets_no_answer_stops_eight_seconds_after_its_last_proof() {
        let begin = Instant::now();
        kept(true, None).lost.cancelled().await;
        assert_eq!(begin.elapsed().as_secs(), Liveness::SELF_FENCING_LIMIT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn who_begins_to_drive_and_gets_no_answer_stops_eight_seconds_after_that() {
        let kept = kept(false, None);
        kept.after(25).await;
        let begin = Instant::now();
        kept.driving.send_replace(true);
        kept.lost.cancelled().await;
        assert_eq!(begin.elapsed().as_secs(), Liveness::SELF_FENCING_LIMIT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn who_lost_its_row_or_its_lock_stops_at_the_next_proof() {
        for answer in [Proved::RowGone, Proved::LockGone] {
            let begin = Instant::now();
            kept_with(true, SOON, answer).lost.cancelled().await;
            assert_eq!(begin.elapsed().as_secs(), PROOF_INTERVAL.as_secs(), "{answer:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_drives_nothing_is_patient_with_a_slow_answer() {
        let kept = kept(false, Some(Duration::from_secs(7)));
        kept.after(3600).await;
        assert!(!kept.lost.is_cancelled());
    }
}
