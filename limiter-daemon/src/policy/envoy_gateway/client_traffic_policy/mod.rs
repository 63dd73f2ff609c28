//! `ClientTrafficPolicy`: how clients are spoken to.

mod address;
mod headers;
mod timing;
mod tls;
mod versions;

use serde::Deserialize;

use super::targets::{self, RawSelector, RawTarget, RawTargets, TargetKind, Targets};
use crate::policy::decode::{At, NumberOrText, Unheeded, Unsupported};
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::{ClientSettings, ProxyProtocol};
use crate::policy::quantity;
use crate::policy::resource::{Deprecated, Meta};
use crate::policy::units;
pub(crate) use tls::{ClientTls, Validation};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "other fields are told by the decoder")]
pub(crate) struct RawClientTrafficPolicy {
    target_ref: Option<At<RawTarget>>,
    target_refs: Option<At<Vec<At<RawTarget>>>>,
    target_selectors: Option<At<Vec<At<RawSelector>>>>,
    tcp_keepalive: Option<RawKeepalive>,
    enable_proxy_protocol: Option<At<bool>>,
    proxy_protocol: Option<At<RawProxyProtocol>>,
    #[serde(rename = "clientIPDetection")]
    client_ip_detection: Option<At<address::RawDetection>>,
    tls: Option<tls::RawTls>,
    headers: Option<headers::RawHeaders>,
    timeout: Option<timing::RawTimeout>,
    connection: Option<timing::RawConnection>,
    http1: Option<versions::RawHttp1>,
    http2: Option<versions::RawHttp2>,
    /// limiterd's own.
    limiterd: Option<RawExtension>,
    grpc: Option<Unheeded>,
    health_check: Option<Unheeded>,
    http3: Option<Unheeded>,
    path: Option<Unsupported>,
    scheme: Option<Unheeded>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "fields without effect are told by the decoder")]
struct RawKeepalive {
    idle_time: Option<At<String>>,
    interval: Option<Unheeded>,
    probes: Option<Unheeded>,
}

#[derive(Debug, Deserialize)]
struct RawProxyProtocol {
    optional: Option<bool>,
}

/// Bounds that Envoy Gateway has no field for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawExtension {
    max_body: Option<At<NumberOrText>>,
    max_head: Option<At<NumberOrText>>,
    max_headers: Option<At<u32>>,
    head_timeout: Option<At<String>>,
    handshake_timeout: Option<At<String>>,
    connections_per_source: Option<At<u64>>,
}

/// A ClientTrafficPolicy, checked by itself.
#[derive(Clone, Debug)]
pub(crate) struct ClientPolicy {
    pub(crate) meta: Meta,
    pub(crate) targets: Targets,
    pub(crate) settings: ClientSettings,
    pub(crate) tls: ClientTls,
    pub(crate) deprecated: Vec<Deprecated>,
}

/// Checks a ClientTrafficPolicy.
pub(crate) fn lower(
    raw: At<RawClientTrafficPolicy>,
    meta: Meta,
    scope: &mut Scope<'_>,
) -> ClientPolicy {
    let At { value: raw, mark } = raw;
    let mut deprecated = Vec::new();
    let namespace = meta.name.namespace.clone();
    let targets = targets::lower(
        RawTargets {
            target_ref: raw.target_ref,
            target_refs: raw.target_refs,
            target_selectors: raw.target_selectors,
        },
        &namespace,
        TargetKind::ENTRIES,
        &mark,
        &mut deprecated,
        scope,
    );
    let mut settings = ClientSettings {
        policy: meta.name.to_string(),
        ..ClientSettings::default()
    };
    settings.proxy_protocol = proxy_protocol(
        raw.enable_proxy_protocol,
        raw.proxy_protocol,
        &mut deprecated,
    );
    if let Some(keepalive) = raw.tcp_keepalive {
        // What Linux waits before the first probe where nothing is said.
        const IDLE: std::time::Duration = std::time::Duration::from_secs(7200);
        settings.tcp_keepalive = match keepalive.idle_time {
            Some(text) => units::positive_duration(&text, scope),
            None => Some(IDLE),
        };
    }
    if let Some(detection) = raw.client_ip_detection {
        settings.client_address = address::lower(detection, scope);
    }
    if let Some(headers) = raw.headers {
        headers::lower(headers, &mut settings, &mut deprecated, scope);
    }
    if let Some(timeout) = raw.timeout {
        timing::lower_timeout(timeout, &mut settings.timeouts, scope);
    }
    if let Some(connection) = raw.connection {
        timing::lower_connection(connection, &mut settings.connections, scope);
    }
    if let Some(http1) = raw.http1 {
        versions::lower_http1(http1, &mut settings.http1);
    }
    if let Some(http2) = raw.http2 {
        versions::lower_http2(http2, &mut settings.http2, scope);
    }
    if let Some(extension) = raw.limiterd {
        lower_extension(extension, &mut settings, scope);
    }
    ClientPolicy {
        tls: raw
            .tls
            .map(|tls| tls::lower(tls, &meta, scope))
            .unwrap_or_default(),
        meta,
        targets,
        settings,
        deprecated,
    }
}

fn proxy_protocol(
    old: Option<At<bool>>,
    new: Option<At<RawProxyProtocol>>,
    deprecated: &mut Vec<Deprecated>,
) -> ProxyProtocol {
    let enabled = old.is_some_and(|old| {
        deprecated.push(Deprecated {
            mark: old.mark,
            field: "spec.enableProxyProtocol",
            instead: "spec.proxyProtocol",
        });
        old.value
    });
    match new {
        Some(new) if new.value.optional.unwrap_or_default() => ProxyProtocol::Optional,
        Some(_) => ProxyProtocol::Required,
        None if enabled => ProxyProtocol::Required,
        None => ProxyProtocol::Off,
    }
}

fn lower_extension(raw: RawExtension, settings: &mut ClientSettings, scope: &mut Scope<'_>) {
    if let Some(raw) = raw.max_body {
        settings.max_body = quantity::read(&raw, scope).or(settings.max_body);
    }
    if let Some(raw) = raw.max_head
        && let Some(bytes) = bounded_bytes(&raw, 1 << 10, 1 << 20, scope)
    {
        settings.http1.max_head = bytes;
    }
    if let Some(at) = raw.max_headers {
        if (1..=1000).contains(&at.value) {
            settings.http1.max_headers = at.value;
        } else {
            out_of_range(&at.mark, &at.value, 1, 1000, scope);
        }
    }
    if let Some(text) = raw.head_timeout
        && let Some(time) = units::positive_duration(&text, scope)
    {
        settings.timeouts.head = time;
    }
    if let Some(text) = raw.handshake_timeout
        && let Some(time) = units::positive_duration(&text, scope)
    {
        settings.timeouts.handshake = time;
    }
    if let Some(at) = raw.connections_per_source {
        settings.connections.max_per_source = at_least_one(&at, scope);
    }
}

fn out_of_range(
    mark: &Mark,
    value: &dyn std::fmt::Display,
    least: u64,
    most: u64,
    scope: &mut Scope<'_>,
) {
    scope.error(
        mark,
        format!("{value} is out of range"),
        format!("it may be {least} to {most}"),
    );
}

/// A number of bytes within bounds, or an error at it.
fn bounded_bytes(
    raw: &At<NumberOrText>,
    least: u32,
    most: u32,
    scope: &mut Scope<'_>,
) -> Option<u32> {
    let bytes = quantity::read(raw, scope)?;
    let found = u32::try_from(bytes)
        .ok()
        .filter(|bytes| (least..=most).contains(bytes));
    if found.is_none() {
        out_of_range(&raw.mark, &bytes, least.into(), most.into(), scope);
    }
    found
}

/// The number, if it is not 0; or else an error at it.
fn at_least_one(at: &At<u64>, scope: &mut Scope<'_>) -> Option<u64> {
    if at.value == 0 {
        scope.error(&at.mark, "0 would let nothing pass", "write 1 or more");
    }
    (at.value > 0).then_some(at.value)
}
