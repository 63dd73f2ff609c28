//! `EndpointSlice`: the addresses of a Service.

use std::net::IpAddr;

use serde::Deserialize;

use crate::policy::decode::{At, Ignored};
use crate::policy::findings::Scope;
use crate::policy::gateway_api::hostname::is_domain;
use crate::policy::resource::{HasMetadata, Meta, RawMetadata};

/// The label by which a slice names its Service.
const SERVICE: &str = "kubernetes.io/service-name";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "all fields that a file may have are named, so that no other passes"
)]
pub(crate) struct RawEndpointSlice {
    api_version: String,
    kind: String,
    metadata: RawMetadata,
    address_type: At<AddressType>,
    endpoints: Option<Vec<RawEndpoint>>,
    ports: Option<Vec<RawPort>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum AddressType {
    IPv4,
    IPv6,
    #[serde(rename = "FQDN")]
    Fqdn,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "all fields that a file may have are named, so that no other passes"
)]
struct RawEndpoint {
    addresses: At<Vec<At<String>>>,
    conditions: Option<RawConditions>,
    deprecated_topology: Option<Ignored>,
    hints: Option<Ignored>,
    hostname: Option<Ignored>,
    node_name: Option<Ignored>,
    target_ref: Option<Ignored>,
    zone: Option<Ignored>,
}

#[derive(Debug, Deserialize)]
#[expect(
    dead_code,
    reason = "all fields that a file may have are named, so that no other passes"
)]
struct RawConditions {
    ready: Option<bool>,
    serving: Option<Ignored>,
    terminating: Option<Ignored>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "all fields that a file may have are named, so that no other passes"
)]
struct RawPort {
    name: Option<String>,
    port: Option<u16>,
    protocol: Option<Ignored>,
    app_protocol: Option<Ignored>,
}

impl HasMetadata for RawEndpointSlice {
    fn metadata(&self) -> &RawMetadata {
        &self.metadata
    }
}

/// An EndpointSlice, checked by itself.
#[derive(Clone, Debug)]
pub(crate) struct EndpointSlice {
    pub(crate) meta: Meta,
    /// The Service that it belongs to, of its own namespace.
    pub(crate) service: String,
    pub(crate) addresses: Vec<Address>,
    /// By the names of the Service's ports.
    pub(crate) ports: Vec<(String, u16)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Ip(IpAddr),
    Fqdn(String),
}

/// Checks an EndpointSlice.
pub(crate) fn lower(raw: RawEndpointSlice, meta: Meta, scope: &mut Scope<'_>) -> EndpointSlice {
    let service = meta.labels.get(SERVICE).cloned().unwrap_or_default();
    if service.is_empty() {
        scope.error(
            &meta.mark,
            format!("without the label `{SERVICE}` it belongs to no Service"),
            "give it that label",
        );
    }
    let mut addresses = Vec::new();
    for endpoint in raw.endpoints.unwrap_or_default() {
        let ready = endpoint
            .conditions
            .and_then(|conditions| conditions.ready)
            .unwrap_or(true);
        // All addresses of an endpoint are the same; the first is used.
        let Some(text) = endpoint
            .addresses
            .value
            .into_iter()
            .next()
            .filter(|_| ready)
        else {
            continue;
        };
        addresses.extend(address(&text, raw.address_type.value, scope));
    }
    let ports = raw
        .ports
        .unwrap_or_default()
        .into_iter()
        .filter_map(|port| Some((port.name.unwrap_or_default(), port.port.filter(|&n| n > 0)?)))
        .collect();
    EndpointSlice {
        meta,
        service,
        addresses,
        ports,
    }
}

fn address(text: &At<String>, kind: AddressType, scope: &mut Scope<'_>) -> Option<Address> {
    let ip = text.parse::<IpAddr>().ok();
    let lower = text.to_ascii_lowercase();
    match (kind, ip) {
        (AddressType::IPv4, Some(ip @ IpAddr::V4(_)))
        | (AddressType::IPv6, Some(ip @ IpAddr::V6(_))) => Some(Address::Ip(ip)),
        (AddressType::Fqdn, None) if is_domain(&lower) => Some(Address::Fqdn(lower)),
        _ => {
            scope.error(
                &text.mark,
                format!("`{}` is not an address of type {kind:?}", text.value),
                "write one, or another `addressType`",
            );
            None
        }
    }
}
