//! `HTTPRateLimitPolicy`: Envoy's HTTP rate limit filter, and what it asks about requests.
//!
//! On a Gateway or a listener, `filters` say who is asked, and `rateLimits` what (those of Envoy's
//! virtual host); on a route or a rule of one, `rateLimits` are the route's own. Names are taken both
//! in camel case and in snake case, as Envoy's own parser does.

pub(crate) mod action;
mod filter;
mod matchers;
mod rate_limit;
mod service;

use std::sync::Arc;

use serde::Deserialize;

use crate::policy::decode::At;
use crate::policy::envoy_gateway::targets::{self, RawTarget, RawTargets, TargetKind, Targets};
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::DescriptorRule;
use crate::policy::resource::{Deprecated, Meta};
use filter::RawFilter;
pub(crate) use filter::{Filter, Inline};
use rate_limit::{Place, RawRateLimit};
pub(crate) use service::Service;

const MAX_FILTERS: usize = 16;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawHttpRateLimitPolicy {
    target_refs: Option<At<Vec<At<RawTarget>>>>,
    filters: Option<At<Vec<At<RawFilter>>>>,
    #[serde(alias = "rate_limits")]
    rate_limits: Option<At<Vec<At<RawRateLimit>>>>,
    #[serde(alias = "vh_rate_limits")]
    vh_rate_limits: Option<At<RawVhRateLimits>>,
    domain: Option<At<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum RawVhRateLimits {
    Override,
    Include,
    Ignore,
    #[serde(rename = "OVERRIDE")]
    EnvoysOverride,
    #[serde(rename = "INCLUDE")]
    EnvoysInclude,
    #[serde(rename = "IGNORE")]
    EnvoysIgnore,
}

/// What a route makes of the `rateLimits` of its Gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FromAbove {
    /// They hold if it has none of its own.
    #[default]
    Override,
    /// They hold beside its own.
    Include,
    Ignore,
}

/// An HTTPRateLimitPolicy, checked by itself.
#[derive(Clone, Debug)]
pub(crate) struct AskPolicy {
    pub(crate) meta: Meta,
    pub(crate) targets: Targets,
    /// `None`: it says nothing of them.
    pub(crate) filters: Option<Vec<Filter>>,
    /// `None`: it says nothing of them.
    pub(crate) rate_limits: Option<Vec<Arc<DescriptorRule>>>,
    pub(crate) from_above: Option<FromAbove>,
    /// Instead of the filters'.
    pub(crate) domain: Option<String>,
    pub(crate) deprecated: Vec<Deprecated>,
}

/// Checks an HTTPRateLimitPolicy.
pub(crate) fn lower(
    raw: At<RawHttpRateLimitPolicy>,
    meta: Meta,
    scope: &mut Scope<'_>,
) -> AskPolicy {
    let At {
        value: mut raw,
        mark,
    } = raw;
    let mut deprecated = Vec::new();
    let targets = targets::lower(
        RawTargets {
            target_ref: None,
            target_refs: raw.target_refs.take(),
            target_selectors: None,
        },
        &meta.name.namespace,
        TargetKind::ALL,
        &mark,
        &mut deprecated,
        scope,
    );
    if raw.filters.is_none()
        && raw.rate_limits.is_none()
        && raw.vh_rate_limits.is_none()
        && raw.domain.is_none()
    {
        scope.warning(
            &mark,
            "neither `filters` nor `rateLimits`, so the policy asks nothing",
            "give it one of them, or remove it",
        );
    }
    check_levels(&raw, &targets, scope);
    let filters = raw.filters.map(|list| {
        scope.at_most(&list.mark, list.len(), MAX_FILTERS);
        let filters = list.value.into_iter().enumerate();
        let lowered = filters.filter_map(|(index, raw)| filter::lower(raw, (index, &meta), scope));
        lowered.collect()
    });
    AskPolicy {
        filters,
        rate_limits: raw
            .rate_limits
            .map(|list| rate_limit::lower(list, Place::Route, scope)),
        from_above: raw.vh_rate_limits.map(|at| match at.value {
            RawVhRateLimits::Override | RawVhRateLimits::EnvoysOverride => FromAbove::Override,
            RawVhRateLimits::Include | RawVhRateLimits::EnvoysInclude => FromAbove::Include,
            RawVhRateLimits::Ignore | RawVhRateLimits::EnvoysIgnore => FromAbove::Ignore,
        }),
        domain: raw.domain.and_then(|domain| filter::domain(domain, scope)),
        targets,
        deprecated,
        meta,
    }
}

/// Filters are a Gateway's; what is done with those of above is a route's.
fn check_levels(raw: &RawHttpRateLimitPolicy, targets: &Targets, scope: &mut Scope<'_>) {
    let any = |route: bool| {
        targets
            .refs
            .iter()
            .find(|target| target.kind.is_route() == route)
    };
    if let (Some(filters), Some(target)) = (&raw.filters, any(true)) {
        scope.error(
            &filters.mark,
            format!(
                "filters are not for the {} `{}`",
                target.kind.name(),
                target.name
            ),
            "put them into a policy for its Gateway, and only `rateLimits` into this one",
        );
    }
    if let Some(target) = any(false) {
        let of_routes: [(Option<&Mark>, &str); 2] = [
            (
                raw.vh_rate_limits.as_ref().map(|at| &at.mark),
                "vhRateLimits",
            ),
            (raw.domain.as_ref().map(|at| &at.mark), "domain"),
        ];
        for (mark, field) in of_routes {
            if let Some(mark) = mark {
                scope.error(
                    mark,
                    format!(
                        "`{field}` is not for the {} `{}`",
                        target.kind.name(),
                        target.name
                    ),
                    "put it into a policy for a route; filters have a `domain` of their own",
                );
            }
        }
    }
}
