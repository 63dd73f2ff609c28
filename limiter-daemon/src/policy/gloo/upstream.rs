//! `Upstream`: where requests go.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::balancer::{self, RawBalancer};
use super::health::{self, RawHealthCheck, RawOutliers};
use super::references::{RawRef, Reference};
use super::ssl;
use crate::policy::core::pem;
use crate::policy::decode::{At, Ignored, Unheeded, Unsupported};
use crate::policy::findings::{Mark, Scope};
use crate::policy::gateway_api::hostname::is_domain;
use crate::policy::plan::{
    BackendSettings, Balancing, Endpoint, OutlierDetection, Pem, UpstreamProtocol,
};
use crate::policy::resource::{Meta, Name};
use crate::policy::units;

const MAX_HOSTS: usize = 64;
/// `sun_path` less the zero at the end.
const MAX_SOCKET_PATH: usize = 107;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
pub(crate) struct RawUpstream {
    #[serde(rename = "static")]
    hosts: Option<At<RawStatic>>,
    kube: Option<RawKube>,
    pipe: Option<RawPipe>,
    aws: Option<Unsupported>,
    aws_ec2: Option<Unsupported>,
    azure: Option<Unsupported>,
    consul: Option<Unsupported>,
    gcp: Option<Unsupported>,
    ai: Option<Unsupported>,
    ssl_config: Option<RawSsl>,
    use_http2: Option<bool>,
    circuit_breakers: Option<RawBreakers>,
    connection_config: Option<RawConnection>,
    load_balancer_config: Option<RawBalancer>,
    health_checks: Option<At<Vec<At<RawHealthCheck>>>>,
    outlier_detection: Option<At<RawOutliers>>,
    subset_spec: Option<Unsupported>,
    failover: Option<Unsupported>,
    proxy_protocol_version: Option<Unsupported>,
    http_proxy_hostname: Option<Unsupported>,
    http_connect_ssl_config: Option<Unsupported>,
    http_connect_headers: Option<Unsupported>,
    ignore_health_on_host_removal: Option<Unheeded>,
    respect_dns_ttl: Option<bool>,
    dns_refresh_rate: Option<At<String>>,
    discovery_metadata: Option<Ignored>,
    initial_connection_window_size: Option<Unheeded>,
    initial_stream_window_size: Option<Unheeded>,
    max_concurrent_streams: Option<Unheeded>,
    override_stream_error_on_invalid_http_message: Option<Unheeded>,
    preconnect_policy: Option<Unheeded>,
    protocol_selection: Option<Unheeded>,
    disable_istio_auto_mtls: Option<Ignored>,
    namespaced_statuses: Option<Ignored>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawStatic {
    hosts: Option<At<Vec<At<RawHost>>>>,
    use_tls: Option<bool>,
    auto_sni_rewrite: Option<Ignored>,
    service_spec: Option<Unheeded>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawHost {
    addr: At<String>,
    port: At<u16>,
    health_check_config: Option<Unheeded>,
    sni_addr: Option<Unsupported>,
    load_balancing_weight: Option<Unsupported>,
    metadata: Option<Ignored>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawKube {
    service_name: At<String>,
    service_namespace: Option<At<String>>,
    service_port: At<u16>,
    selector: Option<Unsupported>,
    service_spec: Option<Unheeded>,
    subset_spec: Option<Unsupported>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawPipe {
    path: At<String>,
    service_spec: Option<Unheeded>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawSsl {
    secret_ref: Option<RawRef>,
    ssl_files: Option<RawFiles>,
    sds: Option<Unsupported>,
    sni: Option<At<String>>,
    verify_subject_alt_name: Option<Unsupported>,
    parameters: Option<Unheeded>,
    alpn_protocols: Option<Unheeded>,
    allow_renegotiation: Option<Unheeded>,
    one_way_tls: Option<Ignored>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawFiles {
    tls_cert: Option<Unsupported>,
    tls_key: Option<Unsupported>,
    root_ca: Option<At<String>>,
    ocsp_staple: Option<Unheeded>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawBreakers {
    max_connections: Option<u32>,
    max_pending_requests: Option<u32>,
    max_requests: Option<u32>,
    max_retries: Option<u32>,
    track_remaining: Option<Unheeded>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawConnection {
    connect_timeout: Option<At<String>>,
    max_requests_per_connection: Option<u32>,
    tcp_keepalive: Option<Unheeded>,
    per_connection_buffer_limit_bytes: Option<Unheeded>,
    common_http_protocol_options: Option<Unheeded>,
    http1_protocol_options: Option<Unheeded>,
}

/// An `Upstream`, checked by itself.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    pub(crate) meta: Meta,
    pub(crate) to: Endpoints,
    pub(crate) protocol: UpstreamProtocol,
    pub(crate) tls: Option<Tls>,
    pub(crate) settings: BackendSettings,
    /// Hosts are chosen by the hash that routes say.
    pub(crate) hashes: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Endpoints {
    These(Vec<Endpoint>),
    /// Those of a Service, at a port.
    Service(Name, u16, Mark),
}

/// TLS to the endpoints.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tls {
    /// The Secret with the authorities (`ca.crt`).
    pub(crate) secret: Option<Reference>,
    /// Or the authorities, of a file. Without either any certificate is taken, as Envoy does.
    pub(crate) authorities: Option<Pem>,
    pub(crate) server_name: Option<String>,
}

impl Tls {
    /// Whether any certificate is taken.
    pub(crate) const fn takes_any(&self) -> bool {
        self.secret.is_none() && self.authorities.is_none()
    }
}

/// Checks an `Upstream`.
pub(crate) fn lower(raw: At<RawUpstream>, meta: Meta, scope: &mut Scope<'_>) -> Upstream {
    let At { value: raw, mark } = raw;
    let told = raw.aws.is_some()
        || raw.aws_ec2.is_some()
        || raw.azure.is_some()
        || raw.consul.is_some()
        || raw.gcp.is_some()
        || raw.ai.is_some();
    let given = [raw.hosts.is_some(), raw.kube.is_some(), raw.pipe.is_some()];
    let given = given.into_iter().filter(|given| *given).count();
    if given > 1 || (given == 0 && !told) {
        scope.error(
            &mark,
            "an upstream is of one sort",
            "give it one of `static`, `kube` and `pipe`",
        );
    }
    let use_tls = raw.hosts.as_ref().and_then(|hosts| hosts.use_tls);
    let namespace = &meta.name.namespace;
    let to = if let Some(kube) = raw.kube {
        let own = kube.service_namespace.filter(|at| !at.is_empty());
        let name = Name {
            namespace: own.map_or_else(|| namespace.clone(), |at| at.value),
            name: kube.service_name.value,
        };
        Endpoints::Service(name, kube.service_port.value, kube.service_name.mark)
    } else if let Some(pipe) = raw.pipe {
        Endpoints::These(self::pipe(&pipe.path, scope).into_iter().collect())
    } else {
        Endpoints::These(
            raw.hosts
                .map(|hosts| self::hosts(hosts, scope))
                .unwrap_or_default(),
        )
    };
    let tls = match raw.ssl_config {
        Some(ssl) => Some(Tls {
            secret: ssl.secret_ref.map(|raw| raw.lower(namespace)),
            authorities: ssl
                .ssl_files
                .and_then(|files| authorities(&files.root_ca?, &meta, scope)),
            server_name: ssl.sni.filter(|sni| !sni.is_empty()).map(|at| at.value),
        }),
        None => (use_tls == Some(true)).then(Tls::default),
    };
    if tls.as_ref().is_some_and(Tls::takes_any) {
        scope.warning(
            &mark,
            "any certificate of the endpoints is taken, so whoever is between can read along",
            "name a Secret with a `ca.crt` under `sslConfig.secretRef`, or a file under `sslFiles.rootCa`",
        );
    }
    let mut settings = BackendSettings::default();
    if let Some(breakers) = raw.circuit_breakers {
        let own = &mut settings.circuit_breaker;
        let set = |field: &mut u32, given: Option<u32>| *field = given.unwrap_or(*field);
        set(&mut own.max_connections, breakers.max_connections);
        set(&mut own.max_pending_requests, breakers.max_pending_requests);
        set(&mut own.max_parallel_requests, breakers.max_requests);
        // Envoy's default, which Gloo leaves as it is.
        own.max_parallel_retries = breakers.max_retries.unwrap_or(3);
    }
    if let Some(connection) = raw.connection_config {
        settings.circuit_breaker.max_requests_per_connection = connection
            .max_requests_per_connection
            .filter(|most| *most > 0);
        let timeout = connection.connect_timeout;
        if let Some(timeout) = timeout.and_then(|text| units::positive_duration(&text, scope)) {
            settings.connect_timeout = timeout;
        }
    }
    let hashes = raw
        .load_balancer_config
        .as_ref()
        .is_some_and(balancer::hashes);
    // Gloo's and Envoy's own.
    settings.load_balancer.algorithm = Balancing::RoundRobin;
    if let Some(raw) = raw.load_balancer_config {
        balancer::lower(raw, &mut settings, scope);
    }
    settings.health_check = raw.health_checks.and_then(|raw| health::checks(raw, scope));
    if let Some(At { value: raw, mark }) = raw.outlier_detection {
        let outliers = health::outliers(raw, scope);
        warn_of_ejection(&to, outliers, &mark, scope);
        settings.outlier_detection = Some(outliers);
    }
    if let Some(text) = &raw.dns_refresh_rate
        && let Some(refresh) = units::positive_duration(text, scope)
    {
        settings.dns.refresh = refresh;
    }
    settings.dns.respect_ttl = raw.respect_dns_ttl.unwrap_or(settings.dns.respect_ttl);
    Upstream {
        to,
        protocol: if raw.use_http2 == Some(true) {
            UpstreamProtocol::Http2
        } else {
            UpstreamProtocol::Http1
        },
        tls,
        settings,
        hashes,
        meta,
    }
}

fn hosts(At { value: raw, mark }: At<RawStatic>, scope: &mut Scope<'_>) -> Vec<Endpoint> {
    let Some(list) = raw.hosts.filter(|list| !list.is_empty()) else {
        scope.error(
            &mark,
            "no hosts, so requests would go nowhere",
            "give it `hosts: [{addr: 192.0.2.1, port: 8080}]`",
        );
        return Vec::new();
    };
    scope.at_most(&list.mark, list.len(), MAX_HOSTS);
    let mut endpoints = Vec::new();
    for At { value: raw, .. } in list.value {
        if raw.port.value == 0 {
            let message = "0 is no port to connect to";
            scope.error(&raw.port.mark, message, "write 1 to 65535");
            continue;
        }
        if let Ok(ip) = raw.addr.parse::<IpAddr>() {
            endpoints.push(Endpoint::Ip(ip, raw.port.value));
            continue;
        }
        let name = raw.addr.to_ascii_lowercase();
        if is_domain(&name) {
            endpoints.push(Endpoint::Fqdn(name, raw.port.value));
        } else {
            let message = format!("`{}` is neither an address nor a name", raw.addr.value);
            let remedy = "write one, as `192.0.2.1` or `api.example.com`";
            scope.error(&raw.addr.mark, message, remedy);
        }
    }
    endpoints
}

/// Warns if so few hosts are never ejected.
fn warn_of_ejection(
    to: &Endpoints,
    outliers: OutlierDetection,
    mark: &Mark,
    scope: &mut Scope<'_>,
) {
    let Endpoints::These(endpoints) = to else {
        return;
    };
    let count = endpoints.len();
    // A name may stand for any number of them.
    let named = |endpoint: &Endpoint| matches!(endpoint, Endpoint::Fqdn(..));
    let percent = usize::try_from(outliers.max_ejection_percent).unwrap_or(100);
    if count == 0 || endpoints.iter().any(named) || count * percent >= 100 {
        return;
    }
    scope.warning(
        mark,
        format!("no host is ever ejected: {percent} % of {count} is none"),
        format!(
            "write at least `maxEjectionPercent: {}`",
            100_usize.div_ceil(count)
        ),
    );
}

/// Relative to the directory of the policy file.
fn authorities(path: &At<String>, meta: &Meta, scope: &mut Scope<'_>) -> Option<Pem> {
    let text = ssl::read(path, meta, scope)?;
    pem::authorities_at(&path.mark, text.as_bytes(), scope)
}

fn pipe(path: &At<String>, scope: &mut Scope<'_>) -> Option<Endpoint> {
    if !path.starts_with('/') || path.len() > MAX_SOCKET_PATH || path.contains('\0') {
        scope.error(
            &path.mark,
            format!("`{}` is not the path of a socket", path.value),
            format!("write an absolute path of at most {MAX_SOCKET_PATH} bytes"),
        );
        return None;
    }
    Some(Endpoint::Unix(PathBuf::from(&path.value)))
}
