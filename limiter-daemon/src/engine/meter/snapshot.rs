//! A state that was counted elsewhere: a store says how it is, and the meter what follows from it.

use super::{Meter, Words, worth};
use crate::engine::buckets::{Bucket, Word};
use crate::engine::time::Now;

/// What a store read, in nanoseconds of its own clock, which is taken for both of [`Now`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Of a token bucket.
    Tat(u64),
    /// Of windows: where the one that is counted in ends, its count, and that of the one before.
    Counts { end: u64, count: u64, last: u64 },
    /// Nobody looked.
    Unknown,
}

impl Reading {
    /// What it would be without the last of `tokens` that were counted.
    #[must_use]
    pub fn without(self, meter: &Meter, tokens: u64) -> Self {
        match (meter, self) {
            (Meter::Bucket { limit, .. }, Self::Tat(tat)) => {
                Self::Tat(tat.saturating_sub(worth(limit, tokens)))
            }
            (_, Self::Counts { end, count, last }) => Self::Counts {
                end,
                count: count.saturating_sub(tokens),
                last,
            },
            (_, other) => other,
        }
    }
}

/// The words of a state, as a meter has them.
#[derive(Debug)]
pub struct Snapshot([Word; 2]);

impl Snapshot {
    /// What `meter` makes of `reading`; of none, or of one that is not its kind, a full bucket.
    #[must_use]
    pub fn new(meter: &Meter, reading: Reading) -> Self {
        let mut words = [0, 0];
        match (meter, reading) {
            (Meter::Bucket { .. }, Reading::Tat(tat)) => words[0] = tat,
            (Meter::Fixed(window), Reading::Counts { end, count, .. }) => {
                words[0] = window.word(end, count);
            }
            (Meter::Sliding(window), Reading::Counts { end, count, last }) => {
                let before = end.saturating_sub(window.length());
                words[window.index_of(end)] = window.word(end, count);
                words[window.index_of(before)] = window.word(before, last);
            }
            _ => {}
        }
        Self(words.map(Word::of))
    }
}

impl Words for Snapshot {
    fn word(&self, index: usize, _now: Now) -> Bucket<'_> {
        Bucket::Shared(&self.0[index])
    }

    fn existing(&self, index: usize, _now: Now) -> Bucket<'_> {
        Bucket::Shared(&self.0[index])
    }
}
