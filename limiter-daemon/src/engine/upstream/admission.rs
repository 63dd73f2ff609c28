//! Refuses a part of the requests while too many of them fail.
//!
//! Envoy's admission control filter, after "client-side throttling" in Google's SRE book. Requests
//! are counted in slots of a second, or of a sixtieth of a window that is longer than a minute. A
//! slot is one word, so that a count is exact whoever else counts at that moment.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::mix::happens;
use super::outlier::nanos;
use crate::policy::plan::AdmissionControl;

/// Slots of a window.
const MAX_SLOTS: u64 = 60;
const SECOND: u64 = 1_000_000_000;

/// Requests and successes of a route under one policy. It is the same one over reloads, for as long
/// as its window is.
#[derive(Debug)]
pub struct Admission {
    /// `namespace/name` of the policies in force, and of the route.
    pub policy: String,
    pub route: String,
    /// In nanoseconds.
    slot: u64,
    slots: Box<[AtomicU64]>,
    /// Requests that were refused, that succeeded and that failed (Envoy: `rq_rejected`,
    /// `rq_success`, `rq_failure`).
    pub rejected: AtomicU64,
    pub succeeded: AtomicU64,
    pub failed: AtomicU64,
}

/// A slot: the number of its round in the highest 16 bits, 24 bits of requests, 24 of successes. A
/// slot that nobody wrote to for exactly 65,536 rounds (3 weeks, for a window of 30 s) would be read
/// as one of this round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot(u64);

impl Slot {
    const FULL: u64 = (1 << 24) - 1;

    const fn new(round: u64) -> Self {
        Self(round << 48)
    }

    const fn is_of(self, round: u64) -> bool {
        self.0 >> 48 == round & 0xffff
    }

    const fn requests(self) -> u64 {
        (self.0 >> 24) & Self::FULL
    }

    const fn successes(self) -> u64 {
        self.0 & Self::FULL
    }

    /// A full slot counts no more: 16 million requests tell the share well enough.
    const fn with(self, success: bool) -> Self {
        if self.requests() == Self::FULL {
            return self;
        }
        Self(self.0 + (1 << 24) + success as u64)
    }
}

impl Admission {
    /// Counts over `window`.
    #[must_use]
    pub fn new(policy: String, route: String, window: Duration) -> Self {
        let seconds = nanos(window).div_ceil(SECOND).max(1);
        let slot = seconds.div_ceil(MAX_SLOTS);
        let slots = seconds.div_ceil(slot);
        Self {
            policy,
            route,
            slot: slot.saturating_mul(SECOND),
            slots: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            rejected: AtomicU64::new(0),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// Whether a request may go on. `random` are 64 evenly spread bits.
    pub fn admit(&self, settings: &AdmissionControl, random: u64, now: u64) -> bool {
        let admitted = !happens(random, self.rejection(settings, now));
        if !admitted {
            self.rejected.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    /// Whether an answer counts as a success: a gRPC call by its gRPC status alone, which it has even
    /// where HTTP's says 200.
    #[must_use]
    pub fn is_success(settings: &AdmissionControl, status: u16, grpc: Option<u16>) -> bool {
        let (ranges, status) = match grpc {
            Some(grpc) => (&settings.grpc_success, grpc),
            None => (&settings.http_success, status),
        };
        ranges.iter().any(|range| range.contains(&status))
    }

    /// A request that was admitted is over.
    pub fn record(&self, success: bool, now: u64) {
        let of = if success {
            &self.succeeded
        } else {
            &self.failed
        };
        of.fetch_add(1, Ordering::Relaxed);
        let number = self.number(now);
        let (slot, round) = self.place(number);
        let counted = |word| {
            let seen = Slot(word);
            let current = if seen.is_of(round) {
                seen
            } else {
                Slot::new(round)
            };
            Some(current.with(success).0)
        };
        // It always gives a word, so it cannot fail.
        let _before = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, counted);
    }

    /// The probability that a request is refused.
    #[must_use]
    pub fn rejection(&self, settings: &AdmissionControl, now: u64) -> f64 {
        let (requests, successes) = self.counts(now);
        let window = settings.sampling_window.as_secs_f64();
        if (requests as f64) < f64::from(settings.min_request_rate) * window {
            return 0.0;
        }
        let wanted = successes as f64 / settings.min_success_rate.as_f64();
        let missing = (requests as f64 - wanted).max(0.0) / (requests as f64 + 1.0);
        missing
            .powf(1.0 / settings.aggression)
            .min(settings.max_rejection.as_f64())
    }

    /// Requests and successes within the window.
    #[must_use]
    pub fn counts(&self, now: u64) -> (u64, u64) {
        let number = self.number(now);
        // The first number is as many as there are slots, so that none is before zero.
        let within = number + 1 - self.slots.len() as u64..=number;
        within.fold((0, 0), |(requests, successes), number| {
            let (slot, round) = self.place(number);
            let seen = Slot(slot.load(Ordering::Relaxed));
            if seen.is_of(round) {
                (requests + seen.requests(), successes + seen.successes())
            } else {
                (requests, successes)
            }
        })
    }

    const fn number(&self, now: u64) -> u64 {
        now / self.slot + self.slots.len() as u64
    }

    fn place(&self, number: u64) -> (&AtomicU64, u64) {
        let slots = self.slots.len() as u64;
        let slot = usize::try_from(number % slots).unwrap_or(0);
        (&self.slots[slot], number / slots)
    }
}

#[cfg(test)]
mod tests;
