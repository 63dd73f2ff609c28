//! How long a connection to an upstream is used.

use std::time::Duration;

use crate::policy::plan::BackendSettings;

/// What bounds the use of a connection, as its backend's settings had it when it was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    /// From when on it takes no new request, in nanoseconds of the clock.
    expires: u64,
    /// Nanoseconds that it may be idle.
    idle: u64,
    /// Requests that it may still have.
    requests: u32,
}

/// Why a connection takes no new request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    Requests,
    Age,
    Idle,
}

impl Life {
    /// Of a connection made at `now`.
    pub(super) fn new(settings: &BackendSettings, now: u64) -> Self {
        let max = settings.circuit_breaker.max_requests_per_connection;
        let age = settings.max_connection_age;
        Self {
            expires: age.map_or(u64::MAX, |age| now.saturating_add(nanos(age))),
            idle: settings.idle_timeout.map_or(u64::MAX, nanos),
            requests: max.unwrap_or(u32::MAX),
        }
    }

    /// Takes note of a request.
    pub(super) const fn begin(&mut self) {
        self.requests = self.requests.saturating_sub(1);
    }

    /// Whether it may have more than `requests`.
    pub(super) const fn allows(&self, requests: u32) -> bool {
        requests < self.requests
    }

    /// Why it takes no request at `now`, being idle since `since`; `None`: it takes one.
    pub(super) const fn over(&self, since: u64, now: u64) -> Option<Over> {
        if self.requests == 0 {
            Some(Over::Requests)
        } else if self.expires <= now {
            Some(Over::Age)
        } else if now.saturating_sub(since) >= self.idle {
            Some(Over::Idle)
        } else {
            None
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::plan::CircuitBreaker;

    #[test]
    fn a_connection_is_used_so_often_so_long_and_not_after_a_long_rest() {
        let settings = BackendSettings {
            circuit_breaker: CircuitBreaker {
                max_requests_per_connection: Some(2),
                ..CircuitBreaker::default()
            },
            idle_timeout: Some(Duration::from_nanos(10)),
            max_connection_age: Some(Duration::from_nanos(100)),
            ..BackendSettings::default()
        };
        let mut life = Life::new(&settings, 1000);
        life.begin();
        assert_eq!(life.over(1000, 1009), None);
        assert_eq!(life.over(1000, 1010), Some(Over::Idle));
        assert_eq!(life.over(1099, 1100), Some(Over::Age));
        life.begin();
        assert_eq!(life.over(1000, 1000), Some(Over::Requests));
        let life = Life::new(&BackendSettings::default(), 0);
        assert_eq!(life.over(0, 3_599_000_000_000), None);
        assert_eq!(life.over(0, 3_600_000_000_000), Some(Over::Idle));
    }
}
