//! Listeners that pass connections on.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{TlsView, WeightedView, seconds, words};
use crate::policy::plan::{Plan, ProxyProtocol, TcpHost, TcpProxy, TcpTarget};

#[derive(Debug, Serialize)]
pub(super) struct TcpView {
    name: String,
    addresses: Vec<String>,
    proxy_protocol: &'static str,
    max_connections: Option<u64>,
    max_connect_attempts: u32,
    /// `None`: connections stay however long they are silent.
    idle_timeout_seconds: Option<f64>,
    hosts: Vec<HostView>,
}

#[derive(Debug, Serialize)]
struct HostView {
    name: String,
    /// Names that clients ask for; `*`: whatever no other host is for.
    names: Vec<String>,
    /// `None`: TLS is passed on.
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<TlsView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    backends: Vec<WeightedView>,
    /// The backend for each name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    backends_by_name: BTreeMap<String, String>,
    /// Why its connections are closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    broken: Option<String>,
}

impl TcpView {
    pub(super) fn new(proxy: &TcpProxy, plan: &Plan) -> Self {
        let hosts = proxy.hosts.iter();
        Self {
            name: proxy.name.clone(),
            addresses: proxy.binds.iter().map(ToString::to_string).collect(),
            proxy_protocol: match proxy.client.proxy_protocol {
                ProxyProtocol::Off => "off",
                ProxyProtocol::Optional => "optional",
                ProxyProtocol::Required => "required",
            },
            max_connections: proxy.client.connections.max,
            max_connect_attempts: proxy.max_connect_attempts,
            idle_timeout_seconds: proxy.idle.map(seconds),
            hosts: hosts.map(|host| HostView::new(host, plan)).collect(),
        }
    }
}

impl HostView {
    fn new(host: &TcpHost, plan: &Plan) -> Self {
        let mut view = Self {
            name: host.name.clone(),
            names: host.names.iter().map(words::hostname).collect(),
            tls: host.tls.as_deref().map(TlsView::from),
            backends: Vec::new(),
            backends_by_name: BTreeMap::new(),
            broken: host.broken.clone(),
        };
        match &host.to {
            TcpTarget::Weighted(weighted) => {
                let backends = weighted.iter().map(|one| WeightedView::new(one, plan));
                view.backends = backends.collect();
            }
            TcpTarget::ByName(by_name) => {
                let named = by_name.iter().filter_map(|(name, index)| {
                    Some((name.clone(), plan.backends.get(*index)?.name.clone()))
                });
                view.backends_by_name = named.collect();
            }
        }
        view
    }
}
