//! What global limits are made of: descriptors of the server's configuration, and actions that make
//! descriptors of requests (`ratelimit.api.solo.io`).

use std::sync::Arc;

use limiter_common::Limit;
use serde::Deserialize;

use crate::policy::decode::{At, Ignored, NumberOrText};
use crate::policy::findings::{Mark, Scope};
use crate::policy::native::http_rate_limit_policy::action::{self, RawAction};
use crate::policy::plan::{
    Amount, Descriptor, DescriptorRule, DomainLimit, EntryValue, Quota, TimeUnit,
};
use crate::policy::units::{self, BucketMarks};

const MAX: usize = 64;
const MAX_DEPTH: usize = 16;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawDescriptor {
    key: At<String>,
    value: Option<At<NumberOrText>>,
    rate_limit: Option<At<RawLimit>>,
    descriptors: Option<At<Vec<At<Self>>>>,
    weight: Option<At<u32>>,
    always_apply: Option<At<bool>>,
}

/// `RateLimit`: so many requests a unit of time.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawLimit {
    unit: At<RawUnit>,
    requests_per_unit: At<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum RawUnit {
    Unknown,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

/// `RateLimitActions`: what makes a descriptor of a request.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawActions {
    actions: Option<At<Vec<At<RawAction>>>>,
    set_actions: Option<At<Vec<Ignored>>>,
    limit: Option<crate::policy::decode::Unsupported>,
}

/// Checks the tree of a domain.
pub(super) fn descriptors(raw: Vec<At<RawDescriptor>>, scope: &mut Scope<'_>) -> Vec<Descriptor> {
    level(raw, 1, scope)
}

fn level(raw: Vec<At<RawDescriptor>>, depth: usize, scope: &mut Scope<'_>) -> Vec<Descriptor> {
    let mut lowered: Vec<Descriptor> = Vec::with_capacity(raw.len());
    for At { value: raw, mark } in raw {
        let descriptor = descriptor(raw, depth, scope);
        let same =
            |other: &Descriptor| (&other.key, &other.value) == (&descriptor.key, &descriptor.value);
        if lowered.iter().any(same) {
            crate::policy::ratelimit_service::descriptor::twice(&descriptor, &mark, scope);
        }
        lowered.push(descriptor);
    }
    lowered
}

fn descriptor(raw: RawDescriptor, depth: usize, scope: &mut Scope<'_>) -> Descriptor {
    if raw.key.is_empty() {
        scope.error(
            &raw.key.mark,
            "a descriptor has a key",
            "write the key that an action gives, as `generic_key`",
        );
    }
    let weight = raw.weight.filter(|at| at.value > 0).map(|at| at.mark);
    let always = raw.always_apply.filter(|at| at.value).map(|at| at.mark);
    for (mark, field) in [(weight, "weight"), (always, "alwaysApply")] {
        if let Some(mark) = mark {
            scope.error(
                &mark,
                format!("`{field}` is not supported yet: every limit that matches applies"),
                "remove it, and name fewer `actions` for the requests that it is about",
            );
        }
    }
    let value = match raw.value.map(|at| at.value) {
        None => EntryValue::Any,
        Some(NumberOrText::Number(number)) => EntryValue::Is(number.to_string()),
        Some(NumberOrText::Text(text)) if text.is_empty() => EntryValue::Any,
        Some(NumberOrText::Text(text)) => EntryValue::Is(text),
    };
    let descriptors = match raw.descriptors {
        Some(below) if depth == MAX_DEPTH && !below.is_empty() => {
            let remedy = format!("at most {MAX_DEPTH} levels are allowed");
            scope.error(&below.mark, "descriptors are nested too deeply", remedy);
            Vec::new()
        }
        Some(below) => level(below.value, depth + 1, scope),
        None => Vec::new(),
    };
    Descriptor {
        key: raw.key.value,
        value,
        share_threshold: false,
        value_to_metric: false,
        limit: raw.rate_limit.and_then(|raw| {
            Some(DomainLimit {
                amount: amount(&raw, scope)?,
                name: None,
                replaces: Vec::new(),
                shadow: false,
                quota: false,
                detailed: false,
                metadata: None,
                written: scope.written(&raw.mark),
            })
        }),
        descriptors,
    }
}

fn unit(at: &At<RawUnit>, scope: &mut Scope<'_>) -> Option<TimeUnit> {
    Some(match at.value {
        RawUnit::Second => TimeUnit::Second,
        RawUnit::Minute => TimeUnit::Minute,
        RawUnit::Hour => TimeUnit::Hour,
        RawUnit::Day => TimeUnit::Day,
        RawUnit::Week => TimeUnit::Week,
        RawUnit::Month => TimeUnit::Month,
        RawUnit::Year => TimeUnit::Year,
        RawUnit::Unknown => {
            scope.error(
                &at.mark,
                "`UNKNOWN` is no unit of time",
                "write `SECOND`, `MINUTE`, `HOUR`, `DAY`, `WEEK`, `MONTH` or `YEAR`",
            );
            return None;
        }
    })
}

fn bucket(raw: &At<RawLimit>, unit: TimeUnit, scope: &mut Scope<'_>) -> Option<Limit> {
    let tokens = u64::from(raw.requests_per_unit.value);
    let marks = BucketMarks {
        tokens: &raw.requests_per_unit.mark,
        fill: &raw.requests_per_unit.mark,
        interval: &raw.unit.mark,
    };
    let interval = unit.seconds().saturating_mul(1_000_000_000);
    units::limit(tokens, tokens, interval, marks, scope)
}

fn amount(raw: &At<RawLimit>, scope: &mut Scope<'_>) -> Option<Amount> {
    let unit = unit(&raw.unit, scope)?;
    let requests = raw.requests_per_unit.value;
    if requests == 0 {
        return Some(Amount::Nothing(unit));
    }
    Some(Amount::PerUnit {
        requests,
        unit,
        limit: bucket(raw, unit, scope)?,
    })
}

/// A limit as a quota of its own; 0 blocks.
pub(super) fn quota(raw: &At<RawLimit>, scope: &mut Scope<'_>) -> Option<Quota> {
    let unit = unit(&raw.unit, scope)?;
    let window = unit.seconds();
    if raw.requests_per_unit.value == 0 {
        return Some(Quota::Blocked { window });
    }
    Some(Quota::bucket(bucket(raw, unit, scope)?, window))
}

/// Checks `rateLimits`; those with errors are left out.
pub(super) fn actions(
    list: At<Vec<At<RawActions>>>,
    scope: &mut Scope<'_>,
) -> Vec<Arc<DescriptorRule>> {
    scope.at_most(&list.mark, list.len(), MAX);
    list.value
        .into_iter()
        .filter_map(|raw| rule(raw, scope))
        .map(Arc::new)
        .collect()
}

fn rule(At { value: raw, mark }: At<RawActions>, scope: &mut Scope<'_>) -> Option<DescriptorRule> {
    let _told_by_the_decoder = raw.limit;
    no_sets(raw.set_actions.as_ref(), "setActions", scope);
    let Some(actions) = raw.actions.filter(|actions| !actions.is_empty()) else {
        if raw.set_actions.is_none() {
            scope.error(
                &mark,
                "without `actions` there is no descriptor",
                "give it at least one",
            );
        }
        return None;
    };
    scope.at_most(&actions.mark, actions.len(), MAX);
    let actions: Vec<_> = actions
        .value
        .into_iter()
        .map(|raw| action::lower(raw, scope))
        .collect();
    Some(DescriptorRule {
        stage: 0,
        disable_key: String::new(),
        actions: actions.into_iter().collect::<Option<_>>()?,
        limit: None,
        hits: None,
        at_the_end: false,
        headers: None,
    })
}

/// Says that set-style limits are not supported yet.
pub(super) fn no_sets(raw: Option<&At<Vec<Ignored>>>, field: &str, scope: &mut Scope<'_>) {
    if let Some(list) = raw.filter(|list| !list.is_empty()) {
        not_yet(&list.mark, field, scope);
    }
}

fn not_yet(mark: &Mark, field: &str, scope: &mut Scope<'_>) {
    scope.error(
        mark,
        format!("`{field}` is not supported yet: limiterd would not apply it"),
        "write the same as a tree: `descriptors`, and `actions` in their order",
    );
}
