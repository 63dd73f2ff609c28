//! What a shared place said of a bucket, and what that comes to later, by this node's clock alone.
//!
//! A reply was made after its question was asked. So what this takes for the time of the shared place
//! is ahead of it by at most the time that the answer took: waits are told shorter by that, never
//! longer.

use super::ledger::{Conforms, Item, Said};
use crate::engine::meter::{Meter, Reading};
use crate::engine::time::Now;

/// A reading, and when it was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) reading: Reading,
    /// By the clock of the shared place, in nanoseconds.
    pub(super) there: u64,
    /// When this node asked ([`Now::mono`]).
    pub(super) asked: u64,
}

impl Told {
    /// The clock of the shared place at `mono`.
    pub(super) const fn now(&self, mono: u64) -> Now {
        let now = self.there.saturating_add(mono.saturating_sub(self.asked));
        Now {
            mono: now,
            unix: now,
        }
    }

    /// When this node's clock is there at the latest at which the other one shows `end`.
    pub(super) const fn until(&self, end: u64) -> u64 {
        self.asked.saturating_add(end.saturating_sub(self.there))
    }
}

/// What is said of an item that nobody asked about.
pub(super) const fn not_asked() -> Said {
    Said::new(Conforms::NotAsked, Reading::Unknown)
}

/// Where the window ends that a bucket is counted in; `None`: it has none.
pub(super) const fn window_end(item: &Item, reading: Reading) -> Option<u64> {
    match (&item.meter, reading) {
        (Meter::Fixed(_) | Meter::Sliding(_), Reading::Counts { end, .. }) => Some(end),
        _ => None,
    }
}
