//! Connections of peers that the kernel drops: nothing comes of them any more, so they are ended at
//! once, and do not hold places until a bound on their time is over.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::{AbortHandle, Id};

use crate::engine::escalation::Protected;

/// Evictions that a worker may be behind. It misses older ones, whose connections end by their bounds.
const BEHIND: usize = 64;

/// Networks that the kernel drops from now on.
#[derive(Debug)]
pub struct Eviction {
    pub nets: Vec<IpNet>,
    /// On these ports.
    pub ports: Arc<BTreeSet<u16>>,
    /// But not these sources.
    pub allowed: Arc<Protected>,
}

impl Eviction {
    fn concerns(&self, bind: SocketAddr, peer: IpAddr) -> bool {
        self.ports.contains(&bind.port())
            && self.nets.iter().any(|net| net.contains(&peer))
            && !self.allowed.touches(peer.into())
    }
}

/// Tells all workers.
#[derive(Clone, Debug)]
pub struct Evictions(broadcast::Sender<Arc<Eviction>>);

impl Default for Evictions {
    fn default() -> Self {
        Self(broadcast::Sender::new(BEHIND))
    }
}

impl Evictions {
    pub fn tell(&self, eviction: Eviction) {
        // Without a worker there is nobody to evict.
        let _nobody = self.0.send(Arc::new(eviction));
    }

    pub(super) fn told(&self) -> Told {
        Told(self.0.subscribe())
    }
}

/// Hears of evictions.
#[derive(Debug)]
pub(super) struct Told(broadcast::Receiver<Arc<Eviction>>);

impl Told {
    /// The next one. May be dropped while it waits.
    pub(super) async fn next(&mut self) -> Arc<Eviction> {
        loop {
            match self.0.recv().await {
                Ok(eviction) => return eviction,
                Err(RecvError::Lagged(missed)) => {
                    tracing::debug!(missed, "connections of blocked peers end by their bounds");
                }
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

/// The connections that were accepted from a socket, by their peers.
#[derive(Debug, Default)]
pub(super) struct Peers(HashMap<Id, (IpAddr, AbortHandle)>);

impl Peers {
    pub(super) fn entered(&mut self, peer: IpAddr, connection: AbortHandle) {
        let peer = peer.to_canonical();
        self.0.insert(connection.id(), (peer, connection));
    }

    pub(super) fn left(&mut self, connection: Id) {
        self.0.remove(&connection);
    }

    /// Ends connections; how many.
    pub(super) fn evict(&self, bind: SocketAddr, eviction: &Eviction) -> usize {
        let concerned = self
            .0
            .values()
            .filter(|(peer, _)| eviction.concerns(bind, *peer));
        concerned.map(|(_, connection)| connection.abort()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_concerns_who_is_dropped() {
        let eviction = Eviction {
            nets: vec!["192.0.2.0/24".parse().unwrap()],
            ports: Arc::new(BTreeSet::from([443])),
            allowed: Arc::new(Protected::new(&["192.0.2.9/32".parse().unwrap()])),
        };
        for (port, peer, wanted) in [
            (443, "192.0.2.7", true),
            (80, "192.0.2.7", false),
            (443, "192.0.2.9", false),
            (443, "198.51.100.7", false),
        ] {
            let bind = SocketAddr::from(([0, 0, 0, 0], port));
            let peer = peer.parse().unwrap();
            assert_eq!(eviction.concerns(bind, peer), wanted, "{port} {peer}");
        }
    }
}
