//! Connections to upstreams: for requests, pooled by each worker for itself, and those that clients'
//! connections are passed on by (`dial`).
//!
//! An HTTP/1.1 connection has no task of its own: the request that uses it drives it, and between
//! requests nobody does. That saves two changes of task a request, and the connection ends with the
//! request that is cut off. HTTP/2 connections are shared by requests, so a task drives each.
//!
//! How many connections and requests there may be is counted over all workers (`engine::upstream`).
//! Where there is no connection left, requests wait in one queue for all workers; who is done with a
//! connection hands it over.

mod claim;
mod cluster;
mod connect;
mod dial;
mod exchange;
mod failed;
mod life;
mod pool;
mod target;

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;

pub(super) use cluster::{Cluster, InUse, Pick};
pub(super) use connect::{Offer, open};
pub(super) use dial::dial;
pub(super) use exchange::Lease;
pub(super) use failed::Failed;
pub(super) use target::Target;

use super::body::RequestBody;
use super::clock::Clock;
use super::io::{Rewind, UpstreamIo};
use crate::engine::retry::is_idempotent;
use crate::engine::upstream::{Slot, Stat};
use claim::{Claim, MAY_BE_STALE, Place};
use cluster::Waiting;
use connect::Connection;
use exchange::Switched;
use pool::{Pool, Pooled};

/// A worker's connections to upstreams.
#[derive(Debug)]
pub(super) struct Upstreams {
    pool: Arc<Pool>,
    clock: Clock,
}

/// What became of a request for another protocol.
pub(super) enum Upgraded {
    /// The upstream speaks the other protocol now.
    Yes(Box<Rewind<UpstreamIo>>, Hold),
    /// It answered as to any request.
    No(Lease),
}

/// What a connection that bytes are passed on by takes up.
#[derive(Debug)]
pub(super) struct Hold {
    _in_use: InUse,
    _slot: Slot<Waiting>,
}

impl Upstreams {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            pool: Arc::new(Pool::new(clock)),
            clock,
        }
    }

    /// Closes connections that were idle for long, or that the endpoint has closed.
    pub(super) fn sweep(&self) {
        self.pool.sweep();
    }

    /// Sends `request` to the endpoint that was chosen, and waits for the response's head. The lease must be
    /// kept for as long as the body is read.
    ///
    /// # Errors
    /// [`Failed`].
    pub(super) async fn send(
        &self,
        pick: &mut Pick,
        request: &mut Option<Request<RequestBody>>,
    ) -> Result<(Response<Incoming>, Lease), Failed> {
        loop {
            let Claim {
                in_use,
                pooled,
                fresh,
            } = self.claim(pick).await?;
            let stats = &pick.cluster.breaker.stats;
            stats.count(Stat::RqTotal);
            let mut copy = None;
            let outcome = match pooled {
                Pooled::Http1(connection, idle) => {
                    if idle > MAY_BE_STALE {
                        copy = request.as_ref().and_then(again);
                    }
                    exchange::http1(&self.pool, connection, request).await
                }
                Pooled::Http2(connection) => {
                    exchange::http2(&in_use.target, *connection, request).await
                }
            };
            match outcome {
                Ok((response, leased)) => return Ok((response, Lease::new(leased, in_use))),
                // A pooled connection may have been closed meanwhile. What was not sent is sent on
                // another.
                Err(_closed) if !fresh && request.is_some() => {}
                // Nor does it matter if the upstream cannot mind (RFC 9110 section 9.2.2).
                Err(_closed) if copy.is_some() => {
                    stats.count(Stat::RqStale);
                    *request = copy;
                }
                Err(error) => return Err(error.into_failed(request.is_none())),
            }
        }
    }

    /// Sends a request that asks for another protocol, on a connection of its own. If the upstream
    /// switches, the connection comes back as it is.
    ///
    /// # Errors
    /// [`Failed`].
    pub(super) async fn upgrade(
        &self,
        pick: &mut Pick,
        request: &mut Option<Request<RequestBody>>,
    ) -> Result<(Response<Incoming>, Upgraded), Failed> {
        let in_use = Self::enter(pick)?;
        let (in_use, place) = self.slot(pick, in_use).await?;
        pick.cluster.breaker.stats.count(Stat::RqTotal);
        let connected = match place {
            Place::Slot(slot) => {
                let cluster = Arc::clone(&pick.cluster);
                self.connect(&cluster, &in_use.target, slot, false).await?
            }
            Place::Connection(Pooled::Http1(connection, _)) => Connection::Http1(connection),
            Place::Connection(Pooled::Http2(_)) => return Err(Failed::NoUpgrade),
        };
        let Connection::Http1(connection) = connected else {
            return Err(Failed::NoUpgrade);
        };
        let (response, switched) = exchange::upgrade(&self.pool, connection, request).await?;
        let upgraded = match switched {
            Switched::No(leased) => Upgraded::No(Lease::new(leased, in_use)),
            Switched::Yes(io, slot) => {
                let hold = Hold {
                    _in_use: in_use,
                    _slot: slot,
                };
                Upgraded::Yes(io, hold)
            }
        };
        Ok((response, upgraded))
    }
}

/// A copy of a request that has no body and that may arrive twice.
fn again(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    if !is_idempotent(request.method()) || !matches!(request.body(), RequestBody::Empty) {
        return None;
    }
    let mut copy = Request::new(RequestBody::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}
