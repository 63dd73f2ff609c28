//! Options of listeners, in a Gateway or in a `ListenerOption` or `HttpListenerOption` of their own.

use serde::Deserialize;

use super::references::{self, RawTargetRef, Target};
use super::settings::{self, RawServer, Server};
use super::tcp::{self, RawConnectionLimit, RawProxySettings, Tcp};
use super::token_bucket::{self, Bucket, NetworkBucket, RawTokenBucket};
use crate::policy::decode::{At, Ignored, Unheeded, Unsupported};
use crate::policy::findings::Scope;
use crate::policy::kinds::Kind;
use crate::policy::resource::Meta;

/// What options of listeners are for.
const GATEWAYS: [Kind; 2] = [Kind::GlooGateway, Kind::Gateway];

/// `ListenerOptions`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "all are told by the decoder")]
pub(super) struct RawListenerOptions {
    access_logging_service: Option<Unheeded>,
    listener_access_logging_service: Option<Unheeded>,
    extensions: Option<Ignored>,
    per_connection_buffer_limit_bytes: Option<Unheeded>,
    socket_options: Option<Unheeded>,
    proxy_protocol: Option<Unsupported>,
    connection_balance_config: Option<Unheeded>,
    tcp_stats: Option<Unheeded>,
}

/// `HttpListenerOptions`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
pub(super) struct RawHttpOptions {
    http_local_ratelimit: Option<At<RawLocal>>,
    network_local_ratelimit: Option<At<RawTokenBucket>>,
    ratelimit_server: Option<At<RawServer>>,
    extensions: Option<Ignored>,
    http_connection_manager_settings: Option<Unheeded>,
    grpc_web: Option<Unheeded>,
    grpc_json_transcoder: Option<Unsupported>,
    health_check: Option<Unsupported>,
    waf: Option<Unsupported>,
    dlp: Option<Unsupported>,
    wasm: Option<Unsupported>,
    extauth: Option<Unsupported>,
    ext_proc: Option<Unsupported>,
    disable_ext_proc: Option<Ignored>,
    gzip: Option<Unheeded>,
    proxy_latency: Option<Unheeded>,
    buffer: Option<Unsupported>,
    csrf: Option<Unsupported>,
    caching: Option<Unheeded>,
    sanitize_cluster_header: Option<Unheeded>,
    leftmost_xff_address: Option<Unsupported>,
    dynamic_forward_proxy: Option<Unsupported>,
    connection_limit: Option<Unsupported>,
    router: Option<Unheeded>,
    tap: Option<Unheeded>,
    stateful_session: Option<Unsupported>,
    header_validation_settings: Option<Unheeded>,
}

/// `httpLocalRatelimit`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawLocal {
    default_limit: Option<At<RawTokenBucket>>,
    local_rate_limit_per_downstream_connection: Option<bool>,
    #[serde(alias = "enableXRateLimitHeaders")]
    enable_x_ratelimit_headers: Option<bool>,
}

/// `TcpListenerOptions`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawTcpOptions {
    local_ratelimit: Option<At<RawTokenBucket>>,
    tcp_proxy_settings: Option<RawProxySettings>,
    connection_limit: Option<At<RawConnectionLimit>>,
}

/// What options of a listener of HTTP come to; what is `None` they do not say.
#[derive(Clone, Debug, Default)]
pub(crate) struct HttpOptions {
    pub(crate) local: Option<LocalLimits>,
    pub(crate) network: Option<NetworkBucket>,
    pub(crate) server: Option<Server>,
}

/// `httpLocalRatelimit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalLimits {
    /// `None`: only what is below has limits.
    pub(crate) bucket: Option<Bucket>,
    /// Clients are told of local limits, those of what is below included.
    pub(crate) headers: bool,
    /// Each connection has buckets of its own, also of the limits below.
    pub(crate) per_connection: bool,
}

/// Checks options of a listener of HTTP.
pub(super) fn http(raw: RawHttpOptions, namespace: &str, scope: &mut Scope<'_>) -> HttpOptions {
    HttpOptions {
        local: raw.http_local_ratelimit.map(|raw| local(raw, scope)),
        network: raw
            .network_local_ratelimit
            .and_then(|raw| token_bucket::network(raw, scope)),
        server: raw
            .ratelimit_server
            .and_then(|raw| settings::server(raw, namespace, scope)),
    }
}

/// Checks options of a listener of TCP, which has no hosts yet.
pub(super) fn tcp(raw: RawTcpOptions, scope: &mut Scope<'_>) -> Tcp {
    let limit = raw.local_ratelimit;
    let settings = raw.tcp_proxy_settings;
    Tcp {
        hosts: Vec::new(),
        limit: limit.and_then(|raw| token_bucket::network(raw, scope)),
        settings: settings
            .map(|raw| tcp::settings(raw, scope))
            .unwrap_or_default(),
        connections: raw
            .connection_limit
            .map(|raw| tcp::connections(raw, scope))
            .unwrap_or_default(),
    }
}

fn local(At { value: raw, mark }: At<RawLocal>, scope: &mut Scope<'_>) -> LocalLimits {
    let per_connection = raw.local_rate_limit_per_downstream_connection;
    let of_all = raw.enable_x_ratelimit_headers.is_some() || per_connection.is_some();
    if raw.default_limit.is_none() && !of_all {
        scope.warning(
            &mark,
            "without `defaultLimit` the gateway limits nothing by itself",
            "give it one, as `defaultLimit: {maxTokens: 100}`",
        );
    }
    LocalLimits {
        bucket: raw
            .default_limit
            .and_then(|raw| token_bucket::lower(raw, scope)),
        headers: raw.enable_x_ratelimit_headers.unwrap_or_default(),
        per_connection: per_connection.unwrap_or_default(),
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawHttpListenerOption {
    target_refs: Option<At<Vec<At<RawTargetRef>>>>,
    options: Option<RawHttpOptions>,
}

/// An `HttpListenerOption`, checked by itself.
#[derive(Clone, Debug)]
pub(crate) struct HttpListenerOption {
    pub(crate) meta: Meta,
    pub(crate) targets: Vec<Target>,
    pub(crate) options: HttpOptions,
}

/// Checks an `HttpListenerOption`.
pub(crate) fn lower_http(
    raw: At<RawHttpListenerOption>,
    meta: Meta,
    scope: &mut Scope<'_>,
) -> HttpListenerOption {
    let At { value: raw, mark } = raw;
    let namespace = &meta.name.namespace;
    let given = raw.target_refs.is_some();
    let targets = references::targets(raw.target_refs, &GATEWAYS, namespace, scope);
    if !given {
        scope.error(&mark, "it is for no gateway", "name one under `targetRefs`");
    }
    let options = raw.options.unwrap_or_default();
    HttpListenerOption {
        targets,
        options: http(options, namespace, scope),
        meta,
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawListenerOption {
    target_refs: Option<At<Vec<At<RawTargetRef>>>>,
    #[expect(dead_code, reason = "its fields are told by the decoder")]
    options: Option<RawListenerOptions>,
}

/// A `ListenerOption`, checked by itself: of its options none has an effect here.
#[derive(Clone, Debug)]
pub(crate) struct ListenerOption {
    pub(crate) meta: Meta,
    pub(crate) targets: Vec<Target>,
}

/// Checks a `ListenerOption`.
pub(crate) fn lower(
    raw: At<RawListenerOption>,
    meta: Meta,
    scope: &mut Scope<'_>,
) -> ListenerOption {
    let refs = raw.value.target_refs;
    let namespace = &meta.name.namespace;
    ListenerOption {
        targets: references::targets(refs, &GATEWAYS, namespace, scope),
        meta,
    }
}
