//! Idempotency keys in memory: each names one thing that a request of an account created.

use std::collections::HashMap;

use gathering_domain::{Digest, Once, UserId};

/// What a request with an idempotency key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim<Id> {
    /// To create the thing with the id that was given.
    Granted,
    /// Nothing: the same request created the thing with this id before.
    CreatedBefore(Id),
    /// Nothing: another request used the key.
    OtherRequest,
}

/// The requests that created things of one kind under a key, and what each created.
pub(super) struct IdempotencyKeys<Id>(HashMap<(UserId, String), (Digest, Id)>);

impl<Id> Default for IdempotencyKeys<Id> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<Id: Copy> IdempotencyKeys<Id> {
    /// Claims the request's key for the thing with this id, which must be created then.
    pub(super) fn claim(&mut self, user: UserId, once: &Once, id: Id) -> Claim<Id> {
        let key = (user, once.key.as_str().to_owned());
        match self.0.get(&key) {
            None => {
                self.0.insert(key, (once.digest, id));
                Claim::Granted
            }
            Some((digest, id)) if *digest == once.digest => Claim::CreatedBefore(*id),
            Some(_) => Claim::OtherRequest,
        }
    }
}
