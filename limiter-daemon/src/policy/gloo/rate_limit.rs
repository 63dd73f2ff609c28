//! What global limits are made of: descriptors of the server's configuration, and actions that make
//! descriptors of requests (`ratelimit.api.solo.io`).

use std::sync::Arc;

use limiter_common::Limit;
use serde::Deserialize;

use crate::policy::decode::{At, NumberOrText};
use crate::policy::findings::Scope;
use crate::policy::native::http_rate_limit_policy::action::{self, RawAction};
use crate::policy::plan::{
    Action, Amount, Descriptor, DescriptorRule, DomainLimit, EntryValue, Quota, SET_MARK, TimeUnit,
};
use crate::policy::units::{self, BucketMarks};

const MAX: usize = 64;
const MAX_DEPTH: usize = 16;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawDescriptor {
    key: At<String>,
    value: Option<NumberOrText>,
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

/// `RateLimitActions`: what makes descriptors of a request, one in order and one that is a set.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawActions {
    actions: Option<At<Vec<At<RawAction>>>>,
    set_actions: Option<At<Vec<At<RawAction>>>>,
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
    let weight = raw.weight.filter(|at| at.value > 0);
    let always = raw.always_apply.filter(|at| at.value);
    let marks = [
        ("weight", weight.as_ref().map(|at| &at.mark)),
        ("alwaysApply", always.as_ref().map(|at| &at.mark)),
    ];
    for (field, mark) in marks {
        if let Some(mark) = mark.filter(|_| raw.rate_limit.is_none()) {
            scope.warning(
                mark,
                format!("`{field}` has no effect without a `rateLimit` beside it"),
                "move it to the descriptor that has the `rateLimit`",
            );
        }
    }
    let value = text(raw.value);
    if depth == 1 {
        no_mark(&raw.key, value.as_deref(), scope);
    }
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
        value: value.map_or(EntryValue::Any, EntryValue::Is),
        share_threshold: false,
        value_to_metric: false,
        limit: raw
            .rate_limit
            .and_then(|raw| limit(&raw, scope))
            .map(|limit| DomainLimit {
                weight: weight.map_or(0, |at| at.value),
                always: always.is_some(),
                ..limit
            }),
        descriptors,
    }
}

/// The value of a descriptor; none is any.
pub(super) fn text(raw: Option<NumberOrText>) -> Option<String> {
    match raw? {
        NumberOrText::Number(number) => Some(number.to_string()),
        NumberOrText::Text(text) => (!text.is_empty()).then_some(text),
    }
}

/// Sees to it that a descriptor is not what sets are known by.
pub(super) fn no_mark(key: &At<String>, value: Option<&str>, scope: &mut Scope<'_>) {
    if (key.value.as_str(), value) == (SET_MARK.0, Some(SET_MARK.1)) {
        scope.error(
            &key.mark,
            format!("`{}` is what sets are known by", SET_MARK.1),
            "remove it; write sets as `setActions` and `setDescriptors`",
        );
    }
}

/// A limit that has no more said of it; `None` after an error.
pub(super) fn limit(raw: &At<RawLimit>, scope: &mut Scope<'_>) -> Option<DomainLimit> {
    Some(DomainLimit {
        amount: amount(raw, scope)?,
        name: None,
        replaces: Vec::new(),
        shadow: false,
        quota: false,
        detailed: false,
        metadata: None,
        weight: 0,
        always: false,
        written: scope.written(&raw.mark),
    })
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
    let rules = list.value.into_iter().flat_map(|raw| rules(raw, scope));
    rules.flatten().map(Arc::new).collect()
}

/// The rule of `actions`, and that of `setActions`: each makes a descriptor of its own.
fn rules(
    At { value: raw, mark }: At<RawActions>,
    scope: &mut Scope<'_>,
) -> [Option<DescriptorRule>; 2] {
    let _told_by_the_decoder = raw.limit;
    let given = |list: Option<At<Vec<At<RawAction>>>>| list.filter(|list| !list.is_empty());
    let (ordered, set) = (given(raw.actions), given(raw.set_actions));
    if ordered.is_none() && set.is_none() {
        scope.error(
            &mark,
            "without `actions` or `setActions` there is no descriptor",
            "give it at least one",
        );
    }
    let ordered = ordered.and_then(|list| {
        let place = list.mark.clone();
        let actions = lower(list, scope)?;
        let is_mark = |action: &Action| {
            matches!(action, Action::GenericKey { key, value }
                if (key.as_str(), value.as_str()) == SET_MARK)
        };
        if actions.iter().any(is_mark) {
            scope.error(
                &place,
                format!("`{}` is what sets are known by", SET_MARK.1),
                "write `setActions`, without it",
            );
            return None;
        }
        Some(rule(actions))
    });
    let set = set.and_then(|list| {
        let mut actions = vec![Action::GenericKey {
            key: SET_MARK.0.to_owned(),
            value: SET_MARK.1.to_owned(),
        }];
        actions.extend(lower(list, scope)?);
        // A set goes on without the headers that a request does not have.
        for action in &mut actions {
            if let Action::RequestHeader { skip_if_absent, .. } = action {
                *skip_if_absent = true;
            }
        }
        Some(rule(actions))
    });
    [ordered, set]
}

/// Checks actions; `None` after an error.
fn lower(list: At<Vec<At<RawAction>>>, scope: &mut Scope<'_>) -> Option<Vec<Action>> {
    scope.at_most(&list.mark, list.len(), MAX);
    let checked = list.value.into_iter().map(|raw| action::lower(raw, scope));
    checked.collect::<Vec<_>>().into_iter().collect()
}

const fn rule(actions: Vec<Action>) -> DescriptorRule {
    DescriptorRule {
        stage: 0,
        disable_key: String::new(),
        actions,
        limit: None,
        hits: None,
        at_the_end: false,
        headers: None,
    }
}

/// Whether a rule makes sets.
pub(crate) fn makes_sets(rule: &DescriptorRule) -> bool {
    matches!(rule.actions.first(), Some(Action::GenericKey { key, value })
        if (key.as_str(), value.as_str()) == SET_MARK)
}
