//! `Gateway`: addresses and listeners.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use serde::Deserialize;

use super::hostname;
use crate::policy::decode::{At, Ignored, Unsupported};
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::Hostname;
use crate::policy::resource::{Meta, check_name};

const MAX_ADDRESSES: usize = 16;
const MAX_LISTENERS: usize = 64;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
pub(crate) struct RawGateway {
    /// limiterd is the only class there is.
    gateway_class_name: Option<Ignored>,
    addresses: Option<At<Vec<RawAddress>>>,
    listeners: At<Vec<At<RawListener>>>,
    allowed_listeners: Option<Unsupported>,
    #[serde(rename = "backendTLS")]
    backend_tls: Option<Unsupported>,
    default_scope: Option<Unsupported>,
    infrastructure: Option<Unsupported>,
    tls: Option<Unsupported>,
}

#[derive(Debug, Deserialize)]
struct RawAddress {
    #[serde(rename = "type")]
    kind: Option<At<String>>,
    value: At<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawListener {
    name: At<String>,
    port: At<u16>,
    protocol: At<String>,
    hostname: Option<At<String>>,
    allowed_routes: Option<RawAllowedRoutes>,
    tls: Option<Unsupported>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawAllowedRoutes {
    namespaces: Option<RawNamespaces>,
    kinds: Option<Unsupported>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawNamespaces {
    from: Option<At<From>>,
    selector: Option<Unsupported>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum From {
    Same,
    All,
    Selector,
    None,
}

/// A Gateway, checked by itself.
#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    pub(crate) meta: Meta,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) listeners: Vec<Listener>,
}

#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) hostname: Hostname,
    /// Routes of every namespace may attach.
    pub(crate) open: bool,
    /// Where its port stands.
    pub(crate) mark: Mark,
}

/// Checks a Gateway.
pub(crate) fn lower(raw: At<RawGateway>, meta: Meta, scope: &mut Scope<'_>) -> Gateway {
    let raw = raw.value;
    scope.at_most(&raw.listeners.mark, raw.listeners.len(), MAX_LISTENERS);
    if raw.listeners.is_empty() {
        scope.error(
            &raw.listeners.mark,
            "no listeners, so nothing would be served",
            "give it one",
        );
    }
    let mut names = BTreeSet::new();
    let mut listeners = Vec::new();
    for listener in raw.listeners.value {
        let name = listener.name.clone();
        if !names.insert(name.value.clone()) {
            let message = format!("a listener named `{}` is there already", name.value);
            scope.error(&name.mark, message, "give each a name of its own");
        }
        listeners.extend(lower_listener(listener.value, scope));
    }
    Gateway {
        meta,
        addresses: addresses(raw.addresses, scope),
        listeners,
    }
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

fn lower_listener(raw: RawListener, scope: &mut Scope<'_>) -> Option<Listener> {
    check_name(&raw.name, scope);
    if raw.protocol.value != "HTTP" {
        let message = format!("the protocol `{}` is not supported yet", raw.protocol.value);
        scope.error(&raw.protocol.mark, message, "write `HTTP`");
    }
    if raw.port.value == 0 {
        scope.error(
            &raw.port.mark,
            "0 is no port to listen on",
            "write 1 to 65535",
        );
        return None;
    }
    let from = raw
        .allowed_routes
        .and_then(|routes| routes.namespaces)
        .and_then(|spaces| spaces.from);
    let open = match from.as_ref().map(|from| from.value) {
        None | Some(From::Same) => false,
        Some(From::All) => true,
        Some(From::Selector | From::None) => {
            if let Some(from) = &from {
                let message = format!("`{:?}` is not supported yet", from.value);
                scope.error(&from.mark, message, "write `Same` or `All`");
            }
            false
        }
    };
    let hostname = match &raw.hostname {
        Some(text) if text.is_empty() => Hostname::Any,
        Some(text) => hostname::parse(text, scope)?,
        None => Hostname::Any,
    };
    Some(Listener {
        name: raw.name.value,
        port: raw.port.value,
        hostname,
        open,
        mark: raw.port.mark,
    })
}
