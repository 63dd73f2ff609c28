//! `Service`: which ports it has, and where they lead.

use std::net::IpAddr;

use serde::Deserialize;

use crate::policy::decode::{At, Ignored, NumberOrText};
use crate::policy::findings::{Mark, Scope};
use crate::policy::gateway_api::hostname::is_domain;
use crate::policy::plan::UpstreamProtocol;
use crate::policy::resource::Meta;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "all fields that a file may have are named, so that no other passes"
)]
pub(crate) struct RawService {
    #[serde(rename = "type")]
    kind: Option<ServiceType>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<At<String>>,
    external_name: Option<At<String>>,
    ports: Option<At<Vec<RawPort>>>,
    allocate_load_balancer_node_ports: Option<Ignored>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Ignored>,
    #[serde(rename = "externalIPs")]
    external_ips: Option<Ignored>,
    external_traffic_policy: Option<Ignored>,
    health_check_node_port: Option<Ignored>,
    internal_traffic_policy: Option<Ignored>,
    ip_families: Option<Ignored>,
    ip_family_policy: Option<Ignored>,
    load_balancer_class: Option<Ignored>,
    #[serde(rename = "loadBalancerIP")]
    load_balancer_ip: Option<Ignored>,
    load_balancer_source_ranges: Option<Ignored>,
    publish_not_ready_addresses: Option<Ignored>,
    selector: Option<Ignored>,
    session_affinity: Option<Ignored>,
    session_affinity_config: Option<Ignored>,
    traffic_distribution: Option<Ignored>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum ServiceType {
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalName,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "all fields that a file may have are named, so that no other passes"
)]
struct RawPort {
    name: Option<String>,
    protocol: Option<String>,
    port: At<u16>,
    app_protocol: Option<At<String>>,
    target_port: Option<NumberOrText>,
    node_port: Option<Ignored>,
}

/// A Service, checked by itself.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) meta: Meta,
    pub(crate) address: Address,
    pub(crate) ports: Vec<Port>,
}

/// Where a Service without EndpointSlices is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Ip(IpAddr),
    External(String),
    /// By its name in the cluster.
    Dns,
    /// As `Dns`; its endpoints listen on the target port.
    Headless,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) port: u16,
    /// Of the endpoints of a headless Service; a named one is not known here.
    pub(crate) target: u16,
    pub(crate) protocol: UpstreamProtocol,
}

/// Checks a Service.
pub(crate) fn lower(raw: At<RawService>, meta: Meta, scope: &mut Scope<'_>) -> Service {
    let At { value: raw, mark } = raw;
    let address = address(&raw, &mark, scope);
    let mut ports: Vec<Port> = Vec::new();
    for port in raw.ports.map(|list| list.value).unwrap_or_default() {
        let number = port.port.value;
        if number == 0 {
            scope.error(&port.port.mark, "0 is no port", "write 1 to 65535");
            continue;
        }
        // Only what speaks TCP can be a backend of a route.
        if port.protocol.as_deref().is_some_and(|of| of != "TCP") {
            continue;
        }
        if ports.iter().any(|other| other.port == number) {
            scope.error(
                &port.port.mark,
                format!("the port {number} is given twice"),
                "keep one of them",
            );
        }
        let target = match port.target_port {
            Some(NumberOrText::Number(target)) => u16::try_from(target).unwrap_or(number),
            _ => number,
        };
        ports.push(Port {
            name: port.name.unwrap_or_default(),
            port: number,
            target,
            protocol: protocol(port.app_protocol.as_ref(), scope),
        });
    }
    Service {
        meta,
        address,
        ports,
    }
}

fn address(raw: &RawService, mark: &Mark, scope: &mut Scope<'_>) -> Address {
    if raw.kind == Some(ServiceType::ExternalName) {
        let Some(name) = &raw.external_name else {
            scope.error(
                mark,
                "a Service of type `ExternalName` needs an `externalName`",
                "give it one",
            );
            return Address::Dns;
        };
        let lower = name.trim_end_matches('.').to_ascii_lowercase();
        if let Ok(ip) = lower.parse::<IpAddr>() {
            return Address::Ip(ip);
        }
        if !is_domain(&lower) {
            scope.error(
                &name.mark,
                format!("`{}` is not a hostname", name.value),
                "write one, as `api.example.com`",
            );
        }
        return Address::External(lower);
    }
    match &raw.cluster_ip {
        None => Address::Dns,
        Some(text) if text.is_empty() => Address::Dns,
        Some(text) if text.value == "None" => Address::Headless,
        Some(text) => match text.parse() {
            Ok(ip) => Address::Ip(ip),
            Err(_error) => {
                scope.error(
                    &text.mark,
                    format!("`{}` is not an IP address", text.value),
                    "write an address, or `None`",
                );
                Address::Dns
            }
        },
    }
}

/// What is spoken to a port. What `appProtocol` may say is open: what is not known is HTTP/1.1.
fn protocol(text: Option<&At<String>>, scope: &mut Scope<'_>) -> UpstreamProtocol {
    let Some(text) = text else {
        return UpstreamProtocol::Http1;
    };
    match text.as_str() {
        "kubernetes.io/h2c" | "h2c" | "http2" | "grpc" => UpstreamProtocol::Http2,
        "" | "http" | "kubernetes.io/ws" | "ws" => UpstreamProtocol::Http1,
        other => {
            scope.warning(
                &text.mark,
                format!("the protocol `{other}` is not known, so HTTP/1.1 in clear text is spoken"),
                "write `http`, `kubernetes.io/h2c` or `kubernetes.io/ws`, or use a `Backend` for TLS",
            );
            UpstreamProtocol::Http1
        }
    }
}
