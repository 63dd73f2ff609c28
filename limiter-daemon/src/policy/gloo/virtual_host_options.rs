//! Options of virtual hosts, in a VirtualService or in a `VirtualHostOption` of their own; and the
//! rate limits that options of hosts and of routes have in common.

use std::sync::Arc;

use http::HeaderName;
use serde::Deserialize;

use super::rate_limit::{self, RawActions, RawLimit};
use super::references::{self, RawRef, RawTargetRef, Reference, Target};
use super::token_bucket::{self, Bucket, RawTokenBucket};
use super::traffic::{self, Headers, RawHeaders, RawRetries};
use crate::policy::decode::{At, Ignored, Unheeded, Unsupported};
use crate::policy::findings::Scope;
use crate::policy::gateway_api::route_match::header_name;
use crate::policy::kinds::Kind;
use crate::policy::plan::{DescriptorRule, Quota, Retry, Written};
use crate::policy::resource::Meta;

/// `VirtualHostOptions`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
pub(super) struct RawHostOptions {
    ratelimit: Option<At<RawRateLimit>>,
    ratelimit_early: Option<At<RawRateLimit>>,
    ratelimit_regular: Option<At<RawRateLimit>>,
    rate_limit_configs: Option<RawConfigs>,
    rate_limit_early_configs: Option<RawConfigs>,
    rate_limit_regular_configs: Option<RawConfigs>,
    ratelimit_basic: Option<RawBasic>,
    retries: Option<RawRetries>,
    header_manipulation: Option<RawHeaders>,
    extensions: Option<Ignored>,
    stats: Option<Unheeded>,
    cors: Option<Unsupported>,
    transformations: Option<Unsupported>,
    staged_transformations: Option<Unsupported>,
    waf: Option<Unsupported>,
    jwt: Option<Unsupported>,
    jwt_staged: Option<Unsupported>,
    rbac: Option<Unsupported>,
    extauth: Option<Unsupported>,
    dlp: Option<Unsupported>,
    csrf: Option<Unsupported>,
    ext_proc: Option<Unsupported>,
    buffer_per_route: Option<Unsupported>,
    include_request_attempt_count: Option<Unheeded>,
    include_attempt_count_in_response: Option<Unheeded>,
    stateful_session: Option<Unsupported>,
}

/// `ratelimit` of a host, or of a route.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawRateLimit {
    include_vh_rate_limits: Option<At<bool>>,
    rate_limits: Option<At<Vec<At<RawActions>>>>,
    local_ratelimit: Option<At<RawTokenBucket>>,
}

/// References to RateLimitConfigs.
#[derive(Debug, Deserialize)]
pub(super) struct RawConfigs {
    refs: Option<Vec<RawRef>>,
}

/// `ratelimitBasic`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawBasic {
    anonymous_limits: Option<At<RawLimit>>,
    authorized_limits: Option<At<RawLimit>>,
    limiterd: Option<RawExtension>,
}

/// What limiterd has beyond Gloo: how it knows who is authorized.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawExtension {
    authorized_by: RawAuthorizedBy,
}

#[derive(Debug, Deserialize)]
struct RawAuthorizedBy {
    header: At<String>,
}

/// Limits on clients: on each user, and on each address of those that are none.
#[derive(Clone, Debug)]
pub(crate) struct Basic {
    /// Of each client address without a user; `None`: no limit.
    pub(crate) anonymous: Option<WrittenQuota>,
    /// The header that says who a user is, and the limit on each; `None`: there are no users.
    pub(crate) authorized: Option<(HeaderName, Option<WrittenQuota>)>,
}

/// A quota, and where it is written.
type WrittenQuota = (Quota, Option<Arc<Written>>);

/// All that options may say of rate limits.
pub(super) struct RawLimits {
    /// `ratelimit`, `ratelimitEarly`, `ratelimitRegular`.
    pub(super) own: [Option<At<RawRateLimit>>; 3],
    pub(super) configs: [Option<RawConfigs>; 3],
    pub(super) basic: Option<RawBasic>,
}

/// Rate limits of a host or of a route; what is `None` they do not say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    pub(crate) local: Option<Bucket>,
    pub(crate) actions: Option<Vec<Arc<DescriptorRule>>>,
    /// Of a route: those of its host hold beside its own.
    pub(crate) include_host: Option<At<bool>>,
    pub(crate) configs: Option<Vec<Reference>>,
    pub(crate) basic: Option<Basic>,
}

impl Limits {
    /// These limits; what they do not say, as `other` has it. Local limits are not among that: which
    /// of them holds is decided by where they stand.
    pub(crate) fn or(&self, other: &Self) -> Self {
        Self {
            local: self.local.clone(),
            actions: self.actions.clone().or_else(|| other.actions.clone()),
            include_host: self
                .include_host
                .clone()
                .or_else(|| other.include_host.clone()),
            configs: self.configs.clone().or_else(|| other.configs.clone()),
            basic: self.basic.clone().or_else(|| other.basic.clone()),
        }
    }
}

/// Checks them. There is no authentication, so those before it and those after it are alike.
pub(super) fn limits(raw: RawLimits, namespace: &str, scope: &mut Scope<'_>) -> Limits {
    let mut limits = Limits::default();
    for raw in raw.own.into_iter().flatten() {
        let At { value: raw, mark } = raw;
        if let Some(raw) = raw.local_ratelimit {
            let before = limits.local.take();
            if before.is_some() {
                scope.error(&mark, "a second `localRatelimit`", "keep one of them");
            }
            limits.local = token_bucket::lower(raw, scope);
        }
        if let Some(list) = raw.rate_limits {
            let actions = limits.actions.get_or_insert_default();
            actions.extend(rate_limit::actions(list, scope));
        }
        limits.include_host = limits.include_host.or(raw.include_vh_rate_limits);
    }
    for raw in raw.configs.into_iter().flatten() {
        let configs = limits.configs.get_or_insert_default();
        let refs = raw.refs.unwrap_or_default();
        configs.extend(refs.into_iter().map(|raw| raw.lower(namespace)));
    }
    limits.basic = raw.basic.and_then(|raw| basic(raw, scope));
    limits
}

/// Checks `ratelimitBasic`; `None`: it says nothing, or after an error.
fn basic(raw: RawBasic, scope: &mut Scope<'_>) -> Option<Basic> {
    let RawBasic {
        anonymous_limits,
        authorized_limits,
        limiterd,
    } = raw;
    if let Some(at) = authorized_limits.as_ref().filter(|_| limiterd.is_none()) {
        scope.error(
            &at.mark,
            "limiterd does not know who is authorized",
            "say which header has the user, as `limiterd: {authorizedBy: {header: x-user-id}}` \
             beside it; what is in front must set it, and take away what clients send",
        );
    }
    let mut quota = |raw: Option<At<RawLimit>>| match raw {
        None => Some(None),
        Some(raw) => {
            let quota = rate_limit::quota(&raw, scope)?;
            Some(Some((quota, scope.written(&raw.mark))))
        }
    };
    let (anonymous, authorized) = (quota(anonymous_limits), quota(authorized_limits));
    let (anonymous, authorized) = (anonymous?, authorized?);
    let header = match limiterd {
        None => None,
        Some(extension) => {
            let at = &extension.authorized_by.header;
            if anonymous.is_none() && authorized.is_none() {
                scope.warning(
                    &at.mark,
                    "it has no effect without limits",
                    "give the block `authorizedLimits`, or `anonymousLimits`",
                );
            }
            Some(header_name(at, scope)?)
        }
    };
    (anonymous.is_some() || authorized.is_some()).then(|| Basic {
        anonymous,
        authorized: header.map(|header| (header, authorized)),
    })
}

/// Options of a virtual host; what is `None` they do not say.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostOptions {
    pub(crate) limits: Limits,
    pub(crate) retry: Option<Option<Retry>>,
    pub(crate) headers: Option<Headers>,
}

impl HostOptions {
    /// What it says besides limits, if anything.
    pub(crate) fn beyond_limits(&self) -> Option<&'static str> {
        let says = [
            (self.retry.is_some(), "retries"),
            (self.headers.is_some(), "headerManipulation"),
        ];
        says.into_iter().find_map(|(is, name)| is.then_some(name))
    }
}

/// Checks options of a host.
pub(super) fn lower(raw: RawHostOptions, namespace: &str, scope: &mut Scope<'_>) -> HostOptions {
    let raw_limits = RawLimits {
        own: [raw.ratelimit, raw.ratelimit_early, raw.ratelimit_regular],
        configs: [
            raw.rate_limit_configs,
            raw.rate_limit_early_configs,
            raw.rate_limit_regular_configs,
        ],
        basic: raw.ratelimit_basic,
    };
    let limits = limits(raw_limits, namespace, scope);
    if let Some(at) = &limits.include_host {
        scope.error(
            &at.mark,
            "`includeVhRateLimits` is for routes",
            "remove it: these are the virtual host's",
        );
    }
    HostOptions {
        limits,
        retry: raw.retries.map(|raw| traffic::retries(raw, scope)),
        headers: raw
            .header_manipulation
            .map(|raw| traffic::headers(raw, scope)),
    }
}

/// What a `VirtualHostOption` is for.
const HOSTS: [Kind; 2] = [Kind::VirtualService, Kind::Gateway];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawVirtualHostOption {
    target_refs: Option<At<Vec<At<RawTargetRef>>>>,
    options: Option<RawHostOptions>,
}

/// A `VirtualHostOption`, checked by itself.
#[derive(Clone, Debug)]
pub(crate) struct VirtualHostOption {
    pub(crate) meta: Meta,
    /// VirtualServices that it is for, besides those that refer to it; or Gateways of Gateway API.
    pub(crate) targets: Vec<Target>,
    pub(crate) options: HostOptions,
}

/// Checks a `VirtualHostOption`.
pub(crate) fn lower_option(
    raw: At<RawVirtualHostOption>,
    meta: Meta,
    scope: &mut Scope<'_>,
) -> VirtualHostOption {
    let raw = raw.value;
    let namespace = &meta.name.namespace;
    VirtualHostOption {
        targets: references::targets(raw.target_refs, &HOSTS, namespace, scope),
        options: lower(raw.options.unwrap_or_default(), namespace, scope),
        meta,
    }
}
