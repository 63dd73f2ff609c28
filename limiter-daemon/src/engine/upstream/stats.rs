//! What happened on the way to a backend, by Envoy's names.

use std::sync::atomic::{AtomicU64, Ordering};

/// An event that is counted; the name is that of Envoy's cluster statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stat {
    /// Connections made.
    CxTotal,
    /// Connections that could not be made.
    CxConnectFail,
    /// Connections that were passed on and whose attempts at endpoints all failed.
    CxConnectAttemptsExceeded,
    /// Times that a connection was wanted and as many were there as may be.
    CxOverflow,
    /// Connections that had all the requests they may.
    CxMaxRequests,
    /// Connections that were as old as they may be.
    CxMaxDuration,
    /// Requests sent, retries among them.
    RqTotal,
    /// Requests that had to wait for a connection.
    RqPendingTotal,
    /// Requests that were refused because as much was under way as may be.
    RqPendingOverflow,
    /// Requests that waited for a connection in vain.
    RqPendingFailureEject,
    /// Requests that took longer than they may.
    RqTimeout,
    /// Attempts that took longer than they may.
    RqPerTryTimeout,
    /// Retries.
    RqRetry,
    /// Requests that were answered well after a retry.
    RqRetrySuccess,
    /// Retries that were not made because as many were under way as may be.
    RqRetryOverflow,
    /// Requests that would have been retried once more, but had all their retries.
    RqRetryLimitExceeded,
    /// Retries after a pause that grows.
    RqRetryBackoffExponential,
    /// Retries after the pause that the answer asked for.
    RqRetryBackoffRatelimited,
    /// Requests whose body was too long to be kept for a retry.
    RetryOrShadowAbandoned,
    /// Requests that were sent again because a kept connection turned out to be closed.
    RqStale,
}

impl Stat {
    pub const ALL: [Self; 20] = [
        Self::CxTotal,
        Self::CxConnectFail,
        Self::CxConnectAttemptsExceeded,
        Self::CxOverflow,
        Self::CxMaxRequests,
        Self::CxMaxDuration,
        Self::RqTotal,
        Self::RqPendingTotal,
        Self::RqPendingOverflow,
        Self::RqPendingFailureEject,
        Self::RqTimeout,
        Self::RqPerTryTimeout,
        Self::RqRetry,
        Self::RqRetrySuccess,
        Self::RqRetryOverflow,
        Self::RqRetryLimitExceeded,
        Self::RqRetryBackoffExponential,
        Self::RqRetryBackoffRatelimited,
        Self::RetryOrShadowAbandoned,
        Self::RqStale,
    ];

    /// The metric's name and help.
    #[must_use]
    pub const fn describe(self) -> (&'static str, &'static str) {
        match self {
            Self::CxTotal => ("envoy_cluster_upstream_cx_total", "Connections made."),
            Self::CxConnectFail => (
                "envoy_cluster_upstream_cx_connect_fail",
                "Connections that could not be made.",
            ),
            Self::CxConnectAttemptsExceeded => (
                "envoy_cluster_upstream_cx_connect_attempts_exceeded",
                "Connections that were passed on and whose attempts at endpoints all failed.",
            ),
            Self::CxOverflow => (
                "envoy_cluster_upstream_cx_overflow",
                "Times that a connection was wanted and as many were there as may be.",
            ),
            Self::CxMaxRequests => (
                "envoy_cluster_upstream_cx_max_requests",
                "Connections that had all the requests they may.",
            ),
            Self::CxMaxDuration => (
                "envoy_cluster_upstream_cx_max_duration_reached",
                "Connections that were as old as they may be.",
            ),
            Self::RqTotal => (
                "envoy_cluster_upstream_rq_total",
                "Requests sent, retries among them.",
            ),
            Self::RqPendingTotal => (
                "envoy_cluster_upstream_rq_pending_total",
                "Requests that had to wait for a connection.",
            ),
            Self::RqPendingOverflow => (
                "envoy_cluster_upstream_rq_pending_overflow",
                "Requests answered with 503 because as much was under way as may be.",
            ),
            Self::RqPendingFailureEject => (
                "envoy_cluster_upstream_rq_pending_failure_eject",
                "Requests that waited for a connection in vain.",
            ),
            Self::RqTimeout => (
                "envoy_cluster_upstream_rq_timeout",
                "Requests that took longer than they may.",
            ),
            Self::RqPerTryTimeout => (
                "envoy_cluster_upstream_rq_per_try_timeout",
                "Attempts that took longer than they may.",
            ),
            Self::RqRetry => ("envoy_cluster_upstream_rq_retry", "Retries."),
            Self::RqRetrySuccess => (
                "envoy_cluster_upstream_rq_retry_success",
                "Requests that were answered well after a retry.",
            ),
            Self::RqRetryOverflow => (
                "envoy_cluster_upstream_rq_retry_overflow",
                "Retries not made because as many were under way as may be.",
            ),
            Self::RqRetryLimitExceeded => (
                "envoy_cluster_upstream_rq_retry_limit_exceeded",
                "Requests that had all their retries, the last one in vain.",
            ),
            Self::RqRetryBackoffExponential => (
                "envoy_cluster_upstream_rq_retry_backoff_exponential",
                "Retries after a pause that grows.",
            ),
            Self::RqRetryBackoffRatelimited => (
                "envoy_cluster_upstream_rq_retry_backoff_ratelimited",
                "Retries after the pause that the answer asked for.",
            ),
            Self::RetryOrShadowAbandoned => (
                "envoy_cluster_retry_or_shadow_abandoned",
                "Requests whose body was too long to be kept for a retry.",
            ),
            Self::RqStale => (
                "limiterd_upstream_rq_stale",
                "Requests sent again because a kept connection turned out to be closed.",
            ),
        }
    }
}

/// The counts of a backend, over all workers.
#[derive(Debug, Default)]
pub struct Stats([AtomicU64; Stat::ALL.len()]);

impl Stats {
    pub fn count(&self, stat: Stat) {
        self.0[stat as usize].fetch_add(1, Ordering::Relaxed);
    }

    #[must_use]
    pub fn get(&self, stat: Stat) -> u64 {
        self.0[stat as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_a_place_and_a_name_of_its_own() {
        let mut names = std::collections::BTreeSet::new();
        for (place, stat) in Stat::ALL.into_iter().enumerate() {
            assert_eq!(stat as usize, place);
            assert!(names.insert(stat.describe().0), "{stat:?}");
        }
    }
}
