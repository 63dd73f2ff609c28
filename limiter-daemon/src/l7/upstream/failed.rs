//! Attempts that came to no answer.

use crate::engine::retry::Attempt;
use crate::engine::upstream::{Exchange, Overflow};
use crate::l7::respond::{Cause, Refusal};

/// Why an attempt came to no answer.
#[derive(Debug)]
pub(in crate::l7) enum Failed {
    /// As much is under way as may be.
    Overflow(Overflow),
    /// It waited for a connection, and none came free in time.
    Pending,
    NoEndpoint,
    NotConnected(Cause),
    /// The upstream refused the stream before it did anything with it.
    Refused(Cause),
    /// The connection was closed before anything was sent.
    NotSent(Cause),
    /// The connection broke, or what came over it is not HTTP.
    Broken(Cause),
    /// The upstream said that it switches protocols, and did not.
    NoUpgrade,
}

impl Failed {
    /// As retries see it; `None`: it never leads to one.
    pub(in crate::l7) const fn attempt(&self) -> Option<Attempt> {
        match self {
            Self::NotConnected(_) => Some(Attempt::NotConnected),
            Self::Refused(_) => Some(Attempt::Refused),
            Self::NotSent(_) => Some(Attempt::NotSent),
            Self::Broken(_) => Some(Attempt::Broken),
            Self::Overflow(_) | Self::Pending | Self::NoEndpoint | Self::NoUpgrade => None,
        }
    }

    /// What it says of the endpoint; `None`: nothing.
    pub(in crate::l7) const fn exchange(&self) -> Option<Exchange> {
        match self {
            Self::NotConnected(_) => Some(Exchange::ConnectFailed),
            Self::Refused(_) | Self::NotSent(_) | Self::Broken(_) | Self::NoUpgrade => {
                Some(Exchange::Broken)
            }
            Self::Overflow(_) | Self::Pending | Self::NoEndpoint => None,
        }
    }
}

impl From<Failed> for Refusal {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Overflow(overflow) => Self::Overloaded(overflow),
            Failed::Pending => Self::Waited,
            Failed::NoEndpoint => Self::NoEndpoint,
            Failed::NotConnected(cause) => Self::Unreachable(cause),
            Failed::Refused(cause) | Failed::NotSent(cause) | Failed::Broken(cause) => {
                Self::Broken(cause)
            }
            Failed::NoUpgrade => Self::NoUpgrade,
        }
    }
}
