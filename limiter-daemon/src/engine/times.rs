//! How long things took: a histogram that several threads may count in.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper ends in nanoseconds: a two-hundredth of a millisecond to a second.
pub const ENDS: [u64; 13] = [
    5_000,
    10_000,
    25_000,
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

/// Counts by how long something took.
#[derive(Debug, Default)]
pub struct Times {
    /// Each up to one of [`ENDS`]; the last: longer.
    counts: [AtomicU64; ENDS.len() + 1],
    /// Nanoseconds that all took.
    sum: AtomicU64,
}

/// What was counted until now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Each up to one of [`ENDS`] and above the one before; the last: longer.
    pub counts: [u64; ENDS.len() + 1],
    /// Nanoseconds that all took.
    pub sum: u64,
}

impl Times {
    /// Something took so many nanoseconds.
    pub fn took(&self, nanoseconds: u64) {
        let slot = ENDS.partition_point(|end| *end < nanoseconds);
        self.counts[slot].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    #[must_use]
    pub fn taken(&self) -> Taken {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Taken {
            counts: self.counts.each_ref().map(read),
            sum: read(&self.sum),
        }
    }
}

impl Taken {
    /// Both together.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum += other.sum;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_as_long_as_an_end_counts_up_to_it() {
        let times = Times::default();
        for nanoseconds in [0, 5_000, 5_001, 1_000_000_000, 1_000_000_001] {
            times.took(nanoseconds);
        }
        let taken = times.taken();
        assert_eq!(taken.counts[..3], [2, 1, 0]);
        assert_eq!(taken.counts[12..], [1, 1]);
        assert_eq!(taken.sum, 2_000_010_002);
        assert_eq!(taken.and(&taken).counts[0], 4);
    }
}
