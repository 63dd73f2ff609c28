//! A worker's idle connections.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use hyper::client::conn::http2;

use super::cluster::Grant;
use super::exchange::Http1;
use super::life::{Life, Over};
use super::target::Target;
use crate::engine::upstream::{Stat, Stats};
use crate::l7::body::RequestBody;
use crate::l7::clock::Clock;

/// Idle connections kept for each endpoint, for each worker.
const MAX_IDLE: usize = 256;
/// Requests at once on one HTTP/2 connection, before another one is made.
const MAX_STREAMS: usize = 100;
/// HTTP/2 connections to each endpoint, for each worker; beyond them, requests wait for streams.
const MAX_HTTP2: usize = 16;

/// Connections of a worker. The lock is never held over a wait. Other workers take it only when a
/// backend has as many connections as it may.
#[derive(Debug)]
pub(in crate::l7) struct Pool {
    clock: Clock,
    kept: Mutex<Kept>,
}

/// By the number of the target: nobody can choose those, so that no keyed hash is needed.
type Kept = BTreeMap<u64, Shelf>;

/// Connections to one endpoint.
#[derive(Debug, Default)]
struct Shelf {
    /// By the time since when they are idle; the last one is used next.
    idle: Vec<(u64, Box<Http1>)>,
    /// With the time when each was last seen in use.
    http2: Vec<(u64, Http2)>,
    /// Held by the request that makes an HTTP/2 connection: others wait for it and share.
    connecting: Arc<tokio::sync::Mutex<()>>,
}

/// A shared connection.
#[derive(Clone, Debug)]
pub(in crate::l7) struct Http2 {
    pub(super) sender: http2::SendRequest<RequestBody>,
    pub(super) in_flight: Arc<AtomicUsize>,
    /// Requests so far.
    requests: Arc<AtomicU32>,
    endpoint: Weak<Target>,
    life: Life,
}

impl Http2 {
    pub(super) fn new(
        sender: http2::SendRequest<RequestBody>,
        target: &Arc<Target>,
        life: Life,
    ) -> Self {
        Self {
            sender,
            in_flight: Arc::default(),
            requests: Arc::default(),
            endpoint: Arc::downgrade(target),
            life,
        }
    }

    /// Why it takes no request any more.
    fn over(&self, used: u64, now: u64) -> Option<Over> {
        if self.life.allows(self.requests.load(Ordering::Relaxed)) {
            self.life.over(used, now)
        } else {
            Some(Over::Requests)
        }
    }
}

/// A connection to send on.
pub(super) enum Pooled {
    /// With the time for which it was idle.
    Http1(Box<Http1>, u64),
    /// Boxed, so that all others do not carry its size.
    Http2(Box<Http2>),
}

impl Pool {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            kept: Mutex::default(),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that is there. Those whose time is over are closed on the way.
    pub(super) fn take(&self, target: &Target, stats: &Stats) -> Option<Pooled> {
        let now = self.clock.now();
        // Closing a connection may hand its slot to somebody: not under the lock.
        let mut closed = None;
        let mut kept = self.kept();
        let shelf = kept.get_mut(&target.id)?;
        let taken = loop {
            let Some((since, connection)) = shelf.idle.pop() else {
                break shelf
                    .shared(now, stats)
                    .map(|http2| Pooled::Http2(Box::new(http2)));
            };
            match connection.life.over(since, now) {
                None => break Some(Pooled::Http1(connection, now.saturating_sub(since))),
                Some(over) => {
                    count(stats, over);
                    closed.get_or_insert_with(Vec::new).push(connection);
                }
            }
        };
        drop(kept);
        drop(closed);
        taken
    }

    /// A shared connection to `target` with room for a request.
    pub(super) fn shared(&self, target: &Target, stats: &Stats) -> Option<Http2> {
        let now = self.clock.now();
        self.kept().get_mut(&target.id)?.shared(now, stats)
    }

    /// A shared connection, for a request of another worker; however busy it is.
    pub(super) fn borrow(&self, target: &Target) -> Option<Http2> {
        let kept = self.kept();
        let open = |(_, http2): &&(u64, Http2)| !http2.sender.is_closed();
        let http2 = kept.get(&target.id)?.http2.iter().filter(open);
        let (_, least) = http2.min_by_key(|(_, http2)| http2.in_flight.load(Ordering::Relaxed))?;
        Some(least.clone())
    }

    /// What is to be held by who makes a connection to `target`, if HTTP/2 is known to be spoken.
    pub(super) fn turn(&self, target: &Target) -> Option<Arc<tokio::sync::Mutex<()>>> {
        let mut kept = self.kept();
        let shelf = kept.entry(target.id).or_default();
        let known = target.is_http2() || !shelf.http2.is_empty();
        known.then(|| Arc::clone(&shelf.connecting))
    }

    /// Keeps a connection that others can share.
    pub(super) fn share(&self, target: &Target, connection: Http2) {
        let now = self.clock.now();
        let mut kept = self.kept();
        let shelf = kept.entry(target.id).or_default();
        shelf.http2.push((now, connection));
    }

    /// Takes back a connection that is idle now: for who waits for one, or to keep it.
    pub(super) fn put(&self, connection: Box<Http1>) {
        let mut idle = Some(connection);
        while let Some(connection) = idle.take() {
            let now = self.clock.now();
            let over = connection.life.over(now, now);
            if over.is_some() || connection.slot.is_over() || !connection.is_wanted() {
                note(&connection, over);
                return;
            }
            match connection.slot.next_waiting() {
                // Who has given up leaves it to the next one.
                Some(waiting) => match waiting.take_over(connection) {
                    Ok(()) => return,
                    Err(Grant::Connection(connection)) => idle = Some(connection),
                    Err(Grant::Slot(slot)) => drop(slot),
                },
                None => idle = self.keep(connection, now),
            }
        }
    }

    /// Keeps an idle connection; gives it back if somebody has begun to wait, who may have looked
    /// here in vain just before.
    fn keep(&self, connection: Box<Http1>, now: u64) -> Option<Box<Http1>> {
        let mut kept = self.kept();
        let idle = &mut kept.entry(connection.target).or_default().idle;
        if idle.len() >= MAX_IDLE {
            drop(kept);
            drop(connection);
            return None;
        }
        let waits = |(_, connection): &mut (u64, Box<Http1>)| connection.slot.has_waiting();
        idle.push((now, connection));
        idle.pop_if(waits).map(|(_, connection)| connection)
    }

    /// Closes the connection to one of `targets` that is idle for longest. `None`: none is.
    pub(super) fn evict(&self, targets: &[Arc<Target>]) -> Option<()> {
        let mut kept = self.kept();
        let idle = |(_, http2): &(u64, Http2)| http2.in_flight.load(Ordering::Relaxed) == 0;
        let longest = targets
            .iter()
            .filter_map(|target| {
                let shelf = kept.get(&target.id)?;
                let http1 = shelf.idle.first().map(|(since, _)| *since);
                let http2 = shelf.http2.iter().find(|http2| idle(http2));
                let since = http1
                    .into_iter()
                    .chain(http2.map(|(used, _)| *used))
                    .min()?;
                Some((since, target.id))
            })
            .min()?;
        let shelf = kept.get_mut(&longest.1)?;
        let closed = if shelf.idle.is_empty() {
            let place = shelf.http2.iter().position(idle)?;
            Pooled::Http2(Box::new(shelf.http2.remove(place).1))
        } else {
            let (since, connection) = shelf.idle.remove(0);
            Pooled::Http1(connection, since)
        };
        drop(kept);
        // Its slot may go to somebody who waits: not under the lock.
        drop(closed);
        Some(())
    }

    /// Closes what was idle for long, what the endpoint has closed, and what is to endpoints that the
    /// plan in force does not have.
    pub(super) fn sweep(&self) {
        let now = self.clock.now();
        let mut closed = Vec::new();
        self.kept().retain(|_, shelf| {
            let over = |(since, connection): &mut (u64, Box<Http1>)| {
                let over = connection.life.over(*since, now);
                note(connection, over);
                over.is_some() || !connection.is_wanted() || !connection.is_open()
            };
            closed.extend(shelf.idle.extract_if(.., over));
            shelf.http2.retain_mut(|(used, http2)| {
                if http2.in_flight.load(Ordering::Relaxed) > 0 {
                    *used = now;
                }
                let wanted = http2.endpoint.strong_count() > 0;
                wanted && http2.over(*used, now).is_none() && !http2.sender.is_closed()
            });
            let connecting = Arc::strong_count(&shelf.connecting) > 1;
            connecting || !shelf.idle.is_empty() || !shelf.http2.is_empty()
        });
        drop(closed);
    }
}

impl Shelf {
    /// The HTTP/2 connection with the fewest requests, if another request fits in.
    fn shared(&mut self, now: u64, stats: &Stats) -> Option<Http2> {
        self.http2.retain(|(used, http2)| {
            let over = http2.over(*used, now);
            if let Some(over) = over {
                count(stats, over);
            }
            over.is_none() && !http2.sender.is_closed()
        });
        let full = self.http2.len() >= MAX_HTTP2;
        let (_, used, http2) = self
            .http2
            .iter_mut()
            .map(|(used, http2)| (http2.in_flight.load(Ordering::Relaxed), used, http2))
            .filter(|(in_flight, _, _)| full || *in_flight < MAX_STREAMS)
            .min_by_key(|(in_flight, _, _)| *in_flight)?;
        *used = now;
        http2.requests.fetch_add(1, Ordering::Relaxed);
        Some(http2.clone())
    }
}

const fn stat(over: Over) -> Option<Stat> {
    match over {
        Over::Requests => Some(Stat::CxMaxRequests),
        Over::Age => Some(Stat::CxMaxDuration),
        Over::Idle => None,
    }
}

fn count(stats: &Stats, over: Over) {
    if let Some(stat) = stat(over) {
        stats.count(stat);
    }
}

fn note(connection: &Http1, over: Option<Over>) {
    if let Some(stat) = over.and_then(stat) {
        connection.slot.count(stat);
    }
}
