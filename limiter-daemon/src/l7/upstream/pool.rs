//! A worker's idle connections.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::client::conn::http2;
use tokio::time::timeout;

use super::CONNECT_TIMEOUT;
use super::connect::{self, Connection};
use super::exchange::Http1;
use super::target::Target;
use crate::l7::body::RequestBody;
use crate::l7::clock::Clock;
use crate::l7::respond::Refusal;

/// Idle connections older than this are closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Idle connections kept for each endpoint, for each worker.
const MAX_IDLE: usize = 256;
/// Requests at once on one HTTP/2 connection, before another one is made.
const MAX_STREAMS: usize = 100;
/// HTTP/2 connections to each endpoint, for each worker; beyond them, requests wait for streams.
const MAX_HTTP2: usize = 16;

/// Connections of a worker. The lock is never held over a wait, and no other worker takes it.
#[derive(Debug)]
pub(super) struct Pool {
    clock: Clock,
    slots: Mutex<Slots>,
}

/// By the number of the target: nobody can choose those, so that no keyed hash is needed.
type Slots = BTreeMap<u64, Slot>;

/// Connections to one endpoint.
#[derive(Debug, Default)]
struct Slot {
    /// By the time since when they are idle; the last one is used next.
    idle: Vec<(u64, Box<Http1>)>,
    /// With the time when each was last seen in use.
    http2: Vec<(u64, Http2)>,
    /// Held by the request that makes an HTTP/2 connection: others wait for it and share.
    connecting: Arc<tokio::sync::Mutex<()>>,
}

/// A shared connection.
#[derive(Clone, Debug)]
pub(super) struct Http2 {
    pub(super) sender: http2::SendRequest<RequestBody>,
    pub(super) in_flight: Arc<AtomicUsize>,
}

/// A connection to send on.
pub(super) enum Pooled {
    Http1(Box<Http1>),
    Http2(Http2),
}

impl Pool {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            slots: Mutex::default(),
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that is there.
    pub(super) fn take(&self, target: &Target) -> Option<Pooled> {
        let mut slots = self.slots();
        let slot = slots.get_mut(&target.id)?;
        if let Some((_, connection)) = slot.idle.pop() {
            return Some(Pooled::Http1(connection));
        }
        slot.shared(self.clock.now()).map(Pooled::Http2)
    }

    /// A new connection; where HTTP/2 is spoken, one that another request makes meanwhile will do.
    pub(super) async fn connect(&self, target: &Target) -> Result<Pooled, Refusal> {
        let shares = {
            let mut slots = self.slots();
            let slot = slots.entry(target.id).or_default();
            let known = target.is_http2() || !slot.http2.is_empty();
            known.then(|| Arc::clone(&slot.connecting))
        };
        let _turn = match &shares {
            Some(connecting) => {
                let turn = timeout(CONNECT_TIMEOUT, connecting.lock()).await;
                let turn = turn.map_err(|elapsed| Refusal::Unreachable(elapsed.into()))?;
                let now = self.clock.now();
                let there = self.slots().get_mut(&target.id).and_then(|s| s.shared(now));
                if let Some(there) = there {
                    return Ok(Pooled::Http2(there));
                }
                Some(turn)
            }
            None => None,
        };
        Ok(match connect::connect(target, true).await? {
            Connection::Http1(connection) => Pooled::Http1(connection),
            Connection::Http2(connection) => {
                let mut slots = self.slots();
                let slot = slots.entry(target.id).or_default();
                slot.http2.push((self.clock.now(), connection.clone()));
                Pooled::Http2(connection)
            }
        })
    }

    /// Takes back a connection that is idle now.
    pub(super) fn put(&self, target: u64, connection: Box<Http1>) {
        let now = self.clock.now();
        let mut slots = self.slots();
        let idle = &mut slots.entry(target).or_default().idle;
        if idle.len() < MAX_IDLE {
            idle.push((now, connection));
        }
    }

    pub(super) fn sweep(&self) {
        let now = self.clock.now();
        let timeout = u64::try_from(IDLE_TIMEOUT.as_nanos()).unwrap_or(u64::MAX);
        // The clock may be younger than the timeout.
        let is_old = |since: u64| now.saturating_sub(since) > timeout;
        self.slots().retain(|_, slot| {
            slot.idle
                .retain_mut(|(since, connection)| !is_old(*since) && connection.is_open());
            slot.http2.retain_mut(|(used, http2)| {
                if http2.in_flight.load(Ordering::Relaxed) > 0 {
                    *used = now;
                }
                !is_old(*used) && !http2.sender.is_closed()
            });
            let connecting = Arc::strong_count(&slot.connecting) > 1;
            connecting || !slot.idle.is_empty() || !slot.http2.is_empty()
        });
    }
}

impl Slot {
    /// The HTTP/2 connection with the fewest requests, if another request fits in.
    fn shared(&mut self, now: u64) -> Option<Http2> {
        self.http2.retain(|(_, http2)| !http2.sender.is_closed());
        let full = self.http2.len() >= MAX_HTTP2;
        let (_, used, http2) = self
            .http2
            .iter_mut()
            .map(|(used, http2)| (http2.in_flight.load(Ordering::Relaxed), used, http2))
            .filter(|(in_flight, _, _)| full || *in_flight < MAX_STREAMS)
            .min_by_key(|(in_flight, _, _)| *in_flight)?;
        *used = now;
        Some(http2.clone())
    }
}
