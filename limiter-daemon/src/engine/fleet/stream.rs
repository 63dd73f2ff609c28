//! Places in the store's stream of events, and the store's clock.

use std::fmt;
use std::str::FromStr;

const MILLISECOND: u64 = 1_000_000;

/// The place of an event in a stream: milliseconds by the server's clock, and a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u64, pub u64);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

/// Not `milliseconds-number`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no place in a stream")]
pub struct NoStreamId;

impl FromStr for StreamId {
    type Err = NoStreamId;

    fn from_str(text: &str) -> Result<Self, NoStreamId> {
        let (ms, number) = text.split_once('-').ok_or(NoStreamId)?;
        let parse = |text: &str| text.parse().map_err(|_not_a_number| NoStreamId);
        Ok(Self(parse(ms)?, parse(number)?))
    }
}

/// What the server's clock said at an instant of this node's monotonic one. Only time that passes
/// between two looks is measured by the latter, so clocks of nodes may disagree by any amount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerClock {
    /// Milliseconds since 1970, by the server.
    pub server_ms: u64,
    /// Nanoseconds, by this node.
    pub mono: u64,
}

impl ServerClock {
    /// The instant of this node's clock at which the server's says `server_ms`; 0 for one from before
    /// the clock began.
    #[must_use]
    pub const fn here(&self, server_ms: u64) -> u64 {
        if server_ms >= self.server_ms {
            let ahead = (server_ms - self.server_ms).saturating_mul(MILLISECOND);
            self.mono.saturating_add(ahead)
        } else {
            let ago = (self.server_ms - server_ms).saturating_mul(MILLISECOND);
            self.mono.saturating_sub(ago)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_written_and_in_their_order() {
        let place: StreamId = "1700000000000-12".parse().unwrap();
        assert_eq!(place.to_string(), "1700000000000-12");
        assert!(place < "1700000000001-0".parse().unwrap());
        assert!(place > "1700000000000-9".parse().unwrap());
        for text in ["", "1", "1-", "-1", "a-b", "1-2-3"] {
            assert_eq!(text.parse::<StreamId>(), Err(NoStreamId), "{text}");
        }
    }

    #[test]
    fn time_that_is_left_does_not_depend_on_whose_clock_is_right() {
        let clock = ServerClock {
            server_ms: 1_000_000,
            mono: 5_000 * MILLISECOND,
        };
        assert_eq!(clock.here(1_000_250), 5_250 * MILLISECOND);
        assert_eq!(clock.here(999_000), 4_000 * MILLISECOND);
        assert_eq!(clock.here(0), 0);
        assert_eq!(clock.here(u64::MAX), u64::MAX);
    }
}
