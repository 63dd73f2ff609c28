//! `retry` of an HTTPRoute's rule: how often a request is sent again, and after which statuses.

use std::ops::RangeInclusive;

use serde::Deserialize;

use crate::policy::decode::At;
use crate::policy::findings::Scope;
use crate::policy::plan::{Retry, RetryTrigger};
use crate::policy::units;

const CODES: RangeInclusive<u16> = 400..=599;
/// Of the backoff, how long it may grow.
const GROWTH: u32 = 10;

#[derive(Debug, Deserialize)]
pub(super) struct RawRetry {
    codes: Option<At<Vec<At<u16>>>>,
    attempts: Option<u32>,
    backoff: Option<At<String>>,
}

/// Checks `retry`; `None`: nothing is retried.
///
/// Requests without an answer are sent again whatever `codes` says, as Gateway API has it; of methods
/// that are not idempotent only those that the upstream cannot have seen.
pub(super) fn lower(raw: At<RawRetry>, scope: &mut Scope<'_>) -> Option<Retry> {
    let raw = raw.value;
    let mut retry = Retry {
        triggers: [
            RetryTrigger::ConnectFailure,
            RetryTrigger::RefusedStream,
            RetryTrigger::Reset,
        ]
        .into(),
        statuses: [].into(),
        ..Retry::default()
    };
    for code in raw.codes.iter().flat_map(|list| &list.value) {
        if CODES.contains(&code.value) {
            retry.statuses.insert(code.value);
            retry.triggers.insert(RetryTrigger::RetriableStatusCodes);
        } else {
            scope.error(
                &code.mark,
                format!("{} is out of range", code.value),
                format!("it may be {} to {}", CODES.start(), CODES.end()),
            );
        }
    }
    if let Some(base) = raw
        .backoff
        .and_then(|text| units::positive_duration(&text, scope))
    {
        retry.base_interval = base;
        retry.max_interval = base.saturating_mul(GROWTH);
    }
    retry.max_retries = raw.attempts.unwrap_or(retry.max_retries);
    (retry.max_retries > 0).then_some(retry)
}
