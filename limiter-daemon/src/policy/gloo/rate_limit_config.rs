//! `RateLimitConfig`: descriptors and the actions that lead to them, in one resource.

use std::sync::Arc;

use serde::Deserialize;

use super::rate_limit::{self, RawActions, RawDescriptor};
use crate::policy::decode::{At, Ignored};
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::{Descriptor, DescriptorRule};
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
    set_descriptors: Option<At<Vec<Ignored>>>,
}

/// A `RateLimitConfig`, checked by itself: a domain of its own.
#[derive(Clone, Debug)]
pub(crate) struct RateLimitConfig {
    pub(crate) meta: Meta,
    pub(crate) descriptors: Vec<Descriptor>,
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
    rate_limit::no_sets(raw.set_descriptors.as_ref(), "setDescriptors", scope);
    let descriptors = rate_limit::descriptors(raw.descriptors.unwrap_or_default(), scope);
    let actions = raw
        .rate_limits
        .map(|list| rate_limit::actions(list, scope))
        .unwrap_or_default();
    if descriptors.is_empty() != actions.is_empty() {
        let (there, gone) = if actions.is_empty() {
            ("descriptors", "rateLimits")
        } else {
            ("rateLimits", "descriptors")
        };
        scope.warning(
            &mark,
            format!("it has `{there}` and no `{gone}`, so it limits nothing"),
            format!("give it `{gone}`"),
        );
    }
    RateLimitConfig {
        meta,
        descriptors,
        actions,
        mark,
    }
}
