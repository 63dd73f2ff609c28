//! Which requests are sent again, and when. Facts: Envoy's `x-envoy-retry-on`, `x-envoy-retry-grpc-on`
//! and its fully jittered exponential backoff; RFC 9110 sections 9.2.2 and 10.2.3.

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, header};

use crate::policy::plan::{Retry, RetryTrigger as Trigger};

/// The longest pause that an answer may ask for with `Retry-After`. One that asks for more is passed
/// on: the client can wait as well.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(10);

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// There is an answer.
    Answered {
        status: StatusCode,
        /// `grpc-status` in its head.
        grpc: Option<u8>,
        /// What it asks for.
        retry_after: Option<Duration>,
    },
    /// No connection.
    NotConnected,
    /// The upstream refused the stream before it did anything with it.
    Refused,
    /// Nothing of the request was sent.
    NotSent,
    /// The connection broke, or what came is no answer.
    Broken,
    /// It took longer than an attempt may.
    TimedOut,
}

impl Attempt {
    /// An answer with this head. `now`: seconds since 1970.
    #[must_use]
    pub fn answered(status: StatusCode, headers: &HeaderMap, now: u64) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        Self::Answered {
            status,
            grpc: text(header::HeaderName::from_static("grpc-status"))
                .and_then(|status| status.parse().ok()),
            retry_after: text(header::RETRY_AFTER).and_then(|value| retry_after(value, now)),
        }
    }

    /// Whether the upstream cannot have done anything about the request.
    const fn left_no_trace(self) -> bool {
        matches!(self, Self::NotConnected | Self::Refused | Self::NotSent)
    }
}

/// RFC 9110 section 10.2.3: seconds, or a date.
fn retry_after(value: &str, now: u64) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    let date = date.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(date.saturating_sub(Duration::from_secs(now)))
}

/// What is to be done after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The attempt's outcome is the client's.
    Done,
    /// It would be retried, but has been as often as it may.
    Exhausted,
    /// Try again after a pause.
    Again {
        pause: Duration,
        /// The pause is what the answer asked for.
        asked: bool,
    },
}

/// The retries of one request.
#[derive(Clone, Copy, Debug)]
pub struct Retries {
    made: u32,
    idempotent: bool,
}

impl Retries {
    #[must_use]
    pub fn of(method: &Method) -> Self {
        Self {
            made: 0,
            idempotent: is_idempotent(method),
        }
    }

    /// Retries made so far.
    #[must_use]
    pub const fn made(&self) -> u32 {
        self.made
    }

    /// What follows after `attempt`. `random`: evenly spread.
    pub fn next(&mut self, policy: &Retry, attempt: Attempt, random: u64) -> Next {
        if !self.wants(policy, attempt) {
            return Next::Done;
        }
        if self.made >= policy.max_retries {
            return Next::Exhausted;
        }
        let mut pause = jittered(backoff(policy, self.made), random);
        let mut asked = false;
        if let Attempt::Answered {
            retry_after: Some(after),
            ..
        } = attempt
        {
            if after > MAX_RETRY_AFTER {
                return Next::Done;
            }
            asked = after > pause;
            pause = pause.max(after);
        }
        self.made += 1;
        Next::Again { pause, asked }
    }

    fn wants(&self, policy: &Retry, attempt: Attempt) -> bool {
        let may = self.idempotent || policy.any_method || attempt.left_no_trace();
        may && policy
            .triggers
            .iter()
            .any(|trigger| sets_off(*trigger, policy, attempt))
    }
}

/// RFC 9110 section 9.2.2.
#[must_use]
pub fn is_idempotent(method: &Method) -> bool {
    method.is_idempotent()
}

fn sets_off(trigger: Trigger, policy: &Retry, attempt: Attempt) -> bool {
    let (status, grpc) = match attempt {
        Attempt::Answered { status, grpc, .. } => (status.as_u16(), grpc),
        none => {
            return match trigger {
                // Envoy: no answer counts as one with 5xx, for it would become one.
                Trigger::ServerError | Trigger::GatewayError | Trigger::Reset => true,
                Trigger::ResetBeforeRequest => none.left_no_trace(),
                Trigger::ConnectFailure => none == Attempt::NotConnected,
                Trigger::RefusedStream => none == Attempt::Refused,
                _ => false,
            };
        }
    };
    match trigger {
        Trigger::ServerError => (500..600).contains(&status),
        Trigger::GatewayError => (502..=504).contains(&status),
        Trigger::Retriable4xx => status == 409,
        Trigger::RetriableStatusCodes => policy.statuses.contains(&status),
        Trigger::Cancelled => grpc == Some(1),
        Trigger::DeadlineExceeded => grpc == Some(4),
        Trigger::ResourceExhausted => grpc == Some(8),
        Trigger::Internal => grpc == Some(13),
        Trigger::Unavailable => grpc == Some(14),
        Trigger::Reset
        | Trigger::ResetBeforeRequest
        | Trigger::ConnectFailure
        | Trigger::RefusedStream => false,
    }
}

/// The longest pause before the retry that comes after `made` others.
fn backoff(policy: &Retry, made: u32) -> Duration {
    let factor = 1u32.checked_shl(made).unwrap_or(u32::MAX);
    policy
        .base_interval
        .saturating_mul(factor)
        .min(policy.max_interval)
}

/// Any part of `pause` (full jitter).
fn jittered(pause: Duration, random: u64) -> Duration {
    let nanos = u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX);
    let part = (u128::from(nanos) * u128::from(random)) >> 64;
    Duration::from_nanos(u64::try_from(part).unwrap_or(nanos))
}

#[cfg(test)]
mod tests;
