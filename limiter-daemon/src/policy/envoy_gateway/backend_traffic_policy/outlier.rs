//! `healthCheck.passive`: endpoints that fail are ejected.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;

use super::merge::by_field;
use super::numbers;
use crate::policy::decode::At;
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::OutlierDetection;

const PERCENT: RangeInclusive<u32> = 0..=100;
const FAILURES: RangeInclusive<u32> = 1..=100;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawPassive {
    split_external_local_origin_errors: Option<bool>,
    interval: Option<At<String>>,
    consecutive_local_origin_failures: Option<At<u32>>,
    consecutive_gateway_errors: Option<u32>,
    #[serde(rename = "consecutive5XxErrors")]
    consecutive_5xx: Option<u32>,
    base_ejection_time: Option<At<String>>,
    max_ejection_percent: Option<At<u32>>,
    failure_percentage_threshold: Option<At<u32>>,
    always_eject_one_endpoint: Option<bool>,
}

#[derive(Clone, Debug)]
pub(crate) struct Passive {
    /// Of the block.
    mark: Mark,
    interval: Option<Duration>,
    /// Of these, 0 is not looked at.
    consecutive_5xx: Option<u32>,
    consecutive_gateway_errors: Option<u32>,
    consecutive_local_origin_failures: Option<u32>,
    split_local_origin: Option<bool>,
    failure_percentage: Option<u32>,
    base_ejection_time: Option<Duration>,
    max_ejection_percent: Option<u32>,
    max_ejection_mark: Option<Mark>,
    always_eject_one: Option<bool>,
}

by_field!(Passive {
    mark,
    interval,
    consecutive_5xx,
    consecutive_gateway_errors,
    consecutive_local_origin_failures,
    split_local_origin,
    failure_percentage,
    base_ejection_time,
    max_ejection_percent,
    max_ejection_mark,
    always_eject_one,
});

/// Checks `healthCheck.passive`.
pub(super) fn lower(raw: At<RawPassive>, scope: &mut Scope<'_>) -> Passive {
    let At { value: raw, mark } = raw;
    let split = raw.split_external_local_origin_errors;
    if let Some(at) = raw
        .consecutive_local_origin_failures
        .as_ref()
        .filter(|_| split != Some(true))
    {
        scope.warning(
            &at.mark,
            "`consecutiveLocalOriginFailures` has no effect without `splitExternalLocalOriginErrors: true`",
            "add that, or remove this",
        );
    }
    let passive = Passive {
        interval: numbers::time(raw.interval.as_ref(), scope),
        consecutive_5xx: raw.consecutive_5xx,
        consecutive_gateway_errors: raw.consecutive_gateway_errors,
        consecutive_local_origin_failures: raw.consecutive_local_origin_failures.map(|at| at.value),
        split_local_origin: split,
        failure_percentage: raw
            .failure_percentage_threshold
            .and_then(|at| numbers::within(&at, &FAILURES, scope)),
        base_ejection_time: numbers::time(raw.base_ejection_time.as_ref(), scope),
        max_ejection_mark: raw.max_ejection_percent.as_ref().map(|at| at.mark.clone()),
        max_ejection_percent: raw
            .max_ejection_percent
            .and_then(|at| numbers::within(&at, &PERCENT, scope)),
        always_eject_one: raw.always_eject_one_endpoint,
        mark,
    };
    let plan = passive.plan();
    let looks = plan.consecutive_5xx.is_some()
        || plan.consecutive_gateway_errors.is_some()
        || plan.failure_percentage.is_some()
        || (plan.split_local_origin && plan.consecutive_local_origin_failures.is_some());
    if !looks {
        scope.warning(
            &passive.mark,
            "nothing is counted, so no endpoint is ever ejected",
            "give it `consecutive5XxErrors` above 0, or remove it",
        );
    }
    passive
}

impl Passive {
    /// Where it says how many may be ejected, or else where it begins.
    pub(super) fn mark(&self) -> &Mark {
        self.max_ejection_mark.as_ref().unwrap_or(&self.mark)
    }

    pub(super) fn plan(&self) -> OutlierDetection {
        let default = OutlierDetection::default();
        let count = |own: Option<u32>, default: Option<u32>| own.or(default).filter(|n| *n > 0);
        OutlierDetection {
            interval: self.interval.unwrap_or(default.interval),
            consecutive_5xx: count(self.consecutive_5xx, default.consecutive_5xx),
            consecutive_gateway_errors: count(
                self.consecutive_gateway_errors,
                default.consecutive_gateway_errors,
            ),
            split_local_origin: self
                .split_local_origin
                .unwrap_or(default.split_local_origin),
            consecutive_local_origin_failures: count(
                self.consecutive_local_origin_failures,
                default.consecutive_local_origin_failures,
            ),
            failure_percentage: self.failure_percentage,
            base_ejection_time: self
                .base_ejection_time
                .unwrap_or(default.base_ejection_time),
            max_ejection_percent: self
                .max_ejection_percent
                .unwrap_or(default.max_ejection_percent),
            always_eject_one: self.always_eject_one.unwrap_or(default.always_eject_one),
        }
    }
}
