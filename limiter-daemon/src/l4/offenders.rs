//! Who is dropped most: a bounded count over the sampled drops.
//!
//! The Space-Saving algorithm (Metwally, Agrawal and El Abbadi 2005): a fixed number of counters;
//! a source without one takes over the smallest and goes on counting from it. A count is too high by
//! at most the smallest one there is, and nobody with more than that is missing.

use std::collections::HashMap;

use limiter_common::{Address, DropEvent};

/// Sources counted at once.
const COUNTERS: usize = 1024;
const SECOND: u64 = 1_000_000_000;

/// Counts of sampled drops, by source and policy.
#[derive(Debug, Default)]
pub struct Offenders {
    counts: HashMap<(Address, u32), Offender>,
    samples: u64,
    /// Samples and lost samples in all, when last looked at.
    seen: Option<(u64, u64)>,
    /// Drops, and how many of them were sampled, between the last two looks.
    share: Option<(u64, u64)>,
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
    rate: Rate,
}

/// Samples in the second that the last one fell into, and in the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rate {
    second: u64,
    current: u64,
    previous: u64,
}

impl Rate {
    fn add(&mut self, at: u64) {
        self.turn(at / SECOND);
        self.current += 1;
    }

    fn turn(&mut self, second: u64) {
        if second > self.second {
            let adjacent = second == self.second + 1;
            self.previous = if adjacent { self.current } else { 0 };
            self.current = 0;
            self.second = second;
        }
    }

    /// In the second that ends at `now`, if those in the second before came evenly.
    fn at(mut self, now: u64) -> u64 {
        self.turn(now / SECOND);
        let rest = SECOND - now % SECOND;
        let previous = u128::from(self.previous) * u128::from(rest) / u128::from(SECOND);
        self.current + u64::try_from(previous).unwrap_or(u64::MAX)
    }
}

impl Offenders {
    /// Counts a sample.
    pub fn record(&mut self, event: DropEvent) {
        self.samples += 1;
        let key = (event.source, event.policy);
        if let Some(offender) = self.counts.get_mut(&key) {
            offender.samples += 1;
            offender.last = event;
            offender.rate.add(event.at);
            return;
        }
        let error = if self.counts.len() < COUNTERS {
            0
        } else {
            self.take_smallest()
        };
        let samples = error + 1;
        let mut rate = Rate::default();
        rate.add(event.at);
        self.counts.insert(
            key,
            Offender {
                samples,
                error,
                last: event,
                rate,
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

    /// Takes note of how many drops were not sampled, in all: about once a second, to know which share
    /// of the drops the samples are.
    pub fn note_lost(&mut self, lost: u64) {
        if let Some((samples_before, lost_before)) = self.seen.replace((self.samples, lost)) {
            let samples = self.samples - samples_before;
            let drops = samples + lost.saturating_sub(lost_before);
            self.share = Some((drops, samples));
        }
    }

    /// About how many packets of the offender were dropped in the second before `now`: its samples,
    /// as if the drops that were not sampled had been spread like those that were.
    #[must_use]
    pub fn drops_a_second(&self, offender: &Offender, now: u64) -> u64 {
        let sampled = offender.rate.at(now);
        match self.share {
            Some((drops, samples)) if samples > 0 => {
                let scaled = u128::from(sampled) * u128::from(drops) / u128::from(samples);
                u64::try_from(scaled).unwrap_or(u64::MAX)
            }
            _ => sampled,
        }
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
    #[test]
    fn a_rate_is_that_of_the_last_second() {
        let mut offenders = Offenders::default();
        let drop_at = |at: u64| DropEvent { at, ..drop_of(1) };
        for at in 0..100 {
            offenders.record(drop_at(10 * SECOND + at * SECOND / 100));
        }
        let rate = |offenders: &Offenders, now| {
            let top = offenders.top(1);
            offenders.drops_a_second(&top[0], now)
        };
        assert_eq!(rate(&offenders, 11 * SECOND), 100);
        assert_eq!(rate(&offenders, 11 * SECOND + SECOND / 4), 75);
        assert_eq!(rate(&offenders, 12 * SECOND), 0);
        // Of ten drops, one was sampled.
        offenders.note_lost(5000);
        for at in 0..20 {
            offenders.record(drop_at(20 * SECOND + at));
        }
        offenders.note_lost(5180);
        assert_eq!(rate(&offenders, 20 * SECOND + 20), 200);
        offenders.note_lost(5180);
        assert_eq!(rate(&offenders, 20 * SECOND + 20), 20, "no news");
    }
}
