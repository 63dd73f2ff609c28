//! Addresses: no two listeners bind the same one.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::policy::findings::Findings;
use crate::policy::gateway_api::gateway::{Gateway, Listener};
use crate::policy::plan::DaemonConfig;
use crate::policy::resources::Resources;

/// The addresses a listener binds.
pub(super) fn binds(gateway: &Gateway, listener: &Listener) -> Vec<SocketAddr> {
    gateway
        .addresses
        .iter()
        .map(|&ip| SocketAddr::new(ip, listener.port))
        .collect()
}

/// `namespace/gateway/listener`.
pub(super) fn name(gateway: &Gateway, listener: &Listener) -> String {
    format!("{}/{}", gateway.meta.name, listener.name)
}

/// Reports addresses that are bound twice.
pub(super) fn check_binds(resources: &Resources, daemon: &DaemonConfig, findings: &mut Findings) {
    let mut bound: BTreeMap<SocketAddr, String> = BTreeMap::new();
    bound.insert(daemon.admin, "the admin listener".to_owned());
    for gateway in resources.gateways.values() {
        for listener in &gateway.listeners {
            for address in binds(gateway, listener) {
                if let Some(other) = bound.get(&address) {
                    findings.at(&gateway.meta.origin).error(
                        &listener.mark,
                        format!("{address} is bound by {other} already"),
                        "give it another port or address: listeners that share one are not supported yet",
                    );
                } else {
                    bound.insert(
                        address,
                        format!("the listener `{}`", name(gateway, listener)),
                    );
                }
            }
        }
    }
}
