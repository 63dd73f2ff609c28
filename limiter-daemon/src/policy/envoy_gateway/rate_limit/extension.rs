//! `limiterd` in a rule of `rateLimit`: what Envoy Gateway's rules cannot say.

use std::collections::BTreeSet;

use http::HeaderName;
use limiter_common::Limit;
use serde::Deserialize;

use super::lease::RawLease;
use super::rule::{EACH_ADDRESS, RawLimit, Store};
use crate::policy::decode::At;
use crate::policy::envoy_gateway::store::RawOnStoreFailure;
use crate::policy::findings::{Mark, Scope};
use crate::policy::gateway_api::route_match::header_name;
use crate::policy::plan::{
    Algorithm, Candidate, OnStoreFailure, Quota, RefundOn, ResponseCost, SourcePrefixes,
};
use crate::policy::units::{self, BucketMarks, Unit};

const MAX_CANDIDATES: usize = 8;
const MAX_JSON_PATH: usize = 16;
/// Bytes of a body, or of an event, in which a JSON field is looked for.
const JSON_BYTES: u64 = 1 << 20;
const MAX_JSON_BYTES: u64 = 64 << 20;
const NANOS: u64 = 1_000_000_000;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawExtension {
    algorithm: Option<At<RawAlgorithm>>,
    fill_interval: Option<At<String>>,
    tokens_per_fill: Option<At<u64>>,
    burst: Option<At<u64>>,
    unlimited: Option<At<bool>>,
    candidates: Option<At<Vec<At<RawCandidate>>>>,
    response_cost: Option<At<RawResponseCost>>,
    refund_on: Option<At<Vec<RawRefund>>>,
    on_store_failure: Option<At<RawOnStoreFailure>>,
    pub(super) lease: Option<At<RawLease>>,
    #[serde(rename = "ipv4Prefix")]
    ipv4_prefix: Option<At<u8>>,
    #[serde(rename = "ipv6Prefix")]
    ipv6_prefix: Option<At<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum RawAlgorithm {
    TokenBucket,
    FixedWindow,
    SlidingWindow,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawCandidate {
    name: At<String>,
    requests: Option<At<u64>>,
    unit: Option<At<Unit>>,
    fill_interval: Option<At<String>>,
    tokens_per_fill: Option<At<u64>>,
    burst: Option<At<u64>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawResponseCost {
    header: Option<At<String>>,
    json_field: Option<At<String>>,
    max_bytes: Option<At<u64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum RawRefund {
    UpstreamFailure,
    ServerError,
    Overload,
}

impl RawExtension {
    /// What counts as one address.
    pub(super) fn prefixes(&self, scope: &mut Scope<'_>) -> SourcePrefixes {
        let mut length = |at: Option<&At<u8>>, most: u8| {
            let Some(at) = at else {
                return most;
            };
            if !(1..=most).contains(&at.value) {
                let message = format!("{} is out of range", at.value);
                scope.error(&at.mark, message, format!("it may be 1 to {most}"));
            }
            at.value
        };
        SourcePrefixes {
            v4: length(self.ipv4_prefix.as_ref(), EACH_ADDRESS.v4),
            v6: length(self.ipv6_prefix.as_ref(), EACH_ADDRESS.v6),
        }
    }
}

/// What a rule says beyond its selectors and costs.
pub(super) struct Lowered {
    /// `None` after an error.
    pub(super) quota: Option<Quota>,
    pub(super) response_cost: Option<(Mark, ResponseCost)>,
    pub(super) refund_on: RefundOn,
    pub(super) candidates: Vec<Candidate>,
    pub(super) on_store_failure: Option<OnStoreFailure>,
}

/// Checks the limit of a rule, and what the extension makes of it.
pub(super) fn lower(
    raw: RawExtension,
    limit: &RawLimit,
    store: Store,
    scope: &mut Scope<'_>,
) -> Lowered {
    let numbers = Numbers {
        requests: At {
            value: u64::from(limit.requests.value),
            mark: limit.requests.mark.clone(),
        },
        unit: limit.unit.clone(),
        fill_interval: raw.fill_interval,
        tokens_per_fill: raw.tokens_per_fill,
        burst: raw.burst,
    };
    let algorithm = match raw.algorithm.as_ref().map(|at| at.value) {
        None | Some(RawAlgorithm::TokenBucket) => Algorithm::TokenBucket,
        Some(RawAlgorithm::FixedWindow) => Algorithm::FixedWindow,
        Some(RawAlgorithm::SlidingWindow) => Algorithm::SlidingWindow,
    };
    let candidates = candidates(raw.candidates, &numbers, algorithm, scope);
    if let Some(mode) = raw
        .on_store_failure
        .as_ref()
        .filter(|_| store == Store::Local)
    {
        scope.error(
            &mode.mark,
            "a local limit is counted by this node, whatever becomes of a store",
            "remove it, or write the rule under `global`",
        );
    }
    Lowered {
        quota: quota(&numbers, algorithm, raw.unlimited.as_ref(), store, scope),
        response_cost: raw.response_cost.and_then(|cost| {
            let mark = cost.mark.clone();
            Some((mark, response_cost(cost, scope)?))
        }),
        refund_on: refund_on(raw.refund_on),
        candidates,
        on_store_failure: raw.on_store_failure.map(|mode| mode.value.into()),
    }
}

/// The numbers of a limit: Envoy Gateway's two, and ours in place of them.
struct Numbers {
    requests: At<u64>,
    unit: At<Unit>,
    fill_interval: Option<At<String>>,
    tokens_per_fill: Option<At<u64>>,
    burst: Option<At<u64>>,
}

fn quota(
    numbers: &Numbers,
    algorithm: Algorithm,
    unlimited: Option<&At<bool>>,
    store: Store,
    scope: &mut Scope<'_>,
) -> Option<Quota> {
    let own = numbers.fill_interval.is_some()
        || numbers.tokens_per_fill.is_some()
        || numbers.burst.is_some();
    if let Some(unlimited) = unlimited.filter(|at| at.value) {
        if own {
            scope.error(
                &unlimited.mark,
                "both unlimited and a limit",
                "remove one of them",
            );
        }
        return Some(Quota::Unlimited);
    }
    if store == Store::Global && numbers.requests.value == 0 && !own {
        let window = numbers.unit.seconds();
        return Some(Quota::Blocked { window });
    }
    let (limit, interval) = numbers.limit(algorithm, scope)?;
    Some(Quota::Limited {
        limit,
        algorithm,
        window: interval.div_ceil(NANOS),
    })
}

impl Numbers {
    /// The limit, and its fill interval or window in nanoseconds.
    fn limit(&self, algorithm: Algorithm, scope: &mut Scope<'_>) -> Option<(Limit, u64)> {
        let (interval, interval_mark) = match &self.fill_interval {
            Some(text) => (units::duration(text, scope)?, &text.mark),
            None => (self.unit.nanos(), &self.unit.mark),
        };
        let fill = self.tokens_per_fill.as_ref().unwrap_or(&self.requests);
        let windows = algorithm != Algorithm::TokenBucket;
        if windows && interval % NANOS != 0 {
            scope.error(
                interval_mark,
                format!("the windows of `{algorithm:?}` are whole seconds"),
                "write so, or `algorithm: TokenBucket`",
            );
        }
        if let Some(burst) = self.burst.as_ref().filter(|_| windows) {
            scope.error(
                &burst.mark,
                format!("`{algorithm:?}` admits as many as its rate, and knows no burst"),
                "remove it, or write `algorithm: TokenBucket`",
            );
        }
        let burst = self.burst.as_ref().unwrap_or(fill);
        let marks = BucketMarks {
            tokens: &burst.mark,
            fill: &fill.mark,
            interval: interval_mark,
        };
        let limit = units::limit(burst.value, fill.value, interval, marks, scope)?;
        Some((limit, interval))
    }
}

fn candidates(
    raw: Option<At<Vec<At<RawCandidate>>>>,
    rule: &Numbers,
    algorithm: Algorithm,
    scope: &mut Scope<'_>,
) -> Vec<Candidate> {
    let Some(list) = raw else {
        return Vec::new();
    };
    scope.at_most(&list.mark, list.len(), MAX_CANDIDATES);
    let mut names = BTreeSet::new();
    let mut candidates = Vec::new();
    for At { value: raw, mark } in list.value {
        if raw.name.is_empty() || !names.insert(raw.name.value.clone()) {
            scope.error(
                &raw.name.mark,
                "the name is empty, or another candidate's",
                "give each a name of its own",
            );
        }
        let none = raw.requests.is_none()
            && raw.unit.is_none()
            && raw.fill_interval.is_none()
            && raw.tokens_per_fill.is_none()
            && raw.burst.is_none();
        if none {
            scope.error(
                &mark,
                "the candidate does not differ from the limit in force",
                "give it `requests`, `unit`, `fillInterval`, `tokensPerFill` or `burst`",
            );
        }
        let interval = raw
            .unit
            .as_ref()
            .map(|at| &at.mark)
            .or_else(|| raw.fill_interval.as_ref().map(|at| &at.mark));
        if let Some(mark) = interval.filter(|_| algorithm != Algorithm::TokenBucket) {
            scope.error(
                mark,
                format!("with `{algorithm:?}` a candidate has the windows of its rule"),
                "remove it, or write `algorithm: TokenBucket`",
            );
        }
        // What a candidate does not say, it has of the limit in force; but what it does say of the
        // rate replaces all that the limit says of it.
        let rate = raw.requests.is_some();
        let own_unit = raw.unit.is_some();
        let numbers = Numbers {
            requests: raw.requests.unwrap_or_else(|| rule.requests.clone()),
            unit: raw.unit.unwrap_or_else(|| rule.unit.clone()),
            fill_interval: raw
                .fill_interval
                .or_else(|| rule.fill_interval.clone().filter(|_| !own_unit)),
            tokens_per_fill: raw
                .tokens_per_fill
                .or_else(|| rule.tokens_per_fill.clone().filter(|_| !rate)),
            burst: raw.burst.or_else(|| rule.burst.clone().filter(|_| !rate)),
        };
        if let Some((limit, _)) = numbers.limit(algorithm, scope) {
            candidates.push(Candidate {
                name: raw.name.value,
                limit,
            });
        }
    }
    candidates
}

fn response_cost(raw: At<RawResponseCost>, scope: &mut Scope<'_>) -> Option<ResponseCost> {
    let At { value: raw, mark } = raw;
    match (raw.header, raw.json_field) {
        (Some(header), None) => {
            if let Some(bytes) = raw.max_bytes {
                scope.error(
                    &bytes.mark,
                    "nothing is read of the body for a cost in a header",
                    "remove it",
                );
            }
            header_name(&header, scope).map(|name: HeaderName| ResponseCost::Header(name))
        }
        (None, Some(field)) => {
            let path: Vec<String> = field.split('.').map(str::to_owned).collect();
            if path.len() > MAX_JSON_PATH || path.iter().any(String::is_empty) {
                scope.error(
                    &field.mark,
                    format!("`{}` is not a path of names", field.value),
                    "write it as `usage.total_tokens`",
                );
                return None;
            }
            let max_bytes = match raw.max_bytes {
                Some(at) if at.value == 0 || at.value > MAX_JSON_BYTES => {
                    let message = format!("{} is out of range", at.value);
                    scope.error(
                        &at.mark,
                        message,
                        format!("it may be 1 to {MAX_JSON_BYTES}"),
                    );
                    return None;
                }
                Some(at) => at.value,
                None => JSON_BYTES,
            };
            Some(ResponseCost::JsonField {
                path,
                max_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX),
            })
        }
        _ => {
            scope.error(
                &mark,
                "a cost is in a header or in a field of a JSON body",
                "give it either `header` or `jsonField`",
            );
            None
        }
    }
}

fn refund_on(raw: Option<At<Vec<RawRefund>>>) -> RefundOn {
    let list = raw.map(|at| at.value).unwrap_or_default();
    RefundOn {
        upstream_failure: list.contains(&RawRefund::UpstreamFailure),
        server_error: list.contains(&RawRefund::ServerError),
        overload: list.contains(&RawRefund::Overload),
    }
}
