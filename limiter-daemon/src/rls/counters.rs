//! What the service counts beside its limits.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper ends of the histogram of answers, in nanoseconds: a twentieth of a millisecond to a second.
pub const TIMES: [u64; 10] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    20_000_000,
    100_000_000,
    1_000_000_000,
];

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
    /// Answers by how long they took, each up to one of [`TIMES`]; the last: longer.
    times: [AtomicU64; TIMES.len() + 1],
    /// Nanoseconds that all took.
    time: AtomicU64,
}

impl Counters {
    /// An answer took so many nanoseconds.
    pub(super) fn took(&self, time: u64) {
        let slot = TIMES.partition_point(|end| *end < time);
        self.times[slot].fetch_add(1, Ordering::Relaxed);
        self.time.fetch_add(time, Ordering::Relaxed);
    }

    /// Answers by how long they took (each up to one of [`TIMES`], the last longer), and nanoseconds
    /// in all.
    #[must_use]
    pub fn times(&self) -> ([u64; TIMES.len() + 1], u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (self.times.each_ref().map(read), read(&self.time))
    }
}
