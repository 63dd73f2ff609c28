//! `Backend`: endpoints outside a cluster.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;

use crate::policy::decode::{At, Ignored, Unsupported};
use crate::policy::findings::{Mark, Scope};
use crate::policy::gateway_api::hostname::is_domain;
use crate::policy::gateway_api::references::{ObjectRef, RawObjectRef};
use crate::policy::plan::{Endpoint, UpstreamProtocol};
use crate::policy::resource::Meta;
use crate::policy::suggest;

const MAX_ENDPOINTS: usize = 64;
/// `sun_path` less the zero at the end.
const MAX_SOCKET_PATH: usize = 107;
const H2C: &str = "gateway.envoyproxy.io/h2c";
const WS: &str = "gateway.envoyproxy.io/ws";
const WSS: &str = "gateway.envoyproxy.io/wss";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
pub(crate) struct RawBackend {
    #[serde(rename = "type")]
    kind: Option<At<RawType>>,
    endpoints: Option<At<Vec<At<RawEndpoint>>>>,
    app_protocols: Option<At<Vec<At<String>>>>,
    tls: Option<At<RawTls>>,
    fallback: Option<Unsupported>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum RawType {
    Endpoints,
    DynamicResolver,
}

#[derive(Debug, Deserialize)]
#[expect(
    dead_code,
    reason = "all fields that a file may have are named, so that no other passes"
)]
struct RawEndpoint {
    ip: Option<RawIp>,
    fqdn: Option<RawFqdn>,
    unix: Option<RawUnix>,
    hostname: Option<Unsupported>,
    zone: Option<Ignored>,
}

#[derive(Debug, Deserialize)]
struct RawIp {
    address: At<String>,
    port: At<u16>,
}

#[derive(Debug, Deserialize)]
struct RawFqdn {
    hostname: At<String>,
    port: At<u16>,
}

#[derive(Debug, Deserialize)]
struct RawUnix {
    path: At<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawTls {
    ca_certificate_refs: Option<At<Vec<RawObjectRef>>>,
    #[serde(rename = "wellKnownCACertificates")]
    well_known: Option<WellKnown>,
    insecure_skip_verify: Option<At<bool>>,
    sni: Option<At<String>>,
    alpn_protocols: Option<Unsupported>,
    auto_sni: Option<Unsupported>,
    ciphers: Option<Unsupported>,
    client_certificate_ref: Option<Unsupported>,
    #[serde(rename = "ecdhCurves")]
    ecdh_curves: Option<Unsupported>,
    max_version: Option<Unsupported>,
    min_version: Option<Unsupported>,
    signature_algorithms: Option<Unsupported>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum WellKnown {
    System,
}

/// A Backend, checked by itself.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    pub(crate) meta: Meta,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) protocol: UpstreamProtocol,
    pub(crate) tls: Option<BackendTls>,
}

/// TLS to the endpoints, with references for the authorities.
#[derive(Clone, Debug)]
pub(crate) struct BackendTls {
    pub(crate) server_name: Option<String>,
    /// Empty: those of the system.
    pub(crate) authorities: Vec<ObjectRef>,
    pub(crate) insecure: bool,
}

/// Checks a Backend.
pub(crate) fn lower(raw: At<RawBackend>, meta: Meta, scope: &mut Scope<'_>) -> Backend {
    let At { value: raw, mark } = raw;
    if let Some(kind) = raw.kind.filter(|at| at.value == RawType::DynamicResolver) {
        scope.error(
            &kind.mark,
            "`DynamicResolver` is not supported yet",
            "list the `endpoints`",
        );
    }
    let place = raw.endpoints.as_ref().map_or(&mark, |list| &list.mark);
    if raw.endpoints.as_ref().is_none_or(|list| list.is_empty()) {
        scope.error(
            place,
            "no endpoints, so requests would go nowhere",
            "give it an `ip`, an `fqdn` or a `unix` socket",
        );
    }
    let mut endpoints = Vec::new();
    if let Some(list) = raw.endpoints {
        scope.at_most(&list.mark, list.len(), MAX_ENDPOINTS);
        endpoints.extend(
            list.value
                .into_iter()
                .filter_map(|endpoint| lower_endpoint(endpoint, scope)),
        );
    }
    let (protocol, wss) = protocol(raw.app_protocols, scope);
    let tls = raw.tls.map(|tls| lower_tls(tls, &meta, scope));
    if let Some(mark) = wss.filter(|_| tls.is_none()) {
        scope.error(
            &mark,
            "`wss` is WebSocket over TLS",
            "give the Backend `tls`",
        );
    }
    Backend {
        meta,
        endpoints,
        protocol,
        tls,
    }
}

fn lower_endpoint(raw: At<RawEndpoint>, scope: &mut Scope<'_>) -> Option<Endpoint> {
    let At { value: raw, mark } = raw;
    match (raw.ip, raw.fqdn, raw.unix) {
        (Some(ip), None, None) => {
            let address = ip.address.parse::<IpAddr>().ok();
            if address.is_none() {
                let message = format!("`{}` is not an IP address", ip.address.value);
                scope.error(
                    &ip.address.mark,
                    message,
                    "write an address here, or a name under `fqdn`",
                );
            }
            let port = port(&ip.port, scope);
            Some(Endpoint::Ip(address?, port?))
        }
        (None, Some(fqdn), None) => {
            let name = fqdn.hostname.to_ascii_lowercase();
            let valid = is_domain(&name) && name.parse::<IpAddr>().is_err();
            if !valid {
                let message = format!("`{}` is not a hostname", fqdn.hostname.value);
                scope.error(
                    &fqdn.hostname.mark,
                    message,
                    "write a name here, or an address under `ip`",
                );
            }
            let port = port(&fqdn.port, scope);
            Some(Endpoint::Fqdn(valid.then_some(name)?, port?))
        }
        (None, None, Some(unix)) => {
            let path = &unix.path;
            if !path.starts_with('/') || path.len() > MAX_SOCKET_PATH || path.contains('\0') {
                scope.error(
                    &path.mark,
                    format!("`{}` is not the path of a socket", path.value),
                    format!("write an absolute path of at most {MAX_SOCKET_PATH} bytes"),
                );
                return None;
            }
            Some(Endpoint::Unix(PathBuf::from(unix.path.value)))
        }
        (None, None, None) => {
            scope.error(
                &mark,
                "neither `ip`, `fqdn` nor `unix` is given",
                "give it one of them",
            );
            None
        }
        _ => {
            scope.error(
                &mark,
                "more than one of `ip`, `fqdn` and `unix` is given",
                "keep one of them",
            );
            None
        }
    }
}

fn port(port: &At<u16>, scope: &mut Scope<'_>) -> Option<u16> {
    if port.value == 0 {
        scope.error(&port.mark, "0 is no port to connect to", "write 1 to 65535");
        return None;
    }
    Some(port.value)
}

/// What is spoken, and where `wss` stands.
fn protocol(
    raw: Option<At<Vec<At<String>>>>,
    scope: &mut Scope<'_>,
) -> (UpstreamProtocol, Option<Mark>) {
    let mut protocol = UpstreamProtocol::Http1;
    let mut wss = None;
    for text in raw.map(|list| list.value).unwrap_or_default() {
        match text.as_str() {
            H2C => protocol = UpstreamProtocol::Http2,
            WS => {}
            WSS => wss = Some(text.mark),
            other => {
                let message = format!("unknown protocol `{other}`");
                let remedy = suggest::remedy(other, [H2C, WS, WSS], "it may be");
                scope.error(&text.mark, message, remedy);
            }
        }
    }
    (protocol, wss)
}

fn lower_tls(raw: At<RawTls>, meta: &Meta, scope: &mut Scope<'_>) -> BackendTls {
    let At { value: raw, mark } = raw;
    let refs = raw.ca_certificate_refs.filter(|list| !list.is_empty());
    let insecure = raw.insecure_skip_verify.is_some_and(|at| {
        if at.value {
            scope.warning(
                &at.mark,
                "any certificate is taken, so whoever is between can read along",
                "name the authority under `caCertificateRefs`",
            );
        }
        at.value
    });
    if refs.is_some() && raw.well_known.is_some() {
        scope.error(
            &mark,
            "both `caCertificateRefs` and `wellKnownCACertificates` are given",
            "keep one of them",
        );
    }
    if refs.is_none() && raw.well_known.is_none() && !insecure {
        scope.error(
            &mark,
            "nobody is trusted",
            "write `wellKnownCACertificates: System`, or name an authority under `caCertificateRefs`",
        );
    }
    let server_name = raw.sni.and_then(|text| {
        let lower = text.to_ascii_lowercase();
        if !is_domain(&lower) {
            scope.error(
                &text.mark,
                format!("`{}` is not a hostname", text.value),
                "write one, as `api.example.com`",
            );
            return None;
        }
        Some(lower)
    });
    BackendTls {
        server_name,
        authorities: refs
            .map(|list| list.value)
            .unwrap_or_default()
            .into_iter()
            .map(|raw| raw.lower("ConfigMap", &meta.name.namespace))
            .collect(),
        insecure,
    }
}
