//! What the service counts beside its limits.

use std::sync::atomic::AtomicU64;

use crate::engine::times::Times;

/// Counts of all threads.
#[derive(Debug, Default)]
pub struct Counters {
    /// Questions, by gRPC and JSON.
    pub requests: AtomicU64,
    /// Those that were answered with an error.
    pub errors: AtomicU64,
    /// Of them those because a store does not answer.
    pub store_errors: AtomicU64,
    /// Those about a domain that no file has.
    pub domain_not_found: AtomicU64,
    /// Those that only the shadow mode of a whole domain let pass.
    pub shadowed: AtomicU64,
    pub connections: AtomicU64,
    /// Times that a thread waited with accepting because it had all the connections it may.
    pub full: AtomicU64,
    /// Connections closed before they asked anything: they said nothing, or no TLS.
    pub mute: AtomicU64,
    /// Connections open.
    pub active: AtomicU64,
    /// How long answers took.
    pub times: Times,
}
