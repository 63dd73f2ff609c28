//! Spreading the requests of a rule over its backends, by weight.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::policy::plan::WeightedBackend;

/// Chooses among weighted backends so that each gets its share of every full round, spread evenly
/// within it.
#[derive(Debug)]
pub struct WeightedChoice {
    backends: Vec<WeightedBackend>,
    total: u64,
    /// How far a turn is from the one before, in the round of all weights.
    stride: u64,
    turn: AtomicUsize,
}

impl WeightedChoice {
    #[must_use]
    pub fn new(backends: &[WeightedBackend]) -> Self {
        let total = backends.iter().map(|b| u64::from(b.weight)).sum();
        Self {
            backends: backends.to_vec(),
            total,
            stride: stride(total),
            turn: AtomicUsize::new(0),
        }
    }

    /// The chosen backend; `None` if there is none of any weight.
    pub fn next(&self) -> Option<&WeightedBackend> {
        if let [only] = self.backends.as_slice() {
            return Some(only).filter(|only| only.weight > 0);
        }
        if self.total == 0 {
            return None;
        }
        // Spread evenly without state beyond a counter.
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) as u64;
        let point =
            u128::from(turn % self.total) * u128::from(self.stride) % u128::from(self.total);
        let mut passed = 0;
        self.backends.iter().find(|b| {
            passed += u128::from(b.weight);
            point < passed
        })
    }
}

/// About the golden ratio of `total`, and without a common divisor: steps of it come to each point of
/// a round once, and never near to where they have just been.
fn stride(total: u64) -> u64 {
    let golden = (u128::from(total) * 0x9e37_79b9_7f4a_7c15) >> 64;
    let golden = u64::try_from(golden).unwrap_or(1).max(1);
    (golden..total)
        .find(|step| gcd(*step, total) == 1)
        .unwrap_or(1)
}

const fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_shares() {
        let weights = [(7, 90), (8, 10), (9, 0)];
        let choice = WeightedChoice::new(&weights.map(|(backend, weight)| WeightedBackend {
            backend: Some(backend),
            weight,
            filters: None,
        }));
        for _ in 0..3 {
            let mut hits = [0u32; 10];
            for _ in 0..100 {
                hits[choice.next().and_then(|b| b.backend).unwrap()] += 1;
            }
            assert_eq!(hits[7..], [90, 10, 0]);
        }
    }

    #[test]
    fn a_stride_meets_each_point_and_is_no_small_step() {
        for total in 1..2_000 {
            assert_eq!(gcd(stride(total), total), 1, "{total}");
        }
        for total in [7, 100, 1_000_001, 16_000_000] {
            let part = stride(total) * 100 / total;
            assert!((55..75).contains(&part), "{total}: {part}%");
        }
    }

    #[test]
    fn no_weight_is_no_backend() {
        assert_eq!(WeightedChoice::new(&[]).next(), None);
        assert_eq!(
            WeightedChoice::new(&[WeightedBackend {
                backend: Some(1),
                weight: 0,
                filters: None,
            }])
            .next(),
            None
        );
    }
}
