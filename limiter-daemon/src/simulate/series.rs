//! Counts over time, in a bounded number of steps whose length grows with what is counted.

use serde::Serialize;

/// Steps at most.
pub(super) const STEPS: usize = 240;
const SECOND: u64 = 1_000_000_000;

/// Counts of `N` things, each step of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Series<const N: usize> {
    /// Nanoseconds since 1970, a multiple of the width.
    start: u64,
    /// Nanoseconds of a step.
    width: u64,
    steps: Vec<[u64; N]>,
}

impl<const N: usize> Default for Series<N> {
    fn default() -> Self {
        Self {
            start: 0,
            width: SECOND,
            steps: Vec::new(),
        }
    }
}

/// The same for reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Steps {
    /// Nanoseconds since 1970 (UTC).
    pub start: u64,
    /// Nanoseconds.
    pub width: u64,
    pub counts: Vec<u64>,
}

impl<const N: usize> Series<N> {
    /// Counts one of each that is `true` at the instant `at`, which is not before the first.
    pub(super) fn add(&mut self, at: u64, which: [bool; N]) {
        if self.steps.is_empty() {
            self.start = at / self.width * self.width;
        }
        while self.index(at) >= STEPS {
            self.widen();
        }
        let index = self.index(at);
        if self.steps.len() <= index {
            self.steps.resize(index + 1, [0; N]);
        }
        if let Some(step) = self.steps.get_mut(index) {
            for (count, is) in step.iter_mut().zip(which) {
                *count += u64::from(is);
            }
        }
    }

    fn index(&self, at: u64) -> usize {
        usize::try_from(at.saturating_sub(self.start) / self.width).unwrap_or(usize::MAX)
    }

    /// Doubles the length of steps.
    fn widen(&mut self) {
        let odd = self.start / self.width % 2 == 1;
        self.width = self.width.saturating_mul(2);
        self.start = self.start / self.width * self.width;
        let mut wide: Vec<[u64; N]> = Vec::with_capacity(STEPS);
        for (index, step) in self.steps.iter().enumerate() {
            let place = (index + usize::from(odd)) / 2;
            if wide.len() <= place {
                wide.resize(place + 1, [0; N]);
            }
            if let Some(sum) = wide.get_mut(place) {
                for (sum, count) in sum.iter_mut().zip(step) {
                    *sum += count;
                }
            }
        }
        self.steps = wide;
    }

    /// Those of the thing with this index.
    pub(super) fn of(&self, thing: usize) -> Steps {
        let count = |step: &[u64; N]| step.get(thing).copied().unwrap_or(0);
        Steps {
            start: self.start,
            width: self.width,
            counts: self.steps.iter().map(count).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_few_and_nothing_is_lost() {
        let mut series = Series::<2>::default();
        let begin = 1_000_003 * SECOND + 7;
        for second in 0..100_000 {
            series.add(begin + second * SECOND, [true, second % 10 == 0]);
        }
        let (all, some) = (series.of(0), series.of(1));
        assert!(all.counts.len() <= STEPS);
        assert_eq!(all.width, 512 * SECOND);
        assert_eq!(all.start % all.width, 0);
        assert!(all.start <= begin && begin < all.start + all.width);
        assert_eq!(all.counts.iter().sum::<u64>(), 100_000);
        assert_eq!(some.counts.iter().sum::<u64>(), 10_000);
        assert!(all.counts[1..100].iter().all(|count| *count == 512));
    }
}
