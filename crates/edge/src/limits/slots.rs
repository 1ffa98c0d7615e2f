//! A limit on what goes on at the same time, such as answers that stay open.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gathering_domain::UserId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::{Kind, ProblemDetails};

/// `Retry-After` in seconds when there is no slot left.
const RETRY_AFTER_SECONDS: u32 = 5;

/// The slots of an instance, of which an account may take a part, so that none uses up those of all others. Cloning is
/// cheap and shares them.
#[derive(Debug, Clone)]
pub struct Slots {
    /// What takes a slot, in the plural.
    what: &'static str,
    n_slots: usize,
    n_of_one: usize,
    free: Arc<Semaphore>,
    taken: Arc<Mutex<HashMap<UserId, usize>>>,
}

/// One slot, until it is dropped.
#[derive(Debug)]
pub struct Slot {
    user: UserId,
    taken: Arc<Mutex<HashMap<UserId, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Slots {
    /// `n_slots` for `what` (a plural), and at most `n_of_one` of them for one account.
    pub fn new(what: &'static str, n_slots: usize, n_of_one: usize) -> Self {
        Self { what, n_slots, n_of_one, free: Arc::new(Semaphore::new(n_slots)), taken: Arc::default() }
    }

    /// Takes a slot for this account.
    ///
    /// # Errors
    /// 429 if the account has the maximum, 503 if the instance has.
    pub fn take(&self, user: UserId) -> Result<Slot, ProblemDetails> {
        let Self { what, n_slots, n_of_one, .. } = *self;
        let permit = Arc::clone(&self.free).try_acquire_owned().map_err(|_none_left| {
            let detail = format!("this instance has the maximum of {n_slots} {what}");
            ProblemDetails::new(Kind::Overloaded, detail).retry_after(RETRY_AFTER_SECONDS)
        })?;
        let mut taken = locked(&self.taken);
        let n_taken = taken.entry(user).or_default();
        if *n_taken >= n_of_one {
            let detail = format!("an account may have at most {n_of_one} {what} at a time");
            let retry_after = Duration::from_secs(RETRY_AFTER_SECONDS.into());
            return Err(ProblemDetails::rate_limited(detail, retry_after));
        }
        *n_taken += 1;
        Ok(Slot { user, taken: Arc::clone(&self.taken), _permit: permit })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = locked(&self.taken);
        if let Some(n_taken) = taken.get_mut(&self.user) {
            *n_taken -= 1;
            if *n_taken == 0 {
                taken.remove(&self.user);
            }
        }
    }
}

/// Nothing that panics happens under the lock, and a count is right at every moment.
fn locked(taken: &Mutex<HashMap<UserId, usize>>) -> MutexGuard<'_, HashMap<UserId, usize>> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const N_SLOTS: usize = 256;
    const N_OF_ONE: usize = 64;

    fn refused(slots: &Slots, user: UserId) -> Option<u16> {
        slots.take(user).err().map(|problem| problem.status().as_u16())
    }

    #[test]
    fn there_are_so_many_places_and_one_again_when_one_becomes_free() {
        let slots = Slots::new("streams", N_SLOTS, N_OF_ONE);
        let mut all = Vec::new();
        while all.len() < N_SLOTS {
            let user = UserId::new();
            let n_left = (N_SLOTS - all.len()).min(N_OF_ONE);
            all.extend((0..n_left).map(|_| slots.take(user).unwrap()));
        }
        assert_eq!(refused(&slots, UserId::new()), Some(503));
        all.pop();
        assert_eq!(refused(&slots, UserId::new()), None);
    }

    #[test]
    fn an_account_has_so_many_places_and_leaves_the_rest_to_others() {
        let slots = Slots::new("streams", N_SLOTS, N_OF_ONE);
        let (one, other) = (UserId::new(), UserId::new());
        let mut all: Vec<_> = (0..N_OF_ONE).map(|_| slots.take(one).unwrap()).collect();
        assert_eq!((refused(&slots, one), refused(&slots, other)), (Some(429), None));
        all.pop();
        assert_eq!(refused(&slots, one), None);
        all.clear();
        assert!(locked(&slots.taken).is_empty(), "an account without a slot uses no memory");
    }
}
