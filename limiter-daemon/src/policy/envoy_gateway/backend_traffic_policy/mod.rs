//! `BackendTrafficPolicy`: rate limits, and how routes and their backends are treated besides.
//!
//! What else it may hold and changes no request is passed over with a warning; what would limit or
//! change requests is an error.

mod admission_control;
mod blocks;
mod circuit_breaker;
mod connections;
mod fault_injection;
pub(crate) mod health_check;
mod load_balancer;
mod merge;
mod numbers;
mod outlier;
pub(crate) mod response_override;
mod retry;
mod timeout;

use serde::Deserialize;

use super::rate_limit::{self, Limits, RawRateLimit};
use super::targets::{self, RawSelector, RawTarget, RawTargets, TargetKind, Targets};
use crate::policy::decode::{At, Unheeded, Unsupported};
use crate::policy::findings::Scope;
use crate::policy::resource::{Deprecated, Meta};
use admission_control::RawAdmissionControl;
pub(crate) use blocks::Blocks;
use blocks::{RawBlocks, RawRequestBuffer};
use circuit_breaker::RawCircuitBreaker;
use connections::{RawDns, RawTcpKeepalive};
use fault_injection::RawFault;
use health_check::RawHealthCheck;
use load_balancer::RawLoadBalancer;
use response_override::RawOverride;
use retry::RawRetry;
use timeout::RawTimeout;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "other fields are told by the decoder")]
pub(crate) struct RawBackendTrafficPolicy {
    target_ref: Option<At<RawTarget>>,
    target_refs: Option<At<Vec<At<RawTarget>>>>,
    target_selectors: Option<At<Vec<At<RawSelector>>>>,
    merge_type: Option<At<MergeType>>,
    rate_limit: Option<At<RawRateLimit>>,
    admission_control: Option<RawAdmissionControl>,
    bandwidth_limit: Option<Unsupported>,
    circuit_breaker: Option<RawCircuitBreaker>,
    compression: Option<Unheeded>,
    compressor: Option<Unheeded>,
    connection: Option<Unheeded>,
    dns: Option<RawDns>,
    fault_injection: Option<At<RawFault>>,
    health_check: Option<RawHealthCheck>,
    http2: Option<Unheeded>,
    http_upgrade: Option<Unheeded>,
    load_balancer: Option<At<RawLoadBalancer>>,
    proxy_protocol: Option<Unsupported>,
    request_buffer: Option<RawRequestBuffer>,
    response_override: Option<At<Vec<At<RawOverride>>>>,
    retry: Option<RawRetry>,
    routing_type: Option<Unheeded>,
    tcp_keepalive: Option<RawTcpKeepalive>,
    telemetry: Option<Unheeded>,
    timeout: Option<RawTimeout>,
    use_client_protocol: Option<Unheeded>,
}

/// How a route's policy and its parent's become one. Either way the rules of `rateLimit` are joined, and
/// of the other blocks what the route's policy does not say is as its parent says it.
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
    pub(crate) blocks: Blocks,
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
    let blocks = RawBlocks {
        circuit_breaker: raw.circuit_breaker,
        health_check: raw.health_check,
        load_balancer: raw.load_balancer,
        retry: raw.retry,
        timeout: raw.timeout,
        fault_injection: raw.fault_injection,
        response_override: raw.response_override,
        request_buffer: raw.request_buffer,
        admission_control: raw.admission_control,
        tcp_keepalive: raw.tcp_keepalive,
        dns: raw.dns,
    };
    let before = scope.errors();
    let blocks = blocks::lower(blocks, targets.only_grpc(), &meta, &mut deprecated, scope);
    let limits = match raw.rate_limit {
        Some(rate_limit) => rate_limit::lower(rate_limit, &meta, &mut deprecated, scope),
        None => {
            if blocks.is_empty() && scope.errors() == before {
                scope.warning(
                    &mark,
                    "no `rateLimit` and nothing else that is done, so the policy changes nothing",
                    "give it one, or remove the policy",
                );
            }
            Limits::default()
        }
    };
    TrafficPolicy {
        meta,
        targets,
        merge: raw.merge_type.map(|merge| merge.value),
        limits,
        blocks,
        deprecated,
    }
}
