//! An endpoint of a backend, as decisions see it.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::health::{self, Checks, Health, Transition};
use super::outlier::Record;
use crate::policy::plan::HealthCheck;

/// An endpoint of a backend under one policy. It is the same one over reloads and changes of other
/// endpoints, found again by its name.
#[derive(Debug)]
pub struct Host {
    /// As shown: `192.0.2.1:80`.
    pub name: String,
    /// Requests under way. Who sends them counts.
    pub active: AtomicU32,
    /// Open connections. Who opens them counts.
    pub connections: AtomicU32,
    /// Since when it gets requests, for slow start.
    since: AtomicU64,
    /// The last exchange found nobody there.
    unreachable: AtomicBool,
    checks: Checks,
    pub(super) record: Record,
}

impl Host {
    /// A host that became known at `now`, in nanoseconds of the monotonic clock.
    #[must_use]
    pub fn new(name: String, now: u64) -> Self {
        Self {
            name,
            active: AtomicU32::new(0),
            connections: AtomicU32::new(0),
            since: AtomicU64::new(now),
            unreachable: AtomicBool::new(false),
            checks: Checks::default(),
            record: Record::default(),
        }
    }

    /// Whether it is neither ejected nor failed by checks. One that was not checked yet is healthy.
    #[must_use]
    pub fn is_healthy(&self, now: u64) -> bool {
        !self.checks.failed() && !self.record.is_ejected(now)
    }

    #[must_use]
    pub fn health(&self, now: u64) -> Health {
        health::health(&self.checks, &self.record, now)
    }

    /// Takes in the result of an active check; a failure that is `immediate` asks for no threshold.
    /// A success of a host whose checks pass ends its ejection, as in Envoy.
    pub fn checked(
        &self,
        ok: bool,
        immediate: bool,
        settings: &HealthCheck,
        now: u64,
    ) -> Option<Transition> {
        let transition = self.checks.take(ok, immediate, settings);
        if transition == Some(Transition::BecameHealthy) {
            // Envoy: slow start begins anew with the health.
            self.since.store(now, Ordering::Relaxed);
        }
        if ok && self.checks.passed() {
            self.record.pardon();
        }
        transition
    }

    /// Whether active checks found it well; not so before the first one.
    #[must_use]
    pub fn has_passed_checks(&self) -> bool {
        self.checks.passed()
    }

    /// Nobody checks it any more: what checks found says nothing from now on.
    pub fn forget_checks(&self) {
        self.checks.forget();
    }

    pub(super) fn has_failed_checks(&self) -> bool {
        self.checks.failed()
    }

    pub(super) fn since(&self) -> u64 {
        self.since.load(Ordering::Relaxed)
    }

    pub(super) fn is_unreachable(&self) -> bool {
        self.unreachable.load(Ordering::Relaxed)
    }

    pub(super) fn set_unreachable(&self, unreachable: bool) {
        // Mostly nothing changes; other cores keep the line then.
        if self.is_unreachable() != unreachable {
            self.unreachable.store(unreachable, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::plan::Probe;

    #[test]
    fn a_check_that_passes_ends_an_ejection() {
        let settings = HealthCheck {
            timeout: Duration::from_secs(1),
            interval: Duration::from_secs(3),
            initial_jitter: None,
            unhealthy_threshold: 1,
            healthy_threshold: 2,
            probe: Probe::Grpc {
                service: String::new(),
            },
        };
        let host = Host::new("192.0.2.1:80".into(), 5);
        host.record.eject(1_000, 1);
        assert_eq!(host.health(10), Health::Ejected { until: 1_000 });
        assert!(!host.is_healthy(10) && host.is_healthy(1_000));
        host.checked(false, false, &settings, 20);
        assert_eq!(host.health(20), Health::FailedCheck);
        // One success is below the threshold: it is still failed, and still ejected.
        assert_eq!(host.checked(true, false, &settings, 30), None);
        assert!(!host.has_passed_checks() && host.record.is_ejected(30));
        let transition = host.checked(true, false, &settings, 40);
        assert_eq!(transition, Some(Transition::BecameHealthy));
        assert_eq!(host.health(40), Health::Healthy);
        assert_eq!(host.since(), 40);
        host.checked(false, true, &settings, 50);
        host.forget_checks();
        assert!(host.is_healthy(50));
    }
}
