//! `retry`: what is sent again, when and how often.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;

use super::merge::{Bound, by_field, whole};
use super::numbers;
use crate::policy::decode::{At, Unheeded};
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::{self, RetryTrigger};
use crate::policy::suggest;

/// Of the backoff's base, where a policy does not say how long it may grow.
const GROWTH: u32 = 10;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "other fields are told by the decoder")]
pub(super) struct RawRetry {
    num_retries: Option<u32>,
    num_attempts_per_priority: Option<Unheeded>,
    retry_on: Option<At<RawRetryOn>>,
    per_retry: Option<RawPerRetry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRetryOn {
    triggers: Option<At<Vec<RawTrigger>>>,
    http_status_codes: Option<At<Vec<At<u16>>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawTrigger {
    #[serde(rename = "5xx")]
    ServerError,
    GatewayError,
    Reset,
    ResetBeforeRequest,
    ConnectFailure,
    #[serde(rename = "retriable-4xx")]
    Retriable4xx,
    RefusedStream,
    RetriableStatusCodes,
    Cancelled,
    DeadlineExceeded,
    Internal,
    ResourceExhausted,
    Unavailable,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPerRetry {
    timeout: Option<At<String>>,
    back_off: Option<RawBackOff>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawBackOff {
    base_interval: Option<At<String>>,
    max_interval: Option<At<String>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Retry {
    max_retries: Option<u32>,
    on: Option<RetryOn>,
    timeout: Option<Bound>,
    base_interval: Option<Duration>,
    max_interval: Option<Duration>,
}

by_field!(Retry {
    max_retries,
    on,
    timeout,
    base_interval,
    max_interval,
});

#[derive(Clone, Debug)]
struct RetryOn {
    triggers: Option<BTreeSet<RetryTrigger>>,
    statuses: Option<BTreeSet<u16>>,
}

by_field!(RetryOn { triggers, statuses });
whole!(BTreeSet<RetryTrigger>);

impl RawTrigger {
    const fn plan(self) -> RetryTrigger {
        match self {
            Self::ServerError => RetryTrigger::ServerError,
            Self::GatewayError => RetryTrigger::GatewayError,
            Self::Reset => RetryTrigger::Reset,
            Self::ResetBeforeRequest => RetryTrigger::ResetBeforeRequest,
            Self::ConnectFailure => RetryTrigger::ConnectFailure,
            Self::Retriable4xx => RetryTrigger::Retriable4xx,
            Self::RefusedStream => RetryTrigger::RefusedStream,
            Self::RetriableStatusCodes => RetryTrigger::RetriableStatusCodes,
            Self::Cancelled => RetryTrigger::Cancelled,
            Self::DeadlineExceeded => RetryTrigger::DeadlineExceeded,
            Self::Internal => RetryTrigger::Internal,
            Self::ResourceExhausted => RetryTrigger::ResourceExhausted,
            Self::Unavailable => RetryTrigger::Unavailable,
        }
    }
}

/// Checks `retry`; `grpc`: it is for GRPCRoutes alone.
pub(super) fn lower(raw: RawRetry, grpc: bool, scope: &mut Scope<'_>) -> Retry {
    let back_off = raw.per_retry.as_ref().and_then(|per| per.back_off.as_ref());
    let base = back_off.and_then(|back| back.base_interval.as_ref());
    let max = back_off.and_then(|back| back.max_interval.as_ref());
    let retry = Retry {
        max_retries: raw.num_retries,
        on: raw.retry_on.as_ref().map(|on| lower_on(on, scope)),
        timeout: numbers::bound(
            raw.per_retry.as_ref().and_then(|per| per.timeout.as_ref()),
            scope,
        ),
        base_interval: numbers::time(base, scope),
        max_interval: numbers::time(max, scope),
    };
    let default = plan::Retry::default().base_interval;
    if let (Some(at), Some(most)) = (max, retry.max_interval) {
        let least = retry.base_interval.unwrap_or(default);
        if most < least {
            scope.error(
                &at.mark,
                format!("`{}` is less than the `baseInterval`", at.value),
                format!("write at least `{least:?}`"),
            );
        }
    }
    let names = |on: &RetryOn| on.triggers.is_some() || on.statuses.is_some();
    if let (Some(on), true) = (&raw.retry_on, retry.on.as_ref().is_some_and(names))
        && retry.max_retries != Some(0)
    {
        warn_of_repeats(&retry.always().triggers, &on.mark, grpc, scope);
    }
    retry
}

fn lower_on(raw: &At<RawRetryOn>, scope: &mut Scope<'_>) -> RetryOn {
    let triggers = raw.triggers.as_ref().filter(|list| !list.is_empty());
    if triggers.is_none() && raw.http_status_codes.is_none() {
        scope.error(
            &raw.mark,
            "it names no trigger",
            "give it `triggers`, or remove it for the default ones",
        );
    }
    let triggers: Option<BTreeSet<RetryTrigger>> =
        triggers.map(|list| list.iter().map(|trigger| trigger.plan()).collect());
    if let (Some(triggers), Some(codes)) = (&triggers, &raw.http_status_codes)
        && !triggers.contains(&RetryTrigger::RetriableStatusCodes)
    {
        scope.warning(
            &codes.mark,
            "`httpStatusCodes` has no effect without the trigger `retriable-status-codes`",
            "add that to `triggers`, or remove this",
        );
    }
    RetryOn {
        triggers,
        statuses: raw
            .http_status_codes
            .as_ref()
            .and_then(|list| numbers::statuses(list, scope)),
    }
}

/// With its triggers named, a policy sends requests of every method again.
fn warn_of_repeats(
    triggers: &BTreeSet<RetryTrigger>,
    mark: &Mark,
    grpc: bool,
    scope: &mut Scope<'_>,
) {
    let after: Vec<&str> = triggers
        .iter()
        .filter(|trigger| !trigger.is_before_request())
        .map(|trigger| trigger.name())
        .collect();
    if after.is_empty() {
        return;
    }
    let after = suggest::listed(after);
    let (message, remedy) = if grpc {
        (
            format!("calls are sent again after {after}, when they may have been carried out"),
            "keep it from calls that must not be carried out twice, or name only `connect-failure`, `refused-stream` and `reset-before-request`",
        )
    } else {
        (
            format!(
                "requests of every method, POST too, are sent again after {after}, when they may have been carried out"
            ),
            "keep it for routes of idempotent requests, or remove `retryOn`: then only those are sent again",
        )
    };
    scope.warning(mark, message, remedy);
}

impl Retry {
    /// `None`: nothing is retried.
    pub(super) fn plan(&self) -> Option<plan::Retry> {
        Some(self.always()).filter(|retry| retry.max_retries > 0)
    }

    fn always(&self) -> plan::Retry {
        let default = plan::Retry::default();
        let on = self.on.as_ref();
        let base = self.base_interval.unwrap_or(default.base_interval);
        plan::Retry {
            max_retries: self.max_retries.unwrap_or(default.max_retries),
            triggers: on
                .and_then(|on| on.triggers.clone())
                .unwrap_or(default.triggers),
            statuses: on
                .and_then(|on| on.statuses.clone())
                .unwrap_or(default.statuses),
            any_method: on.is_some(),
            per_try_timeout: self.timeout.and_then(|bound| bound.0),
            base_interval: base,
            // Where one is this policy's and the other its parent's, they need not fit.
            max_interval: self
                .max_interval
                .unwrap_or_else(|| base.saturating_mul(GROWTH))
                .max(base),
        }
    }
}
