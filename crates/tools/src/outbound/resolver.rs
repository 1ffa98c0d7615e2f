//! Resolves names to the addresses that the policy permits.
//!
//! The client connects to exactly the addresses checked here, so a name that resolves differently the second time gains
//! nothing.

use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::OutboundPolicy;

/// The system's resolver, filtered by the policy.
pub(super) struct GuardedResolver {
    pub(super) policy: OutboundPolicy,
}

/// The name has addresses, and the policy permits none of them.
#[derive(Debug, thiserror::Error)]
#[error("the policy permits no address of this name")]
pub(super) struct RefusedAddresses;

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.policy.clone();
        Box::pin(async move {
            // Port 0: the client replaces it by the URL's port.
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let any_found = !found.is_empty();
            let permitted: Vec<SocketAddr> =
                found.into_iter().filter(|address| policy.permits(address.ip())).collect();
            if permitted.is_empty() && any_found {
                return Err(RefusedAddresses.into());
            }
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}
