//! `Settings`: the part about rate limits; and `ratelimitServer`, which a Gateway may have as well.

use std::time::Duration;

use serde::Deserialize;

use super::rate_limit::{self, RawDescriptor};
use super::references::{RawRef, Reference};
use super::set_descriptors::{self, RawSetDescriptor};
use crate::policy::decode::{At, Unheeded, Unsupported};
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::{Descriptor, SetRule};
use crate::policy::resource::Meta;
use crate::policy::units;

/// Gloo's default of `requestTimeout`.
const TIMEOUT: Duration = Duration::from_millis(100);
const MAX_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
pub(crate) struct RawSettings {
    ratelimit_server: Option<At<RawServer>>,
    ratelimit: Option<At<RawService>>,
    ratelimit_descriptors: Option<Unsupported>,
    cache: Option<Unheeded>,
    extauth: Option<Unheeded>,
    named_extauth: Option<Unheeded>,
    rbac: Option<Unsupported>,
    bind_addr: Option<Unheeded>,
    config_source: Option<Unheeded>,
    console_options: Option<Unheeded>,
    consul: Option<Unheeded>,
    consul_discovery: Option<Unheeded>,
    consul_kv_artifact_source: Option<Unheeded>,
    consul_kv_source: Option<Unheeded>,
    dev_mode: Option<Unheeded>,
    directory_artifact_source: Option<Unheeded>,
    directory_config_source: Option<Unheeded>,
    directory_secret_source: Option<Unheeded>,
    discovery: Option<Unheeded>,
    discovery_namespace: Option<Unheeded>,
    ext_proc: Option<Unheeded>,
    extensions: Option<Unheeded>,
    gateway: Option<Unheeded>,
    gloo: Option<Unheeded>,
    graphql_options: Option<Unheeded>,
    knative: Option<Unheeded>,
    kubernetes: Option<Unheeded>,
    kubernetes_artifact_source: Option<Unheeded>,
    kubernetes_config_source: Option<Unheeded>,
    kubernetes_secret_source: Option<Unheeded>,
    linkerd: Option<Unheeded>,
    observability_options: Option<Unheeded>,
    refresh_rate: Option<Unheeded>,
    secret_options: Option<Unheeded>,
    upstream_options: Option<Unheeded>,
    vault_secret_source: Option<Unheeded>,
    watch_namespaces: Option<Unheeded>,
    watch_namespace_selectors: Option<Unheeded>,
    caching_server: Option<Unheeded>,
}

/// `ratelimit`: what the server is configured with.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawService {
    descriptors: Option<Vec<At<RawDescriptor>>>,
    set_descriptors: Option<At<Vec<At<RawSetDescriptor>>>>,
}

/// `ratelimitServer`: who is asked, and how.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
pub(super) struct RawServer {
    ratelimit_server_ref: Option<RawRef>,
    request_timeout: Option<At<String>>,
    deny_on_fail: Option<bool>,
    #[serde(alias = "enableXRateLimitHeaders")]
    enable_x_ratelimit_headers: Option<bool>,
    /// There is no authentication that it could be before.
    rate_limit_before_auth: Option<Unheeded>,
    grpc_service: Option<Unsupported>,
}

/// Who is asked about global limits.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// The Upstream of a rate limit service; `None`: limiterd itself.
    pub(crate) upstream: Option<Reference>,
    pub(crate) timeout: Duration,
    /// Requests that it says nothing of are answered with 500.
    pub(crate) deny_on_fail: bool,
    pub(crate) headers: bool,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            upstream: None,
            timeout: TIMEOUT,
            deny_on_fail: false,
            headers: false,
        }
    }
}

/// `Settings`, checked by themselves.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) meta: Meta,
    pub(crate) server: Option<Server>,
    pub(crate) descriptors: Vec<Descriptor>,
    pub(crate) sets: Vec<SetRule>,
    pub(crate) mark: Mark,
}

/// Checks `Settings`.
pub(crate) fn lower(raw: At<RawSettings>, meta: Meta, scope: &mut Scope<'_>) -> Settings {
    let At { value: raw, mark } = raw;
    let server = raw.ratelimit_server;
    let (mut descriptors, mut sets) = (Vec::new(), Vec::new());
    if let Some(At { value: raw, .. }) = raw.ratelimit {
        descriptors = rate_limit::descriptors(raw.descriptors.unwrap_or_default(), scope);
        if let Some(list) = raw.set_descriptors {
            sets = set_descriptors::rules(list, scope);
        }
    }
    Settings {
        server: server.and_then(|raw| self::server(raw, &meta.name.namespace, scope)),
        descriptors,
        sets,
        mark,
        meta,
    }
}

/// Checks `ratelimitServer`; `None` after an error.
pub(super) fn server(
    At { value: raw, .. }: At<RawServer>,
    namespace: &str,
    scope: &mut Scope<'_>,
) -> Option<Server> {
    let timeout = match &raw.request_timeout {
        None => TIMEOUT,
        Some(text) => {
            let timeout = units::positive_duration(text, scope)?;
            if timeout > MAX_TIMEOUT {
                scope.error(
                    &text.mark,
                    format!("`{}` is too long for requests to wait", text.value),
                    "write 60s or less",
                );
                return None;
            }
            timeout
        }
    };
    Some(Server {
        upstream: raw.ratelimit_server_ref.map(|raw| raw.lower(namespace)),
        timeout,
        deny_on_fail: raw.deny_on_fail.unwrap_or_default(),
        headers: raw.enable_x_ratelimit_headers.unwrap_or_default(),
    })
}
