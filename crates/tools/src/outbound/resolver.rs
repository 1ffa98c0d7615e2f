//! Names to addresses, without those that may not be reached.
//!
//! The addresses that are checked here are the ones that are connected to, so a name that answers differently the
//! second time gains nothing.

use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::OutboundPolicy;

/// The system's resolver behind the policy.
pub(super) struct GuardedResolver {
    pub(super) policy: OutboundPolicy,
}

/// The name has addresses, and none of them may be reached.
#[derive(Debug, thiserror::Error)]
#[error("no address of the name may be reached")]
pub(super) struct RefusedAddresses;

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.policy.clone();
        Box::pin(async move {
            // Port 0: the client puts in the one of the URL.
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
