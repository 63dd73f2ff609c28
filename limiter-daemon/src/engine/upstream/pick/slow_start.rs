//! New hosts get a share that grows.

use std::time::Duration;

use crate::engine::upstream::host::Host;
use crate::engine::upstream::mix::happens;
use crate::engine::upstream::outlier::nanos;

/// No share is smaller than this (Envoy: `min_weight_percent`).
const LEAST: f64 = 0.1;

/// The time in which a host's share grows evenly; 0: at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlowStart {
    window: u64,
}

impl SlowStart {
    pub(super) fn new(window: Option<Duration>) -> Self {
        let window = window.map_or(0, nanos);
        Self { window }
    }

    /// The share of what `host` would get otherwise, from a tenth to 1.
    pub(super) fn weight(self, host: &Host, now: u64) -> f64 {
        if self.window == 0 {
            return 1.0;
        }
        let age = now.saturating_sub(host.since());
        if age >= self.window {
            return 1.0;
        }
        (age as f64 / self.window as f64).max(LEAST)
    }

    /// Whether `host` takes a request that is its turn.
    pub(super) fn accepts(self, host: &Host, random: u64, now: u64) -> bool {
        self.window == 0 || happens(random, self.weight(host, now))
    }
}
