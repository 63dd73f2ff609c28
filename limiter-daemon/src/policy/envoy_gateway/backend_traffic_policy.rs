//! `BackendTrafficPolicy`: so far, its rate limits.
//!
//! What else it may hold and limits nothing is passed over with a warning; what would limit or change
//! requests is an error.

use serde::Deserialize;

use super::rate_limit::{self, Limits, RawRateLimit};
use super::targets::{self, RawSelector, RawTarget, RawTargets, TargetKind, Targets};
use crate::policy::decode::{At, Unheeded, Unsupported};
use crate::policy::findings::Scope;
use crate::policy::resource::{Deprecated, Meta};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "other fields are told by the decoder")]
pub(crate) struct RawBackendTrafficPolicy {
    target_ref: Option<At<RawTarget>>,
    target_refs: Option<At<Vec<At<RawTarget>>>>,
    target_selectors: Option<At<Vec<At<RawSelector>>>>,
    merge_type: Option<At<MergeType>>,
    rate_limit: Option<At<RawRateLimit>>,
    admission_control: Option<Unsupported>,
    bandwidth_limit: Option<Unsupported>,
    circuit_breaker: Option<Unheeded>,
    compression: Option<Unheeded>,
    compressor: Option<Unheeded>,
    connection: Option<Unheeded>,
    dns: Option<Unheeded>,
    fault_injection: Option<Unsupported>,
    health_check: Option<Unheeded>,
    http2: Option<Unheeded>,
    http_upgrade: Option<Unheeded>,
    load_balancer: Option<Unheeded>,
    proxy_protocol: Option<Unsupported>,
    request_buffer: Option<Unsupported>,
    response_override: Option<Unsupported>,
    retry: Option<Unheeded>,
    routing_type: Option<Unheeded>,
    tcp_keepalive: Option<Unheeded>,
    telemetry: Option<Unheeded>,
    timeout: Option<Unheeded>,
    use_client_protocol: Option<Unheeded>,
}

/// How a route's policy and its parent's become one. Either way the rules of `rateLimit` are joined,
/// which is all that a policy has so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum MergeType {
    StrategicMerge,
    #[serde(rename = "JSONMerge")]
    JsonMerge,
}

/// A BackendTrafficPolicy, checked by itself.
#[derive(Clone, Debug)]
pub(crate) struct TrafficPolicy {
    pub(crate) meta: Meta,
    pub(crate) targets: Targets,
    /// Joined with the policy of the closest parent, which it would replace otherwise.
    pub(crate) merge: Option<MergeType>,
    pub(crate) limits: Limits,
    pub(crate) deprecated: Vec<Deprecated>,
}

/// Checks a BackendTrafficPolicy.
pub(crate) fn lower(
    raw: At<RawBackendTrafficPolicy>,
    meta: Meta,
    scope: &mut Scope<'_>,
) -> TrafficPolicy {
    let At { value: raw, mark } = raw;
    let mut deprecated = Vec::new();
    let targets = RawTargets {
        target_ref: raw.target_ref,
        target_refs: raw.target_refs,
        target_selectors: raw.target_selectors,
    };
    let namespace = meta.name.namespace.clone();
    let targets = targets::lower(
        targets,
        &namespace,
        TargetKind::ALL,
        &mark,
        &mut deprecated,
        scope,
    );
    if let Some(merge) = &raw.merge_type {
        let of_routes = targets.refs.iter().all(|target| target.kind.is_route())
            && targets.selectors.iter().all(|by| by.kind.is_route());
        if !of_routes {
            scope.error(
                &merge.mark,
                "`mergeType` joins a route's policy with its Gateway's, and a target is no route",
                "remove it, or give the routes a policy of their own",
            );
        }
    }
    let limits = match raw.rate_limit {
        Some(rate_limit) => rate_limit::lower(rate_limit, &meta, &mut deprecated, scope),
        None => {
            scope.warning(
                &mark,
                "no `rateLimit`, so the policy limits nothing",
                "give it one, or remove the policy",
            );
            Limits::default()
        }
    };
    TrafficPolicy {
        meta,
        targets,
        merge: raw.merge_type.map(|merge| merge.value),
        limits,
        deprecated,
    }
}
