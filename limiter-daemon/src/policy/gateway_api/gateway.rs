//! `Gateway`: addresses and listeners.

use std::net::{IpAddr, Ipv6Addr};

use serde::Deserialize;

use super::listener::{self, Allowed, Listener, RawListener, RawNamespaces};
use crate::policy::decode::{At, Ignored, Unheeded, Unsupported};
use crate::policy::findings::Scope;
use crate::policy::resource::Meta;

const MAX_ADDRESSES: usize = 16;
const CERTIFICATE_FILE: &str = "limiterd.io/certificate-file";
const KEY_FILE: &str = "limiterd.io/key-file";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
pub(crate) struct RawGateway {
    /// limiterd is the only class there is.
    gateway_class_name: Option<Ignored>,
    addresses: Option<At<Vec<RawAddress>>>,
    listeners: At<Vec<At<RawListener>>>,
    allowed_listeners: Option<RawAllowedListeners>,
    #[serde(rename = "backendTLS")]
    backend_tls: Option<Unsupported>,
    default_scope: Option<Unsupported>,
    infrastructure: Option<Unheeded>,
    tls: Option<Unsupported>,
}

#[derive(Debug, Deserialize)]
struct RawAddress {
    #[serde(rename = "type")]
    kind: Option<At<String>>,
    value: At<String>,
}

#[derive(Debug, Deserialize)]
struct RawAllowedListeners {
    namespaces: Option<RawNamespaces>,
}

/// A Gateway, checked by itself.
#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    pub(crate) meta: Meta,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) listeners: Vec<Listener>,
    /// Where ListenerSets that belong to it may be.
    pub(crate) sets: Allowed,
}

/// Checks a Gateway.
pub(crate) fn lower(raw: At<RawGateway>, meta: Meta, scope: &mut Scope<'_>) -> Gateway {
    let raw = raw.value;
    let sets = match raw.allowed_listeners.and_then(|allowed| allowed.namespaces) {
        Some(spaces) => listener::allowed(spaces, Allowed::None, scope),
        None => Allowed::None,
    };
    Gateway {
        addresses: addresses(raw.addresses, scope),
        listeners: listener::lower_all(raw.listeners, &meta, scope),
        sets,
        meta,
    }
}

/// The certificate and key files that annotations name, for all listeners that name none.
pub(crate) fn file_annotations(meta: &Meta) -> (Option<&String>, Option<&String>) {
    (
        meta.annotations.get(CERTIFICATE_FILE),
        meta.annotations.get(KEY_FILE),
    )
}

fn addresses(raw: Option<At<Vec<RawAddress>>>, scope: &mut Scope<'_>) -> Vec<IpAddr> {
    let Some(raw) = raw.filter(|list| !list.is_empty()) else {
        return vec![IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    };
    scope.at_most(&raw.mark, raw.len(), MAX_ADDRESSES);
    let mut addresses = Vec::new();
    for address in raw.value {
        if let Some(kind) = address.kind.filter(|kind| kind.value != "IPAddress") {
            let message = format!("an address of type `{}` is not supported", kind.value);
            scope.error(&kind.mark, message, "write `IPAddress`");
            continue;
        }
        match address.value.parse::<IpAddr>() {
            Ok(ip) if addresses.contains(&ip) => {
                scope.error(
                    &address.value.mark,
                    format!("{ip} is given twice"),
                    "keep one of them",
                );
            }
            Ok(ip) => addresses.push(ip),
            Err(_error) => {
                let message = format!("`{}` is not an IP address", address.value.value);
                scope.error(
                    &address.value.mark,
                    message,
                    "write it as `192.0.2.1` or `2001:db8::1`",
                );
            }
        }
    }
    addresses
}
