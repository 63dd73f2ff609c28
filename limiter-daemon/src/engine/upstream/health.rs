//! What active checks make of a host: thresholds, and the state between them.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::outlier::Record;
use crate::policy::plan::HealthCheck;

/// How a host is, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Healthy,
    /// Taken out because its exchanges failed, until this instant (nanoseconds of the monotonic
    /// clock).
    Ejected {
        until: u64,
    },
    /// Taken out because its checks fail.
    FailedCheck,
}

/// A check changed what a host counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    BecameHealthy,
    BecameUnhealthy,
}

/// Active checks of the hosts of a backend under one policy (Envoy: `health_check.*`).
#[derive(Debug, Default)]
pub struct CheckStats {
    /// `namespace/name` of the backend, and of the policies in force.
    pub backend: String,
    pub policy: String,
    pub attempts: AtomicU64,
    pub successes: AtomicU64,
    pub failures: AtomicU64,
    /// Of the failures, those without an answer.
    pub network_failures: AtomicU64,
}

/// The state that checks have brought a host to. One task checks a host; others only read.
///
/// One word: the state in the lowest two bits, above them how many checks in a row speak against it.
#[derive(Debug, Default)]
pub(super) struct Checks(AtomicU32);

/// Not checked yet, which counts as healthy: a node that has just started serves before its first
/// checks are done.
const UNKNOWN: u32 = 0;
const HEALTHY: u32 = 1;
const FAILED: u32 = 2;
const STATE: u32 = 3;
const ONE: u32 = STATE + 1;

impl Checks {
    pub(super) fn failed(&self) -> bool {
        self.0.load(Ordering::Relaxed) & STATE == FAILED
    }

    pub(super) fn passed(&self) -> bool {
        self.0.load(Ordering::Relaxed) & STATE == HEALTHY
    }

    pub(super) fn forget(&self) {
        self.0.store(UNKNOWN, Ordering::Relaxed);
    }

    /// Takes a result in. The first one decides alone; a failure that is `immediate` does at once
    /// (Envoy: an HTTP answer of a status that is not expected).
    pub(super) fn take(
        &self,
        ok: bool,
        immediate: bool,
        settings: &HealthCheck,
    ) -> Option<Transition> {
        let word = self.0.load(Ordering::Relaxed);
        let (state, against) = (word & STATE, word / ONE);
        let (agrees, threshold) = match state {
            UNKNOWN => (false, 1),
            HEALTHY if immediate => (ok, 1),
            HEALTHY => (ok, settings.unhealthy_threshold),
            _ => (!ok, settings.healthy_threshold),
        };
        let next = if ok { HEALTHY } else { FAILED };
        if agrees {
            self.0.store(state, Ordering::Relaxed);
            return None;
        }
        if against + 1 < threshold {
            self.0.store(word + ONE, Ordering::Relaxed);
            return None;
        }
        self.0.store(next, Ordering::Relaxed);
        match (state, next) {
            (_, FAILED) => Some(Transition::BecameUnhealthy),
            (UNKNOWN, _) => None,
            _ => Some(Transition::BecameHealthy),
        }
    }
}

/// How a host with these states is at `now`.
pub(super) fn health(checks: &Checks, record: &Record, now: u64) -> Health {
    if checks.failed() {
        return Health::FailedCheck;
    }
    match record.ejected_until() {
        until if now < until => Health::Ejected { until },
        _ => Health::Healthy,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::policy::plan::Probe;

    fn settings(unhealthy_threshold: u32, healthy_threshold: u32) -> HealthCheck {
        HealthCheck {
            timeout: Duration::from_secs(1),
            interval: Duration::from_secs(3),
            initial_jitter: None,
            unhealthy_threshold,
            healthy_threshold,
            probe: Probe::Tcp {
                send: Vec::new(),
                receive: Vec::new(),
            },
        }
    }

    #[test]
    fn thresholds_count_results_in_a_row() {
        use Transition::{BecameHealthy, BecameUnhealthy};
        let settings = settings(3, 2);
        let checks = Checks::default();
        let take = |ok| checks.take(ok, false, &settings);
        assert!(!checks.failed() && !checks.passed());
        // The first one decides alone.
        assert_eq!(take(false), Some(BecameUnhealthy));
        assert_eq!(take(true), None);
        assert_eq!(take(false), None);
        assert_eq!(take(true), None);
        assert!(checks.failed());
        assert_eq!(take(true), Some(BecameHealthy));
        assert_eq!([take(false), take(false), take(true)], [None; 3]);
        assert_eq!([take(false), take(false)], [None; 2]);
        assert_eq!(take(false), Some(BecameUnhealthy));
        checks.forget();
        assert!(!checks.failed());
        assert_eq!(take(true), None);
        assert!(checks.passed());
        assert_eq!(checks.take(false, true, &settings), Some(BecameUnhealthy));
    }

    proptest! {
        /// Beside a model that looks at all results so far.
        #[test]
        fn states_are_those_of_the_whole_history(
            unhealthy in 1u32..5,
            healthy in 1u32..5,
            results in prop::collection::vec((any::<bool>(), prop::bool::weighted(0.1)), 1..60),
        ) {
            let settings = settings(unhealthy, healthy);
            let checks = Checks::default();
            let mut failed = !results[0].0;
            let mut run = 0;
            for (at, (ok, immediate)) in results.iter().enumerate() {
                let before = failed;
                if at > 0 {
                    run = if *ok == failed { run + 1 } else { 0 };
                    let enough = if failed { healthy } else { unhealthy };
                    if run >= enough || (run > 0 && !failed && *immediate) {
                        failed = !failed;
                        run = 0;
                    }
                }
                let change = checks.take(*ok, *immediate, &settings);
                prop_assert_eq!(checks.failed(), failed);
                prop_assert_eq!(change.is_some(), before != failed || (at == 0 && failed));
            }
        }
    }
}
