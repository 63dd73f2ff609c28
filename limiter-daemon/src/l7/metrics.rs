//! Counters of the data plane that belong to no route or limit.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::engine::limited::{self, Account, Clients};
use crate::engine::times::{Taken, Times};
use crate::policy::plan::ConnectionLimits;

/// Counters over all workers.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Connections open now.
    pub active: AtomicU64,
    /// Times a worker did not accept because it had as many connections as it may.
    pub full: AtomicU64,
    /// `accept` failed (descriptors or memory ran out).
    pub accept_errors: AtomicU64,
    /// Requests that no route took.
    pub unrouted: AtomicU64,
    /// Connections ended by a bound, by [`Closed`].
    closed: [AtomicU64; Closed::ALL.len()],
    /// Upgraded connections open now.
    pub tunnels: AtomicU64,
    /// Requests whose copy was not sent to a mirror, or only in part, because too much was on the
    /// way there.
    pub mirrors_dropped: AtomicU64,
    /// Requests delayed on purpose.
    pub fault_delays: AtomicU64,
    /// Requests being delayed now.
    pub fault_active: AtomicU64,
    /// Requests answered on purpose in place of the upstream.
    pub fault_aborts: AtomicU64,
    /// Requests that were not delayed because as many were as may be.
    pub fault_overflow: AtomicU64,
    /// What each worker took to decide, by [`Decided`].
    decided: Mutex<Vec<Arc<Decisions>>>,
    /// Whom each worker's limits denied.
    limited: Mutex<Vec<Arc<Account>>>,
}

/// How long requests took from their head to the decision of all limits, on one worker.
#[derive(Debug, Default)]
pub(super) struct Decisions([Times; Decided::ALL.len()]);

/// What followed from a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided {
    /// The request goes to an upstream.
    Forwarded,
    /// It is answered without one: refused, redirected.
    Answered,
}

impl Decided {
    pub const ALL: [Self; 2] = [Self::Forwarded, Self::Answered];

    /// For a metric's label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Answered => "answered",
        }
    }
}

impl Decisions {
    /// A decision took so many nanoseconds.
    pub(super) fn took(&self, decided: Decided, nanoseconds: u64) {
        self.0[decided as usize].took(nanoseconds);
    }
}

/// Why a client's connection was closed before it wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The listener had all the connections it may.
    ListenerFull,
    /// The source had all the connections it may.
    SourceFull,
    /// No PROXY protocol header where one must be, or a malformed one.
    ProxyProtocol,
    /// No TLS handshake, or none in time.
    Handshake,
    /// A request's head took too long.
    HeadTimeout,
    /// No request for too long.
    Idle,
    /// The client did not take its response.
    Stalled,
    /// It lived as long as it may.
    MaxDuration,
    /// It had all the requests it may.
    MaxRequests,
    /// The kernel drops what comes of its peer from now on.
    Blocked,
}

impl Closed {
    pub const ALL: [Self; 10] = [
        Self::ListenerFull,
        Self::SourceFull,
        Self::ProxyProtocol,
        Self::Handshake,
        Self::HeadTimeout,
        Self::Idle,
        Self::Stalled,
        Self::MaxDuration,
        Self::MaxRequests,
        Self::Blocked,
    ];

    /// For a metric's label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ListenerFull => "listener_full",
            Self::SourceFull => "source_full",
            Self::ProxyProtocol => "proxy_protocol",
            Self::Handshake => "tls_handshake",
            Self::HeadTimeout => "head_timeout",
            Self::Idle => "idle",
            Self::Stalled => "stalled",
            Self::MaxDuration => "max_duration",
            Self::MaxRequests => "max_requests",
            Self::Blocked => "blocked",
        }
    }
}

impl Counters {
    pub(super) fn close(&self, reason: Closed) {
        self.closed[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// So many connections of blocked peers were ended.
    pub(super) fn evicted(&self, connections: usize) {
        let closed = &self.closed[Closed::Blocked as usize];
        closed.fetch_add(connections as u64, Ordering::Relaxed);
    }

    /// A place where one worker counts its decisions.
    pub(super) fn of_worker(&self) -> Arc<Decisions> {
        let decisions = Arc::<Decisions>::default();
        let mut all = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Arc::clone(&decisions));
        decisions
    }

    /// A place where one worker counts whom its limits deny.
    pub(super) fn account(&self) -> Arc<Account> {
        let account = Arc::<Account>::default();
        let mut all = self.limited.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Arc::clone(&account));
        account
    }

    /// The `number` clients that limits deny most, over all workers; `now`: by the clock of workers.
    #[must_use]
    pub fn limited(&self, number: usize, now: u64) -> Clients {
        let all = self.limited.lock().unwrap_or_else(PoisonError::into_inner);
        limited::most(all.iter().map(|one| &**one), number, now)
    }

    /// How long decisions took over all workers.
    #[must_use]
    pub fn decided(&self, decided: Decided) -> Taken {
        let all = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        let each = all.iter().map(|one| one.0[decided as usize].taken());
        each.fold(Taken::default(), |sum, one| sum.and(&one))
    }

    /// Connections closed for `reason`.
    #[must_use]
    pub fn closed(&self, reason: Closed) -> u64 {
        self.closed[reason as usize].load(Ordering::Relaxed)
    }
}

/// Counts an open connection for as long as it lives.
#[derive(Debug)]
pub(super) struct OpenConnection<'a>(&'a Counters);

impl<'a> OpenConnection<'a> {
    pub(super) fn new(counters: &'a Counters) -> Self {
        counters.connections.fetch_add(1, Ordering::Relaxed);
        counters.active.fetch_add(1, Ordering::Relaxed);
        Self(counters)
    }
}

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The connections of one address, over all workers.
#[derive(Debug, Default)]
pub(super) struct Door {
    open: AtomicU64,
    /// Only sources with a connection, so never more than connections.
    sources: Mutex<HashMap<IpAddr, u64>>,
}

/// A connection that was let in.
#[derive(Debug)]
pub(super) struct Entered {
    door: Arc<Door>,
    source: Option<IpAddr>,
}

impl Door {
    /// # Errors
    /// [`Closed::ListenerFull`].
    pub(super) fn enter(self: &Arc<Self>, limits: &ConnectionLimits) -> Result<Entered, Closed> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        let entered = Entered {
            door: Arc::clone(self),
            source: None,
        };
        if limits.max.is_some_and(|max| before >= max) {
            return Err(Closed::ListenerFull);
        }
        Ok(entered)
    }
}

impl Entered {
    /// Counts the connection against its source, once that is known.
    ///
    /// # Errors
    /// [`Closed::SourceFull`].
    pub(super) fn come_from(
        &mut self,
        source: IpAddr,
        limits: &ConnectionLimits,
    ) -> Result<(), Closed> {
        let Some(max) = limits.max_per_source else {
            return Ok(());
        };
        let source = network(source);
        let mut sources = self.door.sources();
        let open = sources.entry(source).or_insert(0);
        if *open >= max {
            return Err(Closed::SourceFull);
        }
        *open += 1;
        drop(sources);
        self.source = Some(source);
        Ok(())
    }
}

impl Door {
    fn sources(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, u64>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.door.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(source) = self.source {
            let mut sources = self.door.sources();
            if let Some(open) = sources.get_mut(&source) {
                *open -= 1;
                if *open == 0 {
                    sources.remove(&source);
                }
            }
        }
    }
}

/// What counts as one source: an IPv4 address, an IPv6 /64.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_and_sources_have_so_many_and_get_them_back() {
        let door = Arc::new(Door::default());
        let limits = ConnectionLimits {
            max: Some(2),
            max_per_source: Some(1),
            ..ConnectionLimits::default()
        };
        let ip = |text: &str| text.parse().unwrap();
        let mut first = door.enter(&limits).unwrap();
        first.come_from(ip("2001:db8::1"), &limits).unwrap();
        let mut second = door.enter(&limits).unwrap();
        assert_eq!(
            second.come_from(ip("2001:db8::2"), &limits),
            Err(Closed::SourceFull)
        );
        second.come_from(ip("2001:db8:0:1::1"), &limits).unwrap();
        assert_eq!(door.enter(&limits).unwrap_err(), Closed::ListenerFull);
        drop(first);
        let mut third = door.enter(&limits).unwrap();
        third.come_from(ip("2001:db8::2"), &limits).unwrap();
        drop((second, third));
        assert_eq!(door.open.load(Ordering::Relaxed), 0);
        assert!(door.sources().is_empty());
    }
}
