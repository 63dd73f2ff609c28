//! `Backend`: endpoints outside a cluster.

use std::net::IpAddr;

use serde::Deserialize;

use crate::policy::decode::{At, Unsupported};
use crate::policy::findings::Scope;
use crate::policy::gateway_api::hostname::is_domain;
use crate::policy::plan::Endpoint;
use crate::policy::resource::Meta;

const MAX_ENDPOINTS: usize = 64;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
pub(crate) struct RawBackend {
    endpoints: At<Vec<At<RawEndpoint>>>,
    app_protocols: Option<Unsupported>,
    fallback: Option<Unsupported>,
    tls: Option<Unsupported>,
    #[serde(rename = "type")]
    kind: Option<Unsupported>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawEndpoint {
    ip: Option<RawIp>,
    fqdn: Option<RawFqdn>,
    hostname: Option<Unsupported>,
    unix: Option<Unsupported>,
    zone: Option<Unsupported>,
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

/// A Backend, checked by itself.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    pub(crate) endpoints: Vec<Endpoint>,
}

/// Checks a Backend.
pub(crate) fn lower(raw: At<RawBackend>, _meta: Meta, scope: &mut Scope<'_>) -> Backend {
    let list = raw.value.endpoints;
    scope.at_most(&list.mark, list.len(), MAX_ENDPOINTS);
    if list.is_empty() {
        scope.error(
            &list.mark,
            "no endpoints, so requests would go nowhere",
            "give it an `ip` or an `fqdn`",
        );
    }
    let endpoints = list
        .value
        .into_iter()
        .filter_map(|endpoint| lower_endpoint(endpoint, scope))
        .collect();
    Backend { endpoints }
}

fn lower_endpoint(raw: At<RawEndpoint>, scope: &mut Scope<'_>) -> Option<Endpoint> {
    let At { value: raw, mark } = raw;
    match (raw.ip, raw.fqdn) {
        (Some(ip), None) => {
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
        (None, Some(fqdn)) => {
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
        (Some(_), Some(_)) => {
            scope.error(&mark, "both `ip` and `fqdn` are given", "keep one of them");
            None
        }
        (None, None) => {
            scope.error(
                &mark,
                "neither `ip` nor `fqdn` is given",
                "give it one of them",
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
