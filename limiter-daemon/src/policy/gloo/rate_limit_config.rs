//! `RateLimitConfig`: descriptors and the actions that lead to them, in one resource.

use std::sync::Arc;

use serde::Deserialize;

use super::rate_limit::{self, RawActions, RawDescriptor};
use super::set_descriptors::{self, RawSetDescriptor};
use crate::policy::decode::At;
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::{Descriptor, DescriptorRule, SetRule};
use crate::policy::resource::Meta;

#[derive(Debug, Deserialize)]
pub(crate) struct RawRateLimitConfig {
    raw: At<Raw>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    descriptors: Option<Vec<At<RawDescriptor>>>,
    rate_limits: Option<At<Vec<At<RawActions>>>>,
    set_descriptors: Option<At<Vec<At<RawSetDescriptor>>>>,
}

/// A `RateLimitConfig`, checked by itself: a domain of its own.
#[derive(Clone, Debug)]
pub(crate) struct RateLimitConfig {
    pub(crate) meta: Meta,
    pub(crate) descriptors: Vec<Descriptor>,
    pub(crate) sets: Vec<SetRule>,
    pub(crate) actions: Vec<Arc<DescriptorRule>>,
    pub(crate) mark: Mark,
}

/// Checks a `RateLimitConfig`.
pub(crate) fn lower(
    raw: At<RawRateLimitConfig>,
    meta: Meta,
    scope: &mut Scope<'_>,
) -> RateLimitConfig {
    let At { value: raw, mark } = raw.value.raw;
    let descriptors = rate_limit::descriptors(raw.descriptors.unwrap_or_default(), scope);
    let actions = raw
        .rate_limits
        .map(|list| rate_limit::actions(list, scope))
        .unwrap_or_default();
    let sets = raw
        .set_descriptors
        .map(|list| set_descriptors::rules(list, scope))
        .unwrap_or_default();
    let made = |sets: bool| {
        let mut rules = actions.iter();
        rules.any(|rule| rate_limit::makes_sets(rule) == sets)
    };
    let sides = [
        (
            !descriptors.is_empty(),
            "descriptors",
            made(false),
            "actions",
        ),
        (!sets.is_empty(), "setDescriptors", made(true), "setActions"),
    ];
    for (limits, of_limits, asks, of_asks) in sides {
        let (there, gone) = match (limits, asks) {
            (true, false) => (of_limits, of_asks),
            (false, true) => (of_asks, of_limits),
            _ => continue,
        };
        scope.warning(
            &mark,
            format!("it has `{there}` and no `{gone}`, so they limit nothing"),
            format!("give it `{gone}`"),
        );
    }
    RateLimitConfig {
        meta,
        descriptors,
        sets,
        actions,
        mark,
    }
}
