//! `BackendTrafficPolicy`: so far, its local rate limits.

use serde::Deserialize;

use super::local_limit::{self, RawLocal};
use crate::policy::decode::{At, Unsupported};
use crate::policy::findings::{Mark, Scope};
use crate::policy::gateway_api;
use crate::policy::plan::PolicyLimits;
use crate::policy::resource::{Meta, Name};

const MAX_TARGETS: usize = 16;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
pub(crate) struct RawBackendTrafficPolicy {
    target_ref: Option<At<RawTarget>>,
    target_refs: Option<At<Vec<At<RawTarget>>>>,
    rate_limit: Option<At<RawRateLimit>>,
    admission_control: Option<Unsupported>,
    bandwidth_limit: Option<Unsupported>,
    circuit_breaker: Option<Unsupported>,
    compression: Option<Unsupported>,
    compressor: Option<Unsupported>,
    connection: Option<Unsupported>,
    dns: Option<Unsupported>,
    fault_injection: Option<Unsupported>,
    health_check: Option<Unsupported>,
    http2: Option<Unsupported>,
    http_upgrade: Option<Unsupported>,
    load_balancer: Option<Unsupported>,
    merge_type: Option<Unsupported>,
    proxy_protocol: Option<Unsupported>,
    request_buffer: Option<Unsupported>,
    response_override: Option<Unsupported>,
    retry: Option<Unsupported>,
    routing_type: Option<Unsupported>,
    target_selectors: Option<Unsupported>,
    tcp_keepalive: Option<Unsupported>,
    telemetry: Option<Unsupported>,
    timeout: Option<Unsupported>,
    use_client_protocol: Option<Unsupported>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawTarget {
    group: At<String>,
    kind: At<String>,
    name: At<String>,
    section_name: Option<Unsupported>,
}

#[derive(Debug, Deserialize)]
struct RawRateLimit {
    #[serde(rename = "type")]
    kind: Option<At<RateLimitType>>,
    local: Option<At<RawLocal>>,
    global: Option<Unsupported>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum RateLimitType {
    Local,
    Global,
}

/// What a policy may be attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TargetKind {
    Gateway,
    HttpRoute,
}

impl TargetKind {
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Gateway => "Gateway",
            Self::HttpRoute => "HTTPRoute",
        }
    }
}

/// What a policy is attached to.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) kind: TargetKind,
    pub(crate) name: Name,
    pub(crate) mark: Mark,
}

/// A BackendTrafficPolicy, checked by itself.
#[derive(Clone, Debug)]
pub(crate) struct TrafficPolicy {
    pub(crate) meta: Meta,
    pub(crate) targets: Vec<Target>,
    pub(crate) limits: Option<PolicyLimits>,
}

/// Checks a BackendTrafficPolicy.
pub(crate) fn lower(
    raw: At<RawBackendTrafficPolicy>,
    meta: Meta,
    scope: &mut Scope<'_>,
) -> TrafficPolicy {
    let At { value: raw, mark } = raw;
    let targets = targets(raw.target_ref, raw.target_refs, &meta, &mark, scope);
    let limits = match raw.rate_limit {
        Some(rate_limit) => limits(rate_limit, &meta, scope),
        None => {
            scope.warning(
                &mark,
                "no `rateLimit`, so the policy limits nothing",
                "give it one, or remove the policy",
            );
            None
        }
    };
    TrafficPolicy {
        meta,
        targets,
        limits,
    }
}

fn targets(
    one: Option<At<RawTarget>>,
    many: Option<At<Vec<At<RawTarget>>>>,
    meta: &Meta,
    spec: &Mark,
    scope: &mut Scope<'_>,
) -> Vec<Target> {
    let list = match (one, many) {
        (Some(one), None) => vec![one],
        (None, Some(many)) => {
            scope.at_most(&many.mark, many.len(), MAX_TARGETS);
            many.value
        }
        (Some(one), Some(_)) => {
            scope.error(
                &one.mark,
                "both `targetRef` and `targetRefs` are given",
                "keep `targetRefs`",
            );
            return Vec::new();
        }
        (None, None) => Vec::new(),
    };
    if list.is_empty() {
        scope.error(
            spec,
            "no `targetRefs`, so the policy applies to nothing",
            "name a Gateway or an HTTPRoute",
        );
    }
    list.into_iter()
        .filter_map(|target| lower_target(target.value, meta, scope))
        .collect()
}

fn lower_target(raw: RawTarget, meta: &Meta, scope: &mut Scope<'_>) -> Option<Target> {
    let kind = match (raw.group.as_str(), raw.kind.as_str()) {
        (gateway_api::GROUP, "Gateway") => TargetKind::Gateway,
        (gateway_api::GROUP, "HTTPRoute") => TargetKind::HttpRoute,
        (gateway_api::GROUP, other) => {
            let message = format!("`{other}` cannot be a target here");
            scope.error(
                &raw.kind.mark,
                message,
                "name a `Gateway` or an `HTTPRoute`",
            );
            return None;
        }
        (other, _) => {
            let message = format!("nothing of the group `{other}` can be a target");
            scope.error(
                &raw.group.mark,
                message,
                format!("write `{}`", gateway_api::GROUP),
            );
            return None;
        }
    };
    Some(Target {
        kind,
        name: Name::new(&meta.name.namespace, &raw.name),
        mark: raw.name.mark,
    })
}

fn limits(raw: At<RawRateLimit>, meta: &Meta, scope: &mut Scope<'_>) -> Option<PolicyLimits> {
    let At { value: raw, mark } = raw;
    if let Some(kind) = raw.kind.filter(|kind| kind.value == RateLimitType::Global) {
        scope.error(
            &kind.mark,
            "`Global` limits are not supported yet",
            "write `Local` and give `local` rules",
        );
    }
    match raw.local {
        Some(local) => local_limit::lower(local, meta, scope),
        None if raw.global.is_some() => None,
        None => {
            scope.error(
                &mark,
                "`local` is missing, so nothing would be limited",
                "give it `local` with `rules`",
            );
            None
        }
    }
}
