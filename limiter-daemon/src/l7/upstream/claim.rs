//! Finding a connection for a request: one that is kept, a new one, or one that comes free.

use std::sync::Arc;

use smallvec::SmallVec;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Upstreams;
use super::cluster::{Cluster, Grant, InUse, Pick, Waiting};
use super::connect::{self, Connection};
use super::failed::Failed;
use super::pool::{Http2, Pooled};
use super::target::Target;
use crate::engine::upstream::{Resource, Slot, Stat};

/// A connection, and what the request takes up.
pub(super) struct Claim {
    pub(super) in_use: InUse,
    pub(super) pooled: Pooled,
    /// It was made for this request.
    pub(super) fresh: bool,
}

impl Upstreams {
    /// Takes what the request needs. What it has taken is given back if it is dropped while it waits.
    pub(super) async fn claim(&self, pick: &mut Pick) -> Result<Claim, Failed> {
        let in_use = Self::enter(pick)?;
        if let Some(pooled) = self.pool.take(&in_use.target, &pick.cluster.breaker.stats) {
            return Ok(Claim {
                in_use,
                pooled,
                fresh: false,
            });
        }
        // What is rare is boxed: each request carries the size of what is not.
        Box::pin(self.connection(pick, in_use)).await
    }

    /// Lets the request in, at the endpoint that was chosen for it.
    pub(super) fn enter(pick: &Pick) -> Result<InUse, Failed> {
        let target = pick.current_target().ok_or(Failed::NoEndpoint)?;
        let settings = &pick.cluster.settings.circuit_breaker;
        let permit = pick.cluster.breaker.take(Resource::Parallel, settings);
        let permit = permit.map_err(Failed::Overflow)?;
        Ok(InUse::new(Some(permit), Arc::clone(target)))
    }

    async fn connection(&self, pick: &mut Pick, in_use: InUse) -> Result<Claim, Failed> {
        let cluster = Arc::clone(&pick.cluster);
        let turn = self.pool.turn(&in_use.target);
        let _turn = match &turn {
            Some(turn) => {
                let bound = cluster.settings.connect_timeout;
                let turn = timeout(bound, turn.lock()).await;
                let turn = turn.map_err(|elapsed| Failed::NotConnected(elapsed.into()))?;
                let shared = self.pool.shared(&in_use.target, &cluster.breaker.stats);
                if let Some(shared) = shared {
                    return Ok(on_shared(in_use, shared));
                }
                Some(turn)
            }
            None => None,
        };
        let (in_use, slot) = self.slot(pick, in_use).await?;
        let slot = match slot {
            Place::Slot(slot) => slot,
            Place::Connection(pooled) => {
                return Ok(Claim {
                    in_use,
                    pooled,
                    fresh: false,
                });
            }
        };
        let connected = self.connect(&cluster, &in_use.target, slot, true).await?;
        let pooled = match connected {
            Connection::Http1(connection) => Pooled::Http1(connection, 0),
            Connection::Http2(connection) => {
                self.pool.share(&in_use.target, connection.clone());
                Pooled::Http2(Box::new(connection))
            }
        };
        Ok(Claim {
            in_use,
            pooled,
            fresh: true,
        })
    }

    /// Makes a connection.
    pub(super) async fn connect(
        &self,
        cluster: &Cluster,
        target: &Arc<Target>,
        slot: Slot<Waiting>,
        http2: bool,
    ) -> Result<Connection, Failed> {
        cluster.connections.know(&self.pool);
        connect::connect(target, &cluster.settings, slot, http2, self.clock)
            .await
            .map_err(Failed::NotConnected)
    }

    /// The right to a new connection, at the endpoint that was chosen or at another that has room; or
    /// a connection, if none may be made.
    pub(super) async fn slot(
        &self,
        pick: &mut Pick,
        mut in_use: InUse,
    ) -> Result<(InUse, Place), Failed> {
        let cluster = Arc::clone(&pick.cluster);
        let connections = &cluster.connections;
        if let Some(slot) = free_slot(pick, &mut in_use) {
            return Ok((in_use, Place::Slot(slot)));
        }
        if let Some(shared) = connections.borrow(&in_use.target) {
            return Ok((in_use, Place::Connection(Pooled::Http2(Box::new(shared)))));
        }
        // Who waits is not under way.
        drop(in_use);
        loop {
            let grant = self.wait(pick).await?;
            let mut in_use = Self::enter(pick)?;
            match grant {
                Grant::Connection(connection) => {
                    if let Some(target) = pick.by_id(connection.target).cloned() {
                        pick.set_current(&target);
                        in_use.move_to(target);
                        let pooled = Pooled::Http1(connection, 0);
                        return Ok((in_use, Place::Connection(pooled)));
                    }
                    // The endpoint is gone meanwhile.
                    if let Some(slot) = at_endpoint(pick, &mut in_use, connection.close()) {
                        return Ok((in_use, Place::Slot(slot)));
                    }
                }
                Grant::Slot(slot) => {
                    if let Some(slot) = at_endpoint(pick, &mut in_use, slot) {
                        return Ok((in_use, Place::Slot(slot)));
                    }
                }
            }
        }
    }

    /// Waits until a connection or the right to one comes free, in the order of coming.
    async fn wait(&self, pick: &Pick) -> Result<Grant, Failed> {
        let cluster = &pick.cluster;
        let settings = &cluster.settings;
        let breaker = &cluster.breaker;
        let pending = breaker.take(Resource::Pending, &settings.circuit_breaker);
        let _pending = pending.map_err(Failed::Overflow)?;
        breaker.stats.count(Stat::RqPendingTotal);
        let (waiting, granted) = Waiting::new(pick.avoided());
        let slots = &cluster.connections.slots;
        let mut place = InQueue { cluster, granted };
        slots.wait(waiting);
        // What came free between the last look and now is for the one that waits longest.
        let targets = &pick.endpoints.targets;
        if targets.iter().any(|target| target.has_room(settings)) {
            slots.serve();
        }
        cluster.connections.evict(targets);
        match timeout(settings.connect_timeout, &mut place.granted).await {
            Ok(Ok(grant)) => Ok(grant),
            Ok(Err(_)) | Err(_) => {
                breaker.stats.count(Stat::RqPendingFailureEject);
                Err(Failed::Pending)
            }
        }
    }
}

/// What was found in place of a new connection, or the right to make one.
pub(super) enum Place {
    Slot(Slot<Waiting>),
    Connection(Pooled),
}

/// A place in the queue. Dropped, it is left.
struct InQueue<'a> {
    cluster: &'a Cluster,
    granted: oneshot::Receiver<Grant>,
}

impl Drop for InQueue<'_> {
    fn drop(&mut self) {
        self.granted.close();
        // What was granted meanwhile passes on when the receiver is dropped.
        let slots = &self.cluster.connections.slots;
        slots.forget(Waiting::is_gone);
    }
}

fn on_shared(in_use: InUse, shared: Http2) -> Claim {
    Claim {
        in_use,
        pooled: Pooled::Http2(Box::new(shared)),
        fresh: false,
    }
}

/// The right to a new connection, if there is one at once; that there is none is counted.
pub(super) fn free_slot(pick: &mut Pick, in_use: &mut InUse) -> Option<Slot<Waiting>> {
    let cluster = Arc::clone(&pick.cluster);
    let connections = &cluster.connections;
    let slot = connections.slots.take().or_else(|| {
        let evicted = connections.evict(&pick.endpoints.targets);
        evicted.then(|| connections.slots.take()).flatten()
    });
    let slot = slot.and_then(|slot| at_endpoint(pick, in_use, slot));
    if slot.is_none() {
        cluster.breaker.stats.count(Stat::CxOverflow);
    }
    slot
}

/// Uses `slot` for the endpoint that was chosen, or else for another one that may have one more
/// connection. `None`: none may.
fn at_endpoint(pick: &mut Pick, in_use: &mut InUse, slot: Slot<Waiting>) -> Option<Slot<Waiting>> {
    let cluster = Arc::clone(&pick.cluster);
    let max = cluster
        .settings
        .circuit_breaker
        .max_connections_per_endpoint;
    let mut free = match slot.at(&in_use.target.connections, max) {
        Ok(slot) => return Some(slot),
        Err(slot) => slot,
    };
    let only = std::slice::from_ref(&in_use.target);
    if cluster.connections.evict(only) {
        match free.at(&in_use.target.connections, max) {
            Ok(slot) => return Some(slot),
            Err(slot) => free = slot,
        }
    }
    let others: SmallVec<[Arc<Target>; 8]> = pick.endpoints.targets.iter().cloned().collect();
    for target in others {
        match free.at(&target.connections, max) {
            Ok(slot) => {
                pick.set_current(&target);
                in_use.move_to(target);
                return Some(slot);
            }
            Err(slot) => free = slot,
        }
    }
    None
}

/// A connection that was idle for so long, in nanoseconds, may have been closed by the other end
/// without our having heard of it yet.
pub(super) const MAY_BE_STALE: u64 = 100_000_000;
