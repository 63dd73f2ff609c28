//! Peers by which requests of several clients come: to drop one would be to drop all behind it.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use lru::LruCache;

/// Peers that are remembered at most; of more, the one that came last longest ago is forgotten.
pub const MAX_PROXIES: usize = 4_096;

/// Which peers have come to a listener where a peer is not the client (PROXY protocol, a number of
/// hops, a header), so that no other listener has them sentenced.
#[derive(Debug)]
pub struct Proxies(Mutex<LruCache<IpAddr, ()>>);

impl Default for Proxies {
    fn default() -> Self {
        Self(Mutex::new(LruCache::unbounded()))
    }
}

impl Proxies {
    /// A connection of a proxy.
    pub fn saw(&self, peer: IpAddr) {
        let known = &mut *self.known();
        known.put(peer.to_canonical(), ());
        if known.len() > MAX_PROXIES {
            known.pop_lru();
        }
    }

    /// Whether one of them is in `net`.
    #[must_use]
    pub fn any_in(&self, net: IpNet) -> bool {
        let known = self.known();
        if net.prefix_len() == net.max_prefix_len() {
            return known.contains(&net.addr());
        }
        known.iter().any(|(peer, ())| net.contains(peer))
    }

    fn known(&self) -> MutexGuard<'_, LruCache<IpAddr, ()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
