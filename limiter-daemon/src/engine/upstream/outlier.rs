//! Outlier detection: hosts whose exchanges fail are ejected for a time.
//!
//! The semantics are Envoy's (architecture overview, "Outlier detection"), with what Envoy Gateway
//! sets of it. An ejection ends by the clock: nothing has to happen for it.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::host::Host;
use super::pick::Hosts;
use crate::policy::plan::OutlierDetection;

/// No ejection lasts longer, unless the first one does (Envoy: `max_ejection_time`).
const MAX_EJECTION: Duration = Duration::from_secs(300);
/// Envoy: `failure_percentage_minimum_hosts` and `failure_percentage_request_volume`.
const MIN_HOSTS: usize = 5;
const MIN_REQUESTS: u32 = 50;

/// How an exchange with a host went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// With this HTTP status, or what stands for a gRPC status.
    Answered(u16),
    /// No connection.
    ConnectFailed,
    /// The connection broke before there was an answer.
    Broken,
    /// There was no answer in time.
    TimedOut,
}

/// What made a host an outlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Consecutive5xx,
    ConsecutiveGatewayFailure,
    ConsecutiveLocalOriginFailure,
    FailurePercentage,
}

impl Kind {
    pub const ALL: [Self; 4] = [
        Self::Consecutive5xx,
        Self::ConsecutiveGatewayFailure,
        Self::ConsecutiveLocalOriginFailure,
        Self::FailurePercentage,
    ];

    /// As Envoy's counters have it: `ejections_enforced_<name>`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Consecutive5xx => "consecutive_5xx",
            Self::ConsecutiveGatewayFailure => "consecutive_gateway_failure",
            Self::ConsecutiveLocalOriginFailure => "consecutive_local_origin_failure",
            Self::FailurePercentage => "failure_percentage",
        }
    }
}

/// A host was ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejected {
    /// Index of the host.
    pub host: usize,
    pub kind: Kind,
    /// How long for.
    pub time: Duration,
    /// Its multiple of the base ejection time, unless that is cut off.
    pub times: u32,
}

/// What is counted of a host.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// In a row.
    server_errors: AtomicU32,
    gateway_errors: AtomicU32,
    local_failures: AtomicU32,
    /// In this interval; only with a failure percentage.
    requests: AtomicU32,
    failures: AtomicU32,
    /// Nanoseconds of the monotonic clock.
    ejected_until: AtomicU64,
    /// The multiple of the base ejection time that the last ejection lasted, less one for each
    /// interval without.
    times: AtomicU32,
    /// It was ejected in this interval, or at its beginning.
    was_ejected: AtomicBool,
}

impl Record {
    pub(super) fn ejected_until(&self) -> u64 {
        self.ejected_until.load(Ordering::Relaxed)
    }

    pub(super) fn is_ejected(&self, now: u64) -> bool {
        now < self.ejected_until()
    }

    pub(super) fn eject(&self, until: u64, times: u32) {
        self.times.store(times, Ordering::Relaxed);
        self.was_ejected.store(true, Ordering::Relaxed);
        self.ejected_until.store(until, Ordering::Relaxed);
    }

    /// Ends an ejection before its time.
    pub(super) fn pardon(&self) {
        if self.ejected_until() != 0 {
            self.ejected_until.store(0, Ordering::Relaxed);
            self.forget_rows();
        }
    }

    fn forget_rows(&self) {
        for row in [
            &self.server_errors,
            &self.gateway_errors,
            &self.local_failures,
        ] {
            reset(row);
        }
    }

    fn count(&self, failed: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if failed {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One more interval is over.
    fn decay(&self, now: u64) {
        let ejected = self.is_ejected(now);
        if !self.was_ejected.swap(ejected, Ordering::Relaxed) && !ejected {
            let less = |times: u32| times.checked_sub(1);
            // Nothing to take from is no failure.
            let _ended = self
                .times
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }
}

/// Counts one more in a row; whether that are as many as `threshold`.
fn reaches(row: &AtomicU32, threshold: Option<u32>) -> bool {
    threshold.is_some_and(|threshold| row.fetch_add(1, Ordering::Relaxed) + 1 >= threshold)
}

fn reset(row: &AtomicU32) {
    // Mostly it is zero; other cores keep the line then.
    if row.load(Ordering::Relaxed) != 0 {
        row.store(0, Ordering::Relaxed);
    }
}

/// Outlier detection of a backend under one policy. It is the same one over reloads.
#[derive(Debug, Default)]
pub struct Outliers {
    /// `namespace/name` of the backend, and of the policies in force.
    pub backend: String,
    pub policy: String,
    /// Ejections, by [`Kind`].
    enforced: [AtomicU64; Kind::ALL.len()],
    /// The same with those that were not enforced, as too many hosts were ejected.
    detected: [AtomicU64; Kind::ALL.len()],
    overflow: AtomicU64,
    /// Held while one more host is ejected, so that two at once do not exceed the bound.
    ejecting: Mutex<()>,
}

impl Outliers {
    #[must_use]
    pub fn new(backend: String, policy: String) -> Self {
        Self {
            backend,
            policy,
            ..Self::default()
        }
    }

    /// Hosts ejected for this reason (Envoy: `ejections_enforced_<kind>`).
    #[must_use]
    pub fn enforced(&self, kind: Kind) -> u64 {
        self.enforced[kind as usize].load(Ordering::Relaxed)
    }

    /// Times that a host was found to be an outlier (Envoy: `ejections_detected_<kind>`).
    #[must_use]
    pub fn detected(&self, kind: Kind) -> u64 {
        self.detected[kind as usize].load(Ordering::Relaxed)
    }

    /// Ejections for any reason (Envoy: `ejections_enforced_total`).
    #[must_use]
    pub fn enforced_total(&self) -> u64 {
        Kind::ALL.iter().map(|kind| self.enforced(*kind)).sum()
    }

    /// Outliers that were left in, as too many hosts were ejected (Envoy: `ejections_overflow`).
    #[must_use]
    pub fn overflow(&self) -> u64 {
        self.overflow.load(Ordering::Relaxed)
    }

    /// Takes in how an exchange with the host of this index went. Without `settings` nobody is
    /// ejected, and it is still remembered whether the host could be reached.
    pub fn report(
        &self,
        settings: Option<&OutlierDetection>,
        hosts: &Hosts,
        host: usize,
        exchange: Exchange,
        now: u64,
    ) -> Option<Ejected> {
        let at = hosts.all().get(host)?;
        at.set_unreachable(exchange == Exchange::ConnectFailed);
        let settings = settings?;
        let record = &at.record;
        // What an ejected host answers, to requests that were under way, is not counted in rows: they
        // begin anew with its return.
        let ejected = record.is_ejected(now);
        let Some(status) = status(exchange, settings.split_local_origin) else {
            let threshold = settings.consecutive_local_origin_failures;
            if ejected || !reaches(&record.local_failures, threshold) {
                return None;
            }
            let kind = Kind::ConsecutiveLocalOriginFailure;
            let done = self.eject(kind, settings, hosts, host, now);
            reset(&record.local_failures);
            return done;
        };
        if settings.failure_percentage.is_some() {
            record.count(status >= 500);
        }
        if ejected {
            return None;
        }
        reset(&record.local_failures);
        if status < 500 {
            reset(&record.server_errors);
            reset(&record.gateway_errors);
            return None;
        }
        let gateway = if matches!(status, 502..=504) {
            reaches(&record.gateway_errors, settings.consecutive_gateway_errors)
        } else {
            reset(&record.gateway_errors);
            false
        };
        let server = reaches(&record.server_errors, settings.consecutive_5xx);
        for (kind, row, reached) in [
            (
                Kind::ConsecutiveGatewayFailure,
                &record.gateway_errors,
                gateway,
            ),
            (Kind::Consecutive5xx, &record.server_errors, server),
        ] {
            if reached {
                let done = self.eject(kind, settings, hosts, host, now);
                reset(row);
                if done.is_some() {
                    return done;
                }
            }
        }
        None
    }

    /// An interval is over: ejects by failure percentage, and lets the growth of ejection times go
    /// back. To be called once each `settings.interval`; `ejected` is told of each ejection.
    pub fn tick(
        &self,
        settings: &OutlierDetection,
        hosts: &Hosts,
        now: u64,
        mut ejected: impl FnMut(Ejected),
    ) {
        for host in hosts.all() {
            host.record.decay(now);
        }
        let Some(percentage) = settings.failure_percentage else {
            return;
        };
        let busy = hosts
            .all()
            .iter()
            .filter(|host| host.record.requests.load(Ordering::Relaxed) >= MIN_REQUESTS)
            .count();
        for (index, host) in hosts.all().iter().enumerate() {
            let requests = host.record.requests.swap(0, Ordering::Relaxed);
            let failures = host.record.failures.swap(0, Ordering::Relaxed);
            let share = u64::from(failures) * 100;
            let failing = share >= u64::from(percentage) * u64::from(requests);
            if busy >= MIN_HOSTS
                && requests >= MIN_REQUESTS
                && failing
                && !host.record.is_ejected(now)
                && let Some(done) = self.eject(Kind::FailurePercentage, settings, hosts, index, now)
            {
                ejected(done);
            }
        }
    }

    /// Ejects the host, if it is not and if one more may be.
    fn eject(
        &self,
        kind: Kind,
        settings: &OutlierDetection,
        hosts: &Hosts,
        index: usize,
        now: u64,
    ) -> Option<Ejected> {
        let host: &Host = &hosts.all()[index];
        let count =
            |counters: &[AtomicU64]| counters[kind as usize].fetch_add(1, Ordering::Relaxed);
        let overflows = || {
            self.overflow.fetch_add(1, Ordering::Relaxed);
            None
        };
        count(&self.detected);
        // Asked before the lock is taken as well: while as many as may be are ejected, others that
        // fail do not wait for each other.
        if !may_eject(settings, hosts, now) {
            return overflows();
        }
        let _turn = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        if host.record.is_ejected(now) {
            return None;
        }
        if !may_eject(settings, hosts, now) {
            return overflows();
        }
        let most = settings.base_ejection_time.max(MAX_EJECTION);
        let before = host.record.times.load(Ordering::Relaxed);
        // Beyond the longest ejection the multiple does not grow, so that it goes back at once.
        let times = if settings.base_ejection_time.saturating_mul(before) < most {
            before + 1
        } else {
            before
        };
        let time = settings.base_ejection_time.saturating_mul(times).min(most);
        let until = now.saturating_add(nanos(time));
        host.record.eject(until, times);
        host.record.forget_rows();
        count(&self.enforced);
        Some(Ejected {
            host: index,
            kind,
            time,
            times,
        })
    }
}

/// The status that an exchange counts as; `None`: it is counted apart.
const fn status(exchange: Exchange, split: bool) -> Option<u16> {
    match exchange {
        Exchange::Answered(status) => Some(status),
        _ if split => None,
        Exchange::ConnectFailed | Exchange::Broken => Some(503),
        Exchange::TimedOut => Some(504),
    }
}

fn may_eject(settings: &OutlierDetection, hosts: &Hosts, now: u64) -> bool {
    let ejected = hosts.ejected(now);
    let percent = u64::from(settings.max_ejection_percent);
    (ejected == 0 && settings.always_eject_one)
        || (ejected as u64 + 1) * 100 <= percent * hosts.all().len() as u64
}

/// Nanoseconds; 584 years fit.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
