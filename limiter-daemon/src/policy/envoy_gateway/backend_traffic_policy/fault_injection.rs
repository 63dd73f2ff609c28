//! `faultInjection`: delays and answers made on purpose.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use super::merge::{by_field, whole};
use super::numbers;
use crate::policy::decode::At;
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::{self, Abort, Fraction};
use crate::policy::units;

const STATUSES: RangeInclusive<u16> = 200..=599;
const GRPC_STATUSES: RangeInclusive<u8> = 0..=16;

#[derive(Debug, Deserialize)]
pub(super) struct RawFault {
    delay: Option<RawDelay>,
    abort: Option<At<RawAbort>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDelay {
    fixed_delay: At<String>,
    percentage: Option<At<f64>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawAbort {
    http_status: Option<At<u16>>,
    grpc_status: Option<At<u8>>,
    percentage: Option<At<f64>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Fault {
    delay: Option<Delay>,
    abort: Option<Answer>,
}

by_field!(Fault { delay, abort });

#[derive(Clone, Debug)]
struct Delay {
    fixed: Option<Duration>,
    share: Option<Fraction>,
}

by_field!(Delay { fixed, share });

#[derive(Clone, Debug)]
struct Answer {
    with: Option<Abort>,
    share: Option<Fraction>,
}

by_field!(Answer { with, share });
whole!(Abort);

/// Checks `faultInjection`.
pub(super) fn lower(raw: At<RawFault>, scope: &mut Scope<'_>) -> Fault {
    let At { value: raw, mark } = raw;
    if raw.delay.is_none() && raw.abort.is_none() {
        scope.error(
            &mark,
            "neither `delay` nor `abort` is given",
            "give it one of them",
        );
    }
    let share =
        |at: Option<At<f64>>, scope: &mut Scope<'_>| at.and_then(|at| numbers::percent(&at, scope));
    Fault {
        delay: raw.delay.map(|delay| Delay {
            fixed: units::positive_duration(&delay.fixed_delay, scope),
            share: share(delay.percentage, scope),
        }),
        abort: raw.abort.map(|abort| {
            let At { value: abort, mark } = abort;
            Answer {
                with: answer(abort.http_status, abort.grpc_status, &mark, scope),
                share: share(abort.percentage, scope),
            }
        }),
    }
}

fn answer(
    http: Option<At<u16>>,
    grpc: Option<At<u8>>,
    mark: &Mark,
    scope: &mut Scope<'_>,
) -> Option<Abort> {
    match (http, grpc) {
        (Some(http), None) => {
            let status = numbers::within(&http, &STATUSES, scope)?;
            StatusCode::from_u16(status).ok().map(Abort::Http)
        }
        (None, Some(grpc)) => numbers::within(&grpc, &GRPC_STATUSES, scope).map(Abort::Grpc),
        (None, None) => {
            let message = "neither `httpStatus` nor `grpcStatus` is given";
            scope.error(mark, message, "give it one of them");
            None
        }
        (Some(_), Some(_)) => {
            let message = "both `httpStatus` and `grpcStatus` are given";
            scope.error(mark, message, "keep one of them");
            None
        }
    }
}

impl Fault {
    /// `None`: no request meets it.
    pub(super) fn plan(&self) -> Option<plan::Fault> {
        let some = |share: Option<Fraction>| {
            Some(share.unwrap_or(Fraction::ALL)).filter(|share| share.numerator > 0)
        };
        let delay = self.delay.as_ref();
        let abort = self.abort.as_ref();
        let fault = plan::Fault {
            delay: delay.and_then(|delay| Some((delay.fixed?, some(delay.share)?))),
            abort: abort.and_then(|abort| Some((abort.with?, some(abort.share)?))),
        };
        (fault.delay.is_some() || fault.abort.is_some()).then_some(fault)
    }
}
