//! Options of routes, in the route or in a `RouteOption` of their own.

use std::time::Duration;

use http::HeaderValue;
use serde::Deserialize;

use super::balancer::{self, RawHash};
use super::references::{self, RawTargetRef, Target};
use super::traffic::{self, Headers, RawFaults, RawHeaders, RawRetries};
use super::virtual_host_options::{self, Limits, RawBasic, RawConfigs, RawLimits, RawRateLimit};
use crate::policy::decode::{At, Ignored, Unheeded, Unsupported};
use crate::policy::findings::Scope;
use crate::policy::gateway_api::route_match::exact_value;
use crate::policy::kinds::Kind;
use crate::policy::plan::{Fault, HashBy, Retry};
use crate::policy::resource::Meta;
use crate::policy::units;

/// `RouteOptions`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
pub(super) struct RawRouteOptions {
    ratelimit: Option<At<RawRateLimit>>,
    ratelimit_early: Option<At<RawRateLimit>>,
    ratelimit_regular: Option<At<RawRateLimit>>,
    rate_limit_configs: Option<RawConfigs>,
    rate_limit_early_configs: Option<RawConfigs>,
    rate_limit_regular_configs: Option<RawConfigs>,
    ratelimit_basic: Option<RawBasic>,
    timeout: Option<At<String>>,
    idle_timeout: Option<At<String>>,
    max_stream_duration: Option<Unsupported>,
    retries: Option<RawRetries>,
    faults: Option<RawFaults>,
    header_manipulation: Option<RawHeaders>,
    prefix_rewrite: Option<At<String>>,
    regex_rewrite: Option<Unsupported>,
    host_rewrite: Option<At<String>>,
    host_rewrite_header: Option<Unsupported>,
    host_rewrite_path_regex: Option<Unsupported>,
    auto_host_rewrite: Option<Unsupported>,
    append_x_forwarded_host: Option<Unheeded>,
    extensions: Option<Ignored>,
    envoy_metadata: Option<Unheeded>,
    tracing: Option<Unheeded>,
    shadowing: Option<Unsupported>,
    cors: Option<Unsupported>,
    lb_hash: Option<At<RawHash>>,
    upgrades: Option<Unheeded>,
    transformations: Option<Unsupported>,
    staged_transformations: Option<Unsupported>,
    waf: Option<Unsupported>,
    jwt: Option<Unsupported>,
    jwt_staged: Option<Unsupported>,
    jwt_providers_staged: Option<Unsupported>,
    rbac: Option<Unsupported>,
    extauth: Option<Unsupported>,
    dlp: Option<Unsupported>,
    csrf: Option<Unsupported>,
    ext_proc: Option<Unsupported>,
    ai: Option<Unsupported>,
    buffer_per_route: Option<Unsupported>,
    stateful_session: Option<Unsupported>,
}

/// Options of a route; what is `None` they do not say.
#[derive(Clone, Debug, Default)]
pub(crate) struct RouteOptions {
    pub(crate) limits: Limits,
    /// `Some(None)`: no bound.
    pub(crate) timeout: Option<Option<Duration>>,
    /// `Some(None)`: no bound.
    pub(crate) idle_timeout: Option<Option<Duration>>,
    pub(crate) retry: Option<Option<Retry>>,
    pub(crate) fault: Option<Fault>,
    pub(crate) headers: Option<Headers>,
    pub(crate) hash_by: Option<HashBy>,
    pub(crate) prefix_rewrite: Option<At<String>>,
    pub(crate) host_rewrite: Option<HeaderValue>,
}

impl RouteOptions {
    /// What it says besides limits, if anything.
    pub(crate) fn beyond_limits(&self) -> Option<&'static str> {
        let says = [
            (self.timeout.is_some(), "timeout"),
            (self.idle_timeout.is_some(), "idleTimeout"),
            (self.retry.is_some(), "retries"),
            (self.fault.is_some(), "faults"),
            (self.headers.is_some(), "headerManipulation"),
            (self.hash_by.is_some(), "lbHash"),
            (self.prefix_rewrite.is_some(), "prefixRewrite"),
            (self.host_rewrite.is_some(), "hostRewrite"),
        ];
        says.into_iter().find_map(|(is, name)| is.then_some(name))
    }

    /// These options; what they do not say, as `other` has it, but for local limits
    /// ([`Limits::or`]).
    pub(crate) fn or(&self, other: &Self) -> Self {
        Self {
            limits: self.limits.or(&other.limits),
            timeout: self.timeout.or(other.timeout),
            idle_timeout: self.idle_timeout.or(other.idle_timeout),
            retry: self.retry.clone().or_else(|| other.retry.clone()),
            fault: self.fault.clone().or_else(|| other.fault.clone()),
            headers: self.headers.clone().or_else(|| other.headers.clone()),
            hash_by: self.hash_by.clone().or_else(|| other.hash_by.clone()),
            prefix_rewrite: self
                .prefix_rewrite
                .clone()
                .or_else(|| other.prefix_rewrite.clone()),
            host_rewrite: self
                .host_rewrite
                .clone()
                .or_else(|| other.host_rewrite.clone()),
        }
    }
}

/// Checks options of a route.
pub(super) fn lower(raw: RawRouteOptions, namespace: &str, scope: &mut Scope<'_>) -> RouteOptions {
    let raw_limits = RawLimits {
        own: [raw.ratelimit, raw.ratelimit_early, raw.ratelimit_regular],
        configs: [
            raw.rate_limit_configs,
            raw.rate_limit_early_configs,
            raw.rate_limit_regular_configs,
        ],
        basic: raw.ratelimit_basic,
    };
    let mut bound = |text: &Option<At<String>>| {
        let text = text.as_ref()?;
        units::bound(text, scope)
    };
    let timeout = bound(&raw.timeout);
    let idle_timeout = bound(&raw.idle_timeout);
    RouteOptions {
        limits: virtual_host_options::limits(raw_limits, namespace, scope),
        timeout,
        idle_timeout,
        retry: raw.retries.map(|raw| traffic::retries(raw, scope)),
        fault: raw.faults.map(|raw| traffic::faults(raw, scope)),
        headers: raw
            .header_manipulation
            .map(|raw| traffic::headers(raw, scope)),
        hash_by: raw.lb_hash.and_then(|raw| balancer::hash_by(raw, scope)),
        prefix_rewrite: raw.prefix_rewrite.filter(|text| !text.is_empty()),
        host_rewrite: raw.host_rewrite.and_then(|text| exact_value(&text, scope)),
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawRouteOption {
    target_refs: Option<At<Vec<At<RawTargetRef>>>>,
    options: Option<RawRouteOptions>,
}

/// A `RouteOption`, checked by itself.
#[derive(Clone, Debug)]
pub(crate) struct RouteOption {
    pub(crate) meta: Meta,
    /// RouteTables whose routes it is for, besides the routes that refer to it; or HTTPRoutes.
    pub(crate) targets: Vec<Target>,
    pub(crate) options: RouteOptions,
}

/// Checks a `RouteOption`.
pub(crate) fn lower_option(
    raw: At<RawRouteOption>,
    meta: Meta,
    scope: &mut Scope<'_>,
) -> RouteOption {
    let raw = raw.value;
    let namespace = &meta.name.namespace;
    RouteOption {
        targets: references::targets(
            raw.target_refs,
            &[Kind::RouteTable, Kind::HttpRoute],
            namespace,
            scope,
        ),
        options: lower(raw.options.unwrap_or_default(), namespace, scope),
        meta,
    }
}
