//! A rule of `rateLimit.local` or `.global`: its limit, its costs and its switches.

use serde::Deserialize;

use super::extension::{self, RawExtension};
use super::lease;
use super::selectors::{self, RawSelector};
use crate::policy::decode::{At, Unsupported};
use crate::policy::findings::Scope;
use crate::policy::plan::{LimitRule, Quota, ResponseCost, SourcePrefixes};
use crate::policy::resource::Meta;
use crate::policy::units::Unit;

/// Where a limit is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Store {
    Local,
    Global,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawRule {
    client_selectors: Option<At<Vec<At<RawSelector>>>>,
    limit: At<RawLimit>,
    cost: Option<At<RawCost>>,
    shared: Option<bool>,
    shadow_mode: Option<bool>,
    x_rate_limit_headers: Option<RawHeadersOption>,
    /// limiterd's own.
    limiterd: Option<At<RawExtension>>,
}

impl RawRule {
    pub(super) fn selects_everything(&self) -> bool {
        self.client_selectors
            .as_ref()
            .is_none_or(|selectors| selectors.is_empty())
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
pub(super) struct RawLimit {
    pub(super) requests: At<u32>,
    pub(super) unit: At<Unit>,
    from_metadata: Option<Unsupported>,
}

#[derive(Debug, Deserialize)]
struct RawCost {
    request: Option<At<RawSpecifier>>,
    response: Option<At<RawSpecifier>>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawSpecifier {
    from: At<CostFrom>,
    number: Option<At<u64>>,
    metadata: Option<Unsupported>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum CostFrom {
    Number,
    Metadata,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum RawHeadersOption {
    Off,
    DraftVersion03,
}

/// Checks a rule; `None` after an error in its limit.
pub(super) fn lower(
    raw: At<RawRule>,
    index: usize,
    store: Store,
    meta: &Meta,
    scope: &mut Scope<'_>,
) -> Option<LimitRule> {
    let written = scope.written(&raw.mark);
    let raw = raw.value;
    let mut extension = raw.limiterd.map(|own| own.value).unwrap_or_default();
    let lease = extension.lease.take();
    let prefixes = extension.prefixes(scope);
    let conditions = selectors::lower(raw.client_selectors, prefixes, scope);
    let (request, response) = costs(raw.cost, scope);
    let more = extension::lower(extension, &raw.limit, store, scope);
    let response_cost = match (response, more.response_cost) {
        (Some(_), Some((mark, _))) => {
            scope.error(
                &mark,
                "the response has a cost under `cost.response` already",
                "keep one of them",
            );
            None
        }
        (number, own) => number.or_else(|| own.map(|(_, cost)| cost)),
    };
    let rule = LimitRule {
        shared: raw.shared.unwrap_or_default(),
        shadow: raw.shadow_mode.unwrap_or_default(),
        headers: raw
            .x_rate_limit_headers
            .map(|option| option == RawHeadersOption::DraftVersion03),
        request_cost: request.unwrap_or(1),
        response_cost,
        refund_on: more.refund_on,
        candidates: more.candidates,
        on_store_failure: more.on_store_failure,
        written,
        ..LimitRule::new(
            format!("{}/rule/{index}", meta.name),
            conditions,
            Quota::Unlimited,
        )
    };
    let mut rule = LimitRule {
        quota: more.quota?,
        ..rule
    };
    rule.lease = lease.and_then(|lease| lease::lower(lease, &rule, store, scope));
    Some(rule)
}

/// Tokens of the request, and of the response.
fn costs(raw: Option<At<RawCost>>, scope: &mut Scope<'_>) -> (Option<u64>, Option<ResponseCost>) {
    let Some(At { value: raw, mark }) = raw else {
        return (None, None);
    };
    if raw.request.is_none() && raw.response.is_none() {
        scope.error(
            &mark,
            "the cost of nothing",
            "give it `request` or `response`, or remove it",
        );
    }
    let request = raw.request.and_then(|cost| number(cost, scope));
    let response = raw.response.and_then(|cost| {
        let mark = cost.mark.clone();
        let number = number(cost, scope)?;
        if number == 0 {
            scope.warning(
                &mark,
                "a response that costs 0 costs nothing",
                "write 1 or more, or remove it",
            );
        }
        (number > 0).then_some(ResponseCost::Number(number))
    });
    (request, response)
}

fn number(raw: At<RawSpecifier>, scope: &mut Scope<'_>) -> Option<u64> {
    let At { value: raw, mark } = raw;
    match (raw.from.value, &raw.number) {
        (CostFrom::Number, Some(number)) => Some(number.value),
        (CostFrom::Number, None) => {
            scope.error(
                &mark,
                "the cost is from a `Number`, but `number` is missing",
                "give it one",
            );
            None
        }
        (CostFrom::Metadata, _) => {
            scope.error(
                &raw.from.mark,
                "a cost from `Metadata` is not supported: there are no filters that would write any",
                "write `Number`; what a response says of its cost is read by `limiterd.responseCost`",
            );
            None
        }
    }
}

/// Each address by itself, unless a file says otherwise.
pub(super) const EACH_ADDRESS: SourcePrefixes = SourcePrefixes { v4: 32, v6: 128 };
