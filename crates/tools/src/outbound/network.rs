//! The addresses that requests may reach.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A range of addresses, such as `10.0.0.0/8` or `fd00::/8`, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(IpNet);

/// A text that is not a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a network: write it as `10.0.0.0/8`, `fd00::/8` or a single address")]
pub struct InvalidNetwork(String);

impl Network {
    /// Whether the network contains `address`. An IPv4-mapped IPv6 address counts as the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let text = text.trim();
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network
            .map(|network| Self(network.trunc()))
            .map_err(|_| InvalidNetwork(text.chars().take(64).collect()))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The addresses that outgoing requests may reach: every public one, and the networks that the operator allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutboundPolicy {
    allowed: Vec<Network>,
}

impl OutboundPolicy {
    /// Public addresses only.
    pub const fn public_only() -> Self {
        Self { allowed: Vec::new() }
    }

    /// Public addresses and those of `networks`.
    pub fn allowing(networks: impl IntoIterator<Item = Network>) -> Self {
        Self { allowed: networks.into_iter().collect() }
    }

    /// Whether requests may reach `address`.
    pub fn permits(&self, address: IpAddr) -> bool {
        is_public(address) || self.allowed.iter().any(|network| network.contains(address))
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(first: u16, second: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0), prefix)
}

/// IPv4 networks outside the public internet: the IANA special-purpose registry (RFC 6890), multicast, and a cloud's
/// metadata service on an otherwise public address.
const NOT_PUBLIC_V4: [Ipv4Net; 17] = [
    v4(0, 0, 0, 0, 8),        // "this network", unspecified
    v4(10, 0, 0, 0, 8),       // private
    v4(100, 64, 0, 0, 10),    // carrier-grade NAT
    v4(127, 0, 0, 0, 8),      // loopback
    v4(168, 63, 129, 16, 32), // Azure's metadata and DNS
    v4(169, 254, 0, 0, 16),   // link-local, metadata services
    v4(172, 16, 0, 0, 12),    // private
    v4(192, 0, 0, 0, 24),     // protocol assignments
    v4(192, 0, 2, 0, 24),     // documentation
    v4(192, 31, 196, 0, 24),  // AS112
    v4(192, 88, 99, 0, 24),   // 6to4 relays
    v4(192, 168, 0, 0, 16),   // private
    v4(198, 18, 0, 0, 15),    // benchmarks
    v4(198, 51, 100, 0, 24),  // documentation
    v4(203, 0, 113, 0, 24),   // documentation
    v4(224, 0, 0, 0, 4),      // multicast
    v4(240, 0, 0, 0, 4),      // reserved, broadcast
];

/// The only public IPv6 unicast space. It excludes loopback, unique local, link-local, multicast, NAT64
/// (`64:ff9b::/96`, which would reach IPv4 addresses unnoticed) and IPv4-compatible addresses.
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 3);

/// Parts of it that are not public or contain an IPv4 address.
const NOT_PUBLIC_V6: [Ipv6Net; 4] = [
    v6(0x2001, 0, 23),     // protocol assignments, Teredo
    v6(0x2001, 0xdb8, 32), // documentation
    v6(0x2002, 0, 16),     // 6to4
    v6(0x3fff, 0, 20),     // documentation
];

fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => !NOT_PUBLIC_V4.iter().any(|network| network.contains(&address)),
        IpAddr::V6(address) => {
            GLOBAL_V6.contains(&address) && !NOT_PUBLIC_V6.iter().any(|network| network.contains(&address))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permitted(policy: &OutboundPolicy, address: &str) -> bool {
        policy.permits(address.parse().unwrap())
    }

    #[test]
    fn non_public_addresses_are_refused() {
        let policy = OutboundPolicy::public_only();
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::a00:1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "3fff::1",
            "5f00::1",
        ] {
            assert!(!permitted(&policy, address), "{address}");
        }
    }

    #[test]
    fn public_addresses_are_permitted() {
        let policy = OutboundPolicy::public_only();
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.1",
            "100.63.0.1",
            "172.32.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
        ] {
            assert!(permitted(&policy, address), "{address}");
        }
    }

    #[test]
    fn the_operator_allows_exactly_the_listed_networks() {
        let policy = OutboundPolicy::allowing(
            ["127.0.0.0/8", "10.1.2.3", "fd00::/8"].map(|text| text.parse().unwrap()),
        );
        for address in ["127.0.0.1", "::ffff:127.0.0.1", "10.1.2.3", "fd12::1", "1.1.1.1"] {
            assert!(permitted(&policy, address), "{address}");
        }
        for address in ["10.1.2.4", "169.254.169.254", "::1", "fe80::1", "64:ff9b::7f00:1"] {
            assert!(!permitted(&policy, address), "{address}");
        }
    }

    #[test]
    fn an_invalid_network_is_named_in_the_error() {
        for text in ["", "localhost", "10.0.0.0/33", "10.0.0", "10.0.0.0/8,1.1.1.1"] {
            let error = text.parse::<Network>().unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
        assert_eq!("10.1.2.3/8".parse::<Network>().unwrap().to_string(), "10.0.0.0/8");
    }
}
