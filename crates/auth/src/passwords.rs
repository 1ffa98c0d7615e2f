//! Passwords: their rules, and bcrypt on a bounded thread pool of its own.
//!
//! Owns the cost of a guess. Invariant: [`Passwords::verify`] does the work of exactly one bcrypt of the configured
//! cost, whether or not the account exists or is active, for every input, and for stored hashes of a lower cost. A hash
//! of a higher cost takes longer. Until its owner logs in and the hash is renewed, that reveals that the account
//! exists. An operator who lowers the cost accepts this.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gathering_domain::{ExposeSecret, Pointer, Problems, Secret};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::PasswordHash;

/// bcrypt reads no more bytes than this; it would silently truncate a longer password.
const MAX_BYTES: usize = 72;
const MIN_CHARACTERS: usize = 8;

/// The settings for hashing passwords.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordSettings {
    /// The cost of bcrypt, 4 to 31. Each step doubles the time; 12 takes about a quarter of a second.
    pub cost: u32,
    /// The number of threads that hash.
    pub n_threads: usize,
    /// The number of passwords that may wait for a thread before the next is refused.
    pub n_waiting: usize,
}

impl Default for PasswordSettings {
    /// Cost 12, half of the processors, and a queue that one thread empties in about 15 seconds.
    fn default() -> Self {
        let n_processors = std::thread::available_parallelism().map_or(1, usize::from);
        let n_threads = (n_processors / 2).max(1);
        Self { cost: 12, n_threads, n_waiting: 64 * n_threads }
    }
}

/// Hashes and verifies passwords on a bounded number of threads, apart from the runtime's own.
///
/// Clones are cheap and share the bounds.
#[derive(Debug, Clone)]
pub struct Passwords {
    cost: u32,
    /// Permits for all work, executing or waiting.
    entrance: Arc<Semaphore>,
    /// Permits for executing work.
    threads: Arc<Semaphore>,
    /// The hash to verify against if there is no account.
    nobodys: Arc<PasswordHash>,
    done: Arc<Done>,
}

/// The work done so far.
#[derive(Debug, Default)]
struct Done {
    n_passwords: AtomicU64,
    work: AtomicU64,
}

/// Why a password could not be hashed or verified.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too many passwords wait; nothing was done. Retry later.
    #[error("too many passwords wait to be hashed")]
    Overloaded,
    /// The configured cost is out of range.
    #[error("the bcrypt cost is {cost}: it must be from 4 to 31")]
    Cost {
        /// The cost.
        cost: u32,
    },
    /// bcrypt could not read the stored hash, or the system provides no randomness.
    #[error("cannot hash a password")]
    Bcrypt(#[source] bcrypt::BcryptError),
    /// The runtime is shutting down.
    #[error("hashing a password was interrupted by the shutdown")]
    Interrupted,
}

/// A place in the queue. A caller reserves one before it does other work; `verify_at` and `hash_at` with a place never
/// fail with [`PasswordError::Overloaded`]. The place is freed when this value is dropped and the work done with it has
/// ended.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    _entrance: Arc<OwnedSemaphorePermit>,
}

/// What a computation holds until it ends, even if its caller has gone away. Otherwise a caller that goes away would
/// make room for more work than there are threads.
struct Turn {
    _place: Place,
    _thread: OwnedSemaphorePermit,
}

impl Passwords {
    /// A pool with these bounds.
    ///
    /// # Errors
    /// [`PasswordError::Cost`] if the cost is out of range.
    pub fn new(settings: PasswordSettings) -> Result<Self, PasswordError> {
        if !(4..=31).contains(&settings.cost) {
            return Err(PasswordError::Cost { cost: settings.cost });
        }
        let n_threads = settings.n_threads.max(1);
        Ok(Self {
            cost: settings.cost,
            entrance: Arc::new(Semaphore::new(
                n_threads.saturating_add(settings.n_waiting).min(Semaphore::MAX_PERMITS),
            )),
            threads: Arc::new(Semaphore::new(n_threads.min(Semaphore::MAX_PERMITS))),
            nobodys: Arc::new(hash_of_nobody(settings.cost)),
            done: Arc::default(),
        })
    }

    /// The problems of `password` as a new password, at `pointer`. It needs at least 8 characters and at most 72 bytes
    /// (what bcrypt reads), and no NUL (bcrypt repeats a password and ends each repetition with NUL).
    pub fn problems(password: &Secret, pointer: &Pointer) -> Problems {
        let password = password.expose_secret();
        let mut problems = Problems::new();
        if password.chars().count() < MIN_CHARACTERS {
            problems.add(pointer.clone(), format!("must have at least {MIN_CHARACTERS} characters"));
        }
        if password.len() > MAX_BYTES {
            problems.add(pointer.clone(), format!("must have at most {MAX_BYTES} bytes in UTF-8"));
        }
        if password.contains('\0') {
            problems.add(pointer.clone(), "must not contain the character NUL");
        }
        problems
    }

    /// Reserves a place in the queue without waiting.
    ///
    /// # Errors
    /// [`PasswordError::Overloaded`].
    pub(crate) fn place(&self) -> Result<Place, PasswordError> {
        let entrance =
            Arc::clone(&self.entrance).try_acquire_owned().map_err(|_| PasswordError::Overloaded)?;
        Ok(Place { _entrance: Arc::new(entrance) })
    }

    /// Hashes a password that has no [`problems`](Self::problems).
    ///
    /// Cancel: safe. A waiting call leaves the queue; a started computation ends unobserved.
    ///
    /// # Errors
    /// [`PasswordError`]; nothing was stored.
    pub async fn hash(&self, password: Secret) -> Result<PasswordHash, PasswordError> {
        self.hash_at(&self.place()?, password).await
    }

    /// As [`hash`](Self::hash), with a reserved place.
    ///
    /// # Errors
    /// [`PasswordError`], but never [`PasswordError::Overloaded`]; nothing was stored.
    pub(crate) async fn hash_at(
        &self,
        place: &Place,
        password: Secret,
    ) -> Result<PasswordHash, PasswordError> {
        let cost = self.cost;
        let hash = self
            .compute(place, move |done| {
                let hash = bcrypt::hash(password.expose_secret(), cost)?;
                done.add_work(cost);
                Ok(hash)
            })
            .await?;
        Ok(PasswordHash::from(hash))
    }

    /// Whether `hash` is the hash of `password`. Without a hash, or for an impossible password, the answer is `false`
    /// after the same work. A hash of a lower cost also takes the same work; one of a higher cost takes its own.
    ///
    /// Cancel: as [`hash`](Self::hash).
    ///
    /// # Errors
    /// [`PasswordError`]; the answer is unknown.
    pub async fn verify(&self, password: Secret, hash: Option<&PasswordHash>) -> Result<bool, PasswordError> {
        self.verify_at(&self.place()?, password, hash).await
    }

    /// As [`verify`](Self::verify), with a reserved place.
    ///
    /// # Errors
    /// [`PasswordError`], but never [`PasswordError::Overloaded`]; the answer is unknown.
    pub(crate) async fn verify_at(
        &self,
        place: &Place,
        password: Secret,
        hash: Option<&PasswordHash>,
    ) -> Result<bool, PasswordError> {
        // bcrypt would truncate a longer password, which might then match.
        let text = password.expose_secret();
        let can_be_right = text.len() <= MAX_BYTES && !text.contains('\0');
        let hash = hash.filter(|_| can_be_right);
        let against = hash.unwrap_or(&self.nobodys).clone();
        let configured_cost = self.cost;
        let matches = self
            .compute(place, move |done| {
                verify_at_cost(password.expose_secret(), &against, configured_cost, done)
            })
            .await?;
        Ok(matches && hash.is_some())
    }

    /// Whether the hash has the configured cost.
    pub fn is_of_configured_cost(&self, hash: &PasswordHash) -> bool {
        cost_of(hash).is_ok_and(|cost| cost == self.cost)
    }

    /// The number of passwords hashed or verified since the start.
    pub fn n_computed(&self) -> u64 {
        self.done.n_passwords.load(Ordering::Relaxed)
    }

    /// The work since the start, in rounds of bcrypt's key schedule: 2^cost for each bcrypt.
    pub fn work_computed(&self) -> u64 {
        self.done.work.load(Ordering::Relaxed)
    }

    async fn compute<T: Send + 'static>(
        &self,
        place: &Place,
        work: impl FnOnce(&Done) -> bcrypt::BcryptResult<T> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let turn = self.turn(place).await?;
        let done = Arc::clone(&self.done);
        let computing = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            done.n_passwords.fetch_add(1, Ordering::Relaxed);
            work(&done)
        });
        match computing.await {
            Ok(result) => result.map_err(PasswordError::Bcrypt),
            Err(_) => Err(PasswordError::Interrupted),
        }
    }

    async fn turn(&self, place: &Place) -> Result<Turn, PasswordError> {
        let thread =
            Arc::clone(&self.threads).acquire_owned().await.map_err(|_| PasswordError::Interrupted)?;
        Ok(Turn { _place: place.clone(), _thread: thread })
    }
}

impl Done {
    fn add_work(&self, cost: u32) {
        self.work.fetch_add(1 << cost, Ordering::Relaxed);
    }
}

/// A hash of no password. It is not computed, because that would take as long as a login. Verifying against it costs
/// the same, and the result is never accepted.
fn hash_of_nobody(cost: u32) -> PasswordHash {
    // The version, the cost, and 22 and 31 characters for zeros: the salt and the digest.
    PasswordHash::from(format!("$2b${cost:02}${:.<53}", ""))
}

fn cost_of(hash: &PasswordHash) -> bcrypt::BcryptResult<u32> {
    Ok(hash.expose().parse::<bcrypt::HashParts>()?.get_cost())
}

/// Verifies, and adds work up to `configured_cost`. Bcrypts of the hash's own cost c, of c + 1, and so on below the
/// configured C are 2^c + … + 2^(C-1) = 2^C - 2^c rounds, exactly what a cheaper verification lacks.
fn verify_at_cost(
    password: &str,
    hash: &PasswordHash,
    configured_cost: u32,
    done: &Done,
) -> bcrypt::BcryptResult<bool> {
    let cost = cost_of(hash)?;
    let matches = bcrypt::verify(password, hash.expose())?;
    done.add_work(cost);
    for lacking in cost..configured_cost {
        std::hint::black_box(bcrypt::hash_with_salt(password, lacking, [0; 16])?);
        done.add_work(lacking);
    }
    Ok(matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: PasswordSettings = PasswordSettings { cost: 4, n_threads: 1, n_waiting: 2 };

    fn secret(text: &str) -> Secret {
        Secret::from(text)
    }

    #[tokio::test]
    async fn a_password_verifies_only_against_its_own_hash() {
        let passwords = Passwords::new(CHEAP).unwrap();
        let hash = passwords.hash(secret("correct horse")).await.unwrap();
        assert!(passwords.verify(secret("correct horse"), Some(&hash)).await.unwrap());
        assert!(!passwords.verify(secret("battery staple"), Some(&hash)).await.unwrap());
        assert!(!passwords.verify(secret("correct horse"), None).await.unwrap());
        assert!(!format!("{hash:?}").contains(hash.expose()));
    }

    #[tokio::test]
    async fn passwords_that_bcrypt_confuses_are_distinguished() {
        let passwords = Passwords::new(CHEAP).unwrap();
        let longest = "x".repeat(72);
        let hash = passwords.hash(secret(&longest)).await.unwrap();
        assert!(passwords.verify(secret(&longest), Some(&hash)).await.unwrap());
        assert!(!passwords.verify(secret(&format!("{longest}y")), Some(&hash)).await.unwrap());
        let hash = passwords.hash(secret("password")).await.unwrap();
        assert!(bcrypt::verify("password\0password", hash.expose()).unwrap(), "the reason for the rule");
        assert!(!passwords.verify(secret("password\0password"), Some(&hash)).await.unwrap());
    }

    #[tokio::test]
    async fn every_verification_is_the_work_of_one_bcrypt_of_the_configured_cost() {
        let passwords = Passwords::new(PasswordSettings { cost: 7, ..CHEAP }).unwrap();
        let long = "x".repeat(1000);
        for cost in 4..=7 {
            let then = Passwords::new(PasswordSettings { cost, ..CHEAP }).unwrap();
            let hash = then.hash(secret("correct horse")).await.unwrap();
            assert_eq!(passwords.is_of_configured_cost(&hash), cost == 7);
            for (typed, hash, is_right) in [
                ("correct horse", Some(&hash), true),
                ("wrong", Some(&hash), false),
                ("wrong", None, false),
                (&long, Some(&hash), false),
                ("", None, false),
            ] {
                let before = (passwords.n_computed(), passwords.work_computed());
                assert_eq!(passwords.verify(secret(typed), hash).await.unwrap(), is_right);
                let after = (passwords.n_computed(), passwords.work_computed());
                assert_eq!(after, (before.0 + 1, before.1 + (1 << 7)), "cost {cost}, {typed:.20}");
            }
        }
    }

    #[tokio::test]
    async fn a_hash_of_a_higher_cost_is_verified_at_its_own() {
        let then = Passwords::new(PasswordSettings { cost: 6, ..CHEAP }).unwrap();
        let hash = then.hash(secret("correct horse")).await.unwrap();
        let passwords = Passwords::new(CHEAP).unwrap();
        assert!(passwords.verify(secret("correct horse"), Some(&hash)).await.unwrap());
        assert_eq!(passwords.work_computed(), 1 << 6);
        assert!(!passwords.is_of_configured_cost(&hash));
    }

    #[tokio::test]
    async fn an_invalid_hash_is_an_error() {
        let passwords = Passwords::new(CHEAP).unwrap();
        let cut_off = PasswordHash::from("$2b$04$abc".to_owned());
        let verified = passwords.verify(secret("correct horse"), Some(&cut_off)).await;
        assert!(matches!(verified, Err(PasswordError::Bcrypt(_))));
    }

    #[test]
    fn bad_passwords_are_rejected_with_every_reason() {
        let messages = |text: &str| -> Vec<String> {
            let pointer = Pointer::root().join("password");
            Passwords::problems(&secret(text), &pointer).iter().map(ToString::to_string).collect()
        };
        assert_eq!(messages("12345678"), Vec::<String>::new());
        assert_eq!(messages(&"ä".repeat(36)), Vec::<String>::new());
        assert_eq!(messages("ääääääa"), ["/password: must have at least 8 characters"]);
        assert_eq!(messages(&"ä".repeat(37)), ["/password: must have at most 72 bytes in UTF-8"]);
        assert_eq!(messages("a\0").len(), 2);
    }

    #[tokio::test]
    async fn beyond_the_bound_it_refuses_at_once_and_recovers() {
        let passwords = Passwords::new(CHEAP).unwrap();
        let held = passwords.turn(&passwords.place().unwrap()).await.unwrap();
        let mut waiting: Vec<_> = (0..2)
            .map(|_| {
                let passwords = passwords.clone();
                Box::pin(async move { passwords.hash(secret("correct horse")).await })
            })
            .collect();
        for future in &mut waiting {
            assert!(poll_once(future.as_mut()).await.is_none());
        }
        assert!(matches!(passwords.hash(secret("one too many")).await, Err(PasswordError::Overloaded)));
        // A waiting call is dropped: its place is free at once.
        drop(waiting.pop());
        let mut next = Box::pin(passwords.hash(secret("the next one")));
        assert!(poll_once(next.as_mut()).await.is_none());
        drop(held);
        assert!(waiting.remove(0).await.is_ok());
        assert!(next.await.is_ok());
    }

    #[test]
    fn a_cost_out_of_range_is_rejected_at_the_start() {
        for cost in [0, 3, 32] {
            assert!(matches!(
                Passwords::new(PasswordSettings { cost, ..CHEAP }),
                Err(PasswordError::Cost { .. })
            ));
        }
    }

    /// `None` if the future is not ready yet.
    async fn poll_once<F: Future + ?Sized>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        std::future::poll_fn(|context| match future.as_mut().poll(context) {
            std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        })
        .await
    }
}
