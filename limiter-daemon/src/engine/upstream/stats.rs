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
}

/// The counts of a backend, over all workers.
#[derive(Debug, Default)]
pub struct Stats {
    events: [AtomicU64; Stat::ALL.len()],
    /// `[0]`: 1xx, to `[4]`: 5xx.
    answers: [AtomicU64; 5],
}

impl Stats {
    pub fn count(&self, stat: Stat) {
        self.events[stat as usize].fetch_add(1, Ordering::Relaxed);
    }

    #[must_use]
    pub fn get(&self, stat: Stat) -> u64 {
        self.events[stat as usize].load(Ordering::Relaxed)
    }

    /// The backend answered, and no retry follows.
    pub fn answered(&self, status: http::StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5);
        self.answers[class - 1].fetch_add(1, Ordering::Relaxed);
    }

    /// Answers by class: `[0]`: 1xx, to `[4]`: 5xx.
    #[must_use]
    pub fn answers(&self) -> [u64; 5] {
        self.answers
            .each_ref()
            .map(|count| count.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_a_place_of_its_own() {
        for (place, stat) in Stat::ALL.into_iter().enumerate() {
            assert_eq!(stat as usize, place);
        }
    }
}
