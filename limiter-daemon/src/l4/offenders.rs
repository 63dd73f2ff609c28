//! Who is dropped most: a bounded count over the sampled drops.
//!
//! The Space-Saving algorithm (Metwally, Agrawal and El Abbadi 2005): a fixed number of counters;
//! a source without one takes over the smallest and goes on counting from it. A count is too high by
//! at most the smallest one there is, and nobody with more than that is missing.

use std::collections::HashMap;

use limiter_common::{Address, DropEvent};

/// Sources counted at once.
const COUNTERS: usize = 1024;

/// Counts of sampled drops, by source and policy.
#[derive(Debug, Default)]
pub struct Offenders {
    counts: HashMap<(Address, u32), Offender>,
    samples: u64,
}

/// A source and what was sampled of its drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offender {
    /// Samples, at most.
    pub samples: u64,
    /// By how much `samples` may be too high.
    pub error: u64,
    /// The last of them.
    pub last: DropEvent,
}

impl Offenders {
    /// Counts a sample.
    pub fn record(&mut self, event: DropEvent) {
        self.samples += 1;
        let key = (event.source, event.policy);
        if let Some(offender) = self.counts.get_mut(&key) {
            offender.samples += 1;
            offender.last = event;
            return;
        }
        let error = if self.counts.len() < COUNTERS {
            0
        } else {
            self.take_smallest()
        };
        let samples = error + 1;
        self.counts.insert(
            key,
            Offender {
                samples,
                error,
                last: event,
            },
        );
    }

    fn take_smallest(&mut self) -> u64 {
        let smallest = self
            .counts
            .iter()
            .min_by_key(|(_, offender)| offender.samples);
        let Some((key, samples)) = smallest.map(|(key, offender)| (*key, offender.samples)) else {
            return 0;
        };
        self.counts.remove(&key);
        samples
    }

    /// Samples in all.
    #[must_use]
    pub const fn samples(&self) -> u64 {
        self.samples
    }

    /// The `most` sources with the most samples, most first.
    #[must_use]
    pub fn top(&self, most: usize) -> Vec<Offender> {
        let mut all: Vec<_> = self.counts.values().copied().collect();
        all.sort_by_key(|offender| (std::cmp::Reverse(offender.samples), offender.last.source));
        all.truncate(most);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drop_of(source: u8) -> DropEvent {
        let source = Address::v4([10, 0, 0, source]);
        DropEvent {
            source,
            ..DropEvent::default()
        }
    }

    #[test]
    fn the_heaviest_are_first_and_memory_is_bounded() {
        let mut offenders = Offenders::default();
        for round in 0..100_000u32 {
            offenders.record(drop_of(1));
            if round % 2 == 0 {
                offenders.record(drop_of(2));
            }
            let [_, a, b, c] = round.to_be_bytes();
            let source = Address::v4([172, a, b, c]);
            offenders.record(DropEvent {
                source,
                ..DropEvent::default()
            });
        }
        let top = offenders.top(2);
        assert_eq!(top[0].last.source, drop_of(1).source);
        assert_eq!(top[1].last.source, drop_of(2).source);
        assert!((100_000..=100_000 + top[0].error).contains(&top[0].samples));
        assert_eq!(offenders.top(usize::MAX).len(), COUNTERS);
        assert_eq!(offenders.samples(), 250_000);
    }
}
