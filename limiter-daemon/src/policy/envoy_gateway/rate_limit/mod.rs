//! `rateLimit` of a BackendTrafficPolicy: `local` and `global` rules.

mod extension;
mod lease;
mod rule;
mod selectors;

use serde::Deserialize;

use crate::policy::decode::At;
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::{LimitRule, PolicyLimits};
use crate::policy::resource::{Deprecated, Meta};
use rule::{RawRule, Store};
pub(crate) use selectors::cidr;

const MAX_LOCAL_RULES: usize = 16;
const MAX_GLOBAL_RULES: usize = 256;

#[derive(Debug, Deserialize)]
pub(super) struct RawRateLimit {
    #[serde(rename = "type")]
    kind: Option<At<RateLimitType>>,
    local: Option<At<RawRules>>,
    global: Option<At<RawRules>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum RateLimitType {
    Local,
    Global,
}

#[derive(Debug, Deserialize)]
struct RawRules {
    rules: Option<At<Vec<At<RawRule>>>>,
}

/// The limits that one policy holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    pub(crate) local: Option<PolicyLimits>,
    pub(crate) global: Option<PolicyLimits>,
}

/// Checks `rateLimit`.
pub(super) fn lower(
    raw: At<RawRateLimit>,
    meta: &Meta,
    deprecated: &mut Vec<Deprecated>,
    scope: &mut Scope<'_>,
) -> Limits {
    let At { value: raw, mark } = raw;
    if let Some(kind) = &raw.kind {
        check_type(kind, &raw, deprecated, scope);
    }
    if raw.local.is_none() && raw.global.is_none() {
        scope.error(
            &mark,
            "neither `local` nor `global`, so nothing would be limited",
            "give it one of them, with `rules`",
        );
    }
    Limits {
        local: raw.local.and_then(|local| local_rules(local, meta, scope)),
        global: raw
            .global
            .and_then(|global| global_rules(global, meta, scope)),
    }
}

/// `type` has no meaning of its own any more, but must not contradict what is there.
fn check_type(
    kind: &At<RateLimitType>,
    raw: &RawRateLimit,
    deprecated: &mut Vec<Deprecated>,
    scope: &mut Scope<'_>,
) {
    deprecated.push(Deprecated {
        mark: kind.mark.clone(),
        field: "spec.rateLimit.type",
        instead: "spec.rateLimit.local and/or spec.rateLimit.global",
    });
    let (there, name) = match kind.value {
        RateLimitType::Local => (raw.local.is_some(), "local"),
        RateLimitType::Global => (raw.global.is_some(), "global"),
    };
    if !there {
        scope.error(
            &kind.mark,
            format!("the type is `{:?}`, but there is no `{name}`", kind.value),
            format!("give it `{name}` with `rules`, or remove `type`"),
        );
    }
}

/// The rules of a block, of which there must be one; `None` after an error.
fn some_rules(raw: At<RawRules>, most: usize, scope: &mut Scope<'_>) -> Option<Vec<At<RawRule>>> {
    let Some(list) = raw.value.rules.filter(|rules| !rules.is_empty()) else {
        scope.error(
            &raw.mark,
            "no `rules`, so nothing would be limited",
            "give it a rule with a `limit`",
        );
        return None;
    };
    scope.at_most(&list.mark, list.len(), most);
    Some(list.value)
}

fn local_rules(raw: At<RawRules>, meta: &Meta, scope: &mut Scope<'_>) -> Option<PolicyLimits> {
    let list = some_rules(raw, MAX_LOCAL_RULES, scope)?;
    let mut rules = Vec::new();
    let mut default: Option<LimitRule> = None;
    let mut first: Option<usize> = None;
    for (index, raw) in list.into_iter().enumerate() {
        let everybody = raw.value.selects_everything();
        let mark = raw.mark.clone();
        let lowered = rule::lower(raw, index, Store::Local, meta, scope);
        if !everybody {
            rules.extend(lowered);
            continue;
        }
        if let Some(first) = first {
            second_default(&mark, first, scope);
        } else {
            (first, default) = (Some(index), lowered);
        }
    }
    Some(PolicyLimits {
        policy: meta.name.to_string(),
        rules,
        default,
    })
}

fn second_default(mark: &Mark, first: usize, scope: &mut Scope<'_>) {
    scope.error(
        mark,
        format!("a second rule without `clientSelectors`; rule {first} is the first"),
        "keep one: it is the limit of the requests that no other rule matches",
    );
}

fn global_rules(raw: At<RawRules>, meta: &Meta, scope: &mut Scope<'_>) -> Option<PolicyLimits> {
    let list = some_rules(raw, MAX_GLOBAL_RULES, scope)?;
    let rules = list
        .into_iter()
        .enumerate()
        .filter_map(|(index, raw)| rule::lower(raw, index, Store::Global, meta, scope))
        .collect();
    Some(PolicyLimits {
        policy: meta.name.to_string(),
        rules,
        default: None,
    })
}
