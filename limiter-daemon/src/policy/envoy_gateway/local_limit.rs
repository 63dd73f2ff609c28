//! `rateLimit.local` of a BackendTrafficPolicy.

use serde::Deserialize;

use crate::policy::decode::{At, Unsupported};
use crate::policy::findings::Scope;
use crate::policy::gateway_api::route_match::{exact_value, header_name};
use crate::policy::plan::{Condition, LimitRule, PolicyLimits, Quota, ValueTest};
use crate::policy::resource::Meta;
use crate::policy::units::{self, BucketMarks, Unit};

const MAX_RULES: usize = 16;
const MAX_SELECTORS: usize = 8;
const MAX_HEADERS: usize = 128;

#[derive(Debug, Deserialize)]
pub(super) struct RawLocal {
    rules: Option<At<Vec<At<RawRule>>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawRule {
    client_selectors: Option<At<Vec<At<RawSelector>>>>,
    limit: RawLimit,
    cost: Option<Unsupported>,
    shadow_mode: Option<Unsupported>,
    shared: Option<Unsupported>,
    x_rate_limit_headers: Option<Unsupported>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawLimit {
    requests: At<u32>,
    unit: At<Unit>,
    from_metadata: Option<Unsupported>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSelector {
    headers: Option<At<Vec<RawHeader>>>,
    methods: Option<Unsupported>,
    path: Option<Unsupported>,
    query_params: Option<Unsupported>,
    #[serde(rename = "sourceCIDR")]
    source_cidr: Option<Unsupported>,
}

#[derive(Debug, Deserialize)]
struct RawHeader {
    #[serde(rename = "type")]
    kind: Option<At<HeaderKind>>,
    name: At<String>,
    value: Option<At<String>>,
    invert: Option<bool>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum HeaderKind {
    Exact,
    Distinct,
    RegularExpression,
}

/// Checks local limits; `None` if there are none.
pub(super) fn lower(raw: At<RawLocal>, meta: &Meta, scope: &mut Scope<'_>) -> Option<PolicyLimits> {
    let Some(list) = raw.value.rules.filter(|rules| !rules.is_empty()) else {
        scope.error(
            &raw.mark,
            "no `rules`, so nothing would be limited",
            "give it a rule with a `limit`",
        );
        return None;
    };
    scope.at_most(&list.mark, list.len(), MAX_RULES);
    let mut rules = Vec::new();
    let mut default: Option<(usize, LimitRule)> = None;
    for (index, At { value: rule, mark }) in list.value.into_iter().enumerate() {
        let everybody = rule
            .client_selectors
            .as_ref()
            .is_none_or(|selectors| selectors.is_empty());
        let conditions = conditions(rule.client_selectors, scope);
        let lowered = limit_rule(&rule.limit, index, meta, scope);
        if let (true, Some((first, _))) = (everybody, &default) {
            scope.error(
                &mark,
                format!("a second rule without `clientSelectors`; rule {first} is the first"),
                "keep one: it is the limit of the requests that no other rule matches",
            );
        }
        match lowered {
            Some(lowered) if everybody => default = default.or(Some((index, lowered))),
            Some(lowered) => rules.push(LimitRule {
                conditions,
                ..lowered
            }),
            None => {}
        }
    }
    Some(PolicyLimits {
        policy: meta.name.to_string(),
        rules,
        default: default.map(|(_, rule)| rule),
    })
}

fn limit_rule(
    raw: &RawLimit,
    index: usize,
    meta: &Meta,
    scope: &mut Scope<'_>,
) -> Option<LimitRule> {
    let requests = u64::from(raw.requests.value);
    let marks = BucketMarks {
        tokens: &raw.requests.mark,
        fill: &raw.requests.mark,
        interval: &raw.unit.mark,
    };
    let limit = units::limit(requests, requests, raw.unit.nanos(), marks, scope)?;
    let name = format!("{}/rule/{index}", meta.name);
    let quota = Quota::bucket(limit, raw.unit.seconds());
    Some(LimitRule::new(name, Vec::new(), quota))
}

/// All headers of all selectors: each must match, so the lists are one.
fn conditions(raw: Option<At<Vec<At<RawSelector>>>>, scope: &mut Scope<'_>) -> Vec<Condition> {
    let Some(list) = raw else {
        return Vec::new();
    };
    scope.at_most(&list.mark, list.len(), MAX_SELECTORS);
    let mut conditions = Vec::new();
    for At {
        value: selector,
        mark,
    } in list.value
    {
        let unsupported = selector.methods.is_some()
            || selector.path.is_some()
            || selector.query_params.is_some()
            || selector.source_cidr.is_some();
        match selector.headers.filter(|headers| !headers.is_empty()) {
            Some(headers) => {
                scope.at_most(&headers.mark, headers.len(), MAX_HEADERS);
                conditions.extend(
                    headers
                        .value
                        .into_iter()
                        .filter_map(|header| lower_header(header, scope)),
                );
            }
            None if unsupported => {}
            None => scope.error(
                &mark,
                "the selector selects nothing",
                "give it `headers`, or remove it",
            ),
        }
    }
    conditions
}

fn lower_header(raw: RawHeader, scope: &mut Scope<'_>) -> Option<Condition> {
    let invert = raw.invert.unwrap_or(false);
    let name = header_name(&raw.name, scope);
    let kind = raw
        .kind
        .as_ref()
        .map_or(HeaderKind::Exact, |kind| kind.value);
    let test = match (kind, raw.value, invert) {
        (HeaderKind::Exact, Some(value), false) => ValueTest::Is(exact_value(&value, scope)?),
        (HeaderKind::Exact, Some(value), true) => ValueTest::IsNot(exact_value(&value, scope)?),
        (HeaderKind::Exact, None, _) => {
            let message = "a selector of type `Exact` needs a `value`";
            scope.error(
                &raw.name.mark,
                message,
                "give it one, or write `type: Distinct` for a bucket each value",
            );
            return None;
        }
        (HeaderKind::Distinct, Some(value), _) if value.value != "*" => {
            let message =
                "a selector of type `Distinct` takes every value, each with a bucket of its own";
            scope.error(
                &value.mark,
                message,
                "remove `value`, or write `type: Exact`",
            );
            return None;
        }
        (HeaderKind::Distinct, _, false) => ValueTest::Each,
        (HeaderKind::Distinct, _, true) => ValueTest::Absent,
        (HeaderKind::RegularExpression, _, _) => {
            let mark = raw.kind.map_or(raw.name.mark, |kind| kind.mark);
            scope.error(
                &mark,
                "`RegularExpression` is not supported yet",
                "write `Exact` or `Distinct`",
            );
            return None;
        }
    };
    Some(Condition::Header { name: name?, test })
}
