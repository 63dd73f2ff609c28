//! The one place where the data plane reads the clock.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::engine::time::Now;

/// The time of day, for people: what is decided goes by [`Clock`].
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Nanoseconds since the process started to serve, by the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: Instant,
}

impl Clock {
    /// A clock that reads zero now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn start() -> Self {
        Self {
            epoch: Instant::now(),
        }
    }

    /// Nanoseconds since [`Clock::start`]; 584 years fit.
    #[must_use]
    pub fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
    /// The same instant by both clocks.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn both(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        let unix = unix.map_or(0, |since| since.as_nanos());
        Now {
            mono: self.now(),
            unix: u64::try_from(unix).unwrap_or(u64::MAX),
        }
    }
}
