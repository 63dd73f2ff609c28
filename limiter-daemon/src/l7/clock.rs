//! The one place where the data plane reads the clock.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::engine::time::Now;

/// The time of day, for people: what is decided goes by [`Clock`].
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// The machine's monotonic clock (`CLOCK_MONOTONIC`, clock_gettime(2)): the same for all processes, so
/// that buckets mean the same to the next one.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: u64,
}

impl Clock {
    /// The clock, which remembers when this was.
    #[must_use]
    pub fn start() -> Self {
        Self {
            started: monotonic(),
        }
    }

    /// Nanoseconds of the clock, since an instant of its own; 584 years fit.
    #[must_use]
    pub fn now(&self) -> u64 {
        monotonic()
    }

    /// Nanoseconds since [`Clock::start`].
    #[must_use]
    pub fn elapsed(&self) -> u64 {
        self.now().saturating_sub(self.started)
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

fn monotonic() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or_default();
    seconds * 1_000_000_000 + nanoseconds
}
