//! Login budgets, which bound password guessing. The store keeps them, so they apply to all instances and survive a
//! restart.
//!
//! A budget is a leaky bucket in the form of the generic cell rate algorithm (ITU-T I.371, annex A): one time stamp per
//! key, until which the budget is used up. Every key includes the client's network, so an attacker elsewhere uses
//! another budget and locks nobody out.

use std::net::IpAddr;
use std::time::Duration;

use gathering_domain::{Digest, Email};

/// One attempt's share of a budget.
///
/// `spent_until` is stored per key (absent: now). A charge is accepted if `max(spent_until, now) + interval <= now +
/// burst * interval`, and sets `spent_until` to the left side. Otherwise it can be accepted after the difference of the
/// two sides. A refund subtracts `interval` from `spent_until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// The key of the budget.
    pub key: Digest,
    /// The charges that a full budget accepts at once; at least 1.
    pub burst: u32,
    /// The time until one more charge is available.
    pub interval: Duration,
}

/// The outcome of charges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charged {
    /// All were accepted.
    Paid,
    /// One of the budgets is exhausted, so none was charged.
    Refused {
        /// The time until all could be accepted, if no other attempt charges them before.
        retry_after: Duration,
    },
}

impl Charge {
    /// The charges of a login attempt: one of five for this e-mail from this network, with one more each minute, and
    /// one of thirty for all accounts from this network, with one more every two seconds.
    ///
    /// `email` is the address as it was typed. It has a budget whether or not it has an account. The normalised form
    /// counts.
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

/// The network of one client: an IPv4 address, or the 64 bits of IPv6 that identify a site.
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
    fn a_guess_from_elsewhere_uses_another_budget() {
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
