//! Counters of the data plane that belong to no route or limit.

use std::sync::atomic::{AtomicU64, Ordering};

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
