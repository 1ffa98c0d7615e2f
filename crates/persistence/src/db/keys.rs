//! The keys of advisory locks and the names of channels, in one place.
//!
//! All derive from the schema's name, so that tests and installations in one cluster do not collide.

use gathering_domain::{Digest, InstanceId};

diesel::define_sql_function! {
    /// Takes the lock until the end of the transaction; waits for it.
    fn pg_advisory_xact_lock(key: diesel::sql_types::BigInt);
}

/// What a lock protects.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LockOf {
    /// Running migrations.
    Migrations,
    /// Dropping old partitions of the journal.
    OldJournals,
    /// Creating the first account.
    FirstAccount,
    /// Changing the set of admins.
    Admins,
    /// The liveness of an instance.
    Instance(InstanceId),
}

/// The 64-bit key of an advisory lock; the same for everyone.
pub(crate) fn lock_key(schema: &str, of: LockOf) -> i64 {
    let name = match of {
        LockOf::Migrations => format!("gathering\0{schema}\0migrations"),
        LockOf::OldJournals => format!("gathering\0{schema}\0old journals"),
        LockOf::FirstAccount => format!("gathering\0{schema}\0first account"),
        LockOf::Admins => format!("gathering\0{schema}\0admins"),
        LockOf::Instance(id) => format!("gathering\0{schema}\0instance\0{id}"),
    };
    i64::from_be_bytes(first_eight(&name))
}

/// The channel on which instances wake each other: short and plain, whatever the schema's name.
pub(crate) fn wake_channel(schema: &str) -> String {
    format!("gathering_{:016x}", u64::from_be_bytes(first_eight(&format!("gathering\0{schema}\0wake"))))
}

fn first_eight(name: &str) -> [u8; 8] {
    let digest = Digest::of(name.as_bytes());
    let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
    [a, b, c, d, e, f, g, h]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_and_instances_do_not_meet() {
        let id = InstanceId::new();
        let keys = [
            lock_key("one", LockOf::Instance(id)),
            lock_key("two", LockOf::Instance(id)),
            lock_key("one", LockOf::Instance(InstanceId::new())),
            lock_key("one", LockOf::Migrations),
            lock_key("one", LockOf::OldJournals),
            lock_key("one", LockOf::FirstAccount),
            lock_key("one", LockOf::Admins),
        ];
        let distinct: std::collections::BTreeSet<i64> = keys.into_iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert_ne!(wake_channel("one"), wake_channel("two"));
    }
}
