//! How often a password may be guessed: budgets that the store keeps, so that they hold on every instance and survive
//! a restart.
//!
//! A budget is a leaky bucket in the form of the generic cell rate algorithm (ITU-T I.371, annex A): one time stamp
//! per key, until which its budget is spent. Every key has the client's network in it, so whoever guesses from elsewhere
//! spends a budget of their own and locks nobody out.

use std::net::IpAddr;
use std::time::Duration;

use gathering_domain::{Digest, Email};

/// One attempt's share of a budget.
///
/// With `spent_until` as the store keeps it per key (absent: now), a charge is paid if
/// `max(spent_until, now) + interval <= now + burst * interval`, and sets `spent_until` to the left side. If not, it may
/// be paid again after the difference of the two sides. A refund takes `interval` off `spent_until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// Whose budget.
    pub key: Digest,
    /// How many charges it takes at once when it is full; at least 1.
    pub burst: u32,
    /// How long until one more is free again.
    pub interval: Duration,
}

/// What became of charges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charged {
    /// All are paid.
    Paid,
    /// One of the budgets is spent, so none was charged.
    Refused {
        /// When all of them could be paid, if nobody else charges them before.
        retry_after: Duration,
    },
}

impl Charge {
    /// What an attempt to log in costs: one of five for this e-mail from this network, one a minute coming back, and
    /// one of thirty for all accounts from this network, one every two seconds coming back.
    ///
    /// `email` is the address as it was typed: it has a budget whether it has an account or not, and its normalised
    /// form decides.
    pub fn for_login(email: &str, address: Option<IpAddr>) -> [Charge; 2] {
        let network = network(address);
        let email = Email::normalised(email);
        let key = |text: String| Digest::of(text.as_bytes());
        [
            Charge {
                key: key(format!("login\0{network}\0{email}")),
                burst: 5,
                interval: Duration::from_secs(60),
            },
            Charge { key: key(format!("logins\0{network}")), burst: 30, interval: Duration::from_secs(2) },
        ]
    }
}

/// The network that one client has to itself: an IPv4 address, or the 64 bits of IPv6 that a site chooses from.
fn network(address: Option<IpAddr>) -> String {
    match address.map(|address| address.to_canonical()) {
        None => "none".to_owned(),
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(email: &str, address: &str) -> [Digest; 2] {
        Charge::for_login(email, Some(address.parse().unwrap())).map(|charge| charge.key)
    }

    #[test]
    fn a_guess_from_elsewhere_spends_another_budget() {
        let [account, network] = keys("ada@example.org", "192.0.2.1");
        let [other_account, other_network] = keys("ada@example.org", "192.0.2.2");
        assert!(account != other_account && network != other_network);
        assert_eq!(keys(" Ada@Example.org ", "192.0.2.1"), [account, network]);
        assert_eq!(keys("eve@example.org", "192.0.2.1")[1], network);
        assert_eq!(keys("jose\u{301}@x", "192.0.2.1"), keys("JOS\u{c9}@x", "192.0.2.1"), "one account");
    }

    #[test]
    fn all_addresses_of_an_ipv6_site_are_one_client() {
        assert_eq!(keys("a@b", "2001:db8::1"), keys("a@b", "2001:db8::ffff:2"));
        assert_ne!(keys("a@b", "2001:db8::1"), keys("a@b", "2001:db8:0:1::1"));
        assert_eq!(keys("a@b", "::ffff:192.0.2.1"), keys("a@b", "192.0.2.1"));
    }
}
