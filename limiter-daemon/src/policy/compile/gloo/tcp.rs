//! TCP gateways to listeners that pass connections on.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::gateways::{certificate, client};
use super::{Context, label};
use crate::policy::gloo::action;
use crate::policy::gloo::gateway::Gateway;
use crate::policy::gloo::references::Reference;
use crate::policy::gloo::ssl::Ssl;
use crate::policy::gloo::tcp::{Host, Tcp, To};
use crate::policy::kinds::Kind;
use crate::policy::plan::{TcpHost, TcpProxy, TcpTarget, Tls, TlsVersion, WeightedBackend};
use crate::policy::status::Condition;

/// The listener of a TCP gateway.
///
/// # Errors
/// Why there is none.
pub(super) fn proxy(
    gateway: &Gateway,
    tcp: &Tcp,
    context: &mut Context<'_, '_>,
) -> Result<TcpProxy, Condition> {
    if tcp.hosts.is_empty() {
        let message = "The gateway has no `tcpHosts`.";
        return Err(Condition::new("Accepted", true, "NoHosts", message));
    }
    Ok(TcpProxy {
        name: label(Kind::GlooGateway, &gateway.meta.name),
        binds: vec![gateway.bind],
        client: client(gateway, tcp.connections),
        hosts: tcp
            .hosts
            .iter()
            .map(|host| self::host(host, gateway, context))
            .collect(),
        max_connect_attempts: tcp.settings.max_connect_attempts,
        idle: tcp.settings.idle,
    })
}

fn host(host: &Host, gateway: &Gateway, context: &mut Context<'_, '_>) -> TcpHost {
    let tls = host
        .ssl
        .as_ref()
        .map(|ssl| tls(ssl, &host.alpn, gateway, context));
    // Its names are not another host's because of that.
    let broken = matches!(tls, Some(None)).then(|| "its certificate cannot be used".to_owned());
    TcpHost {
        name: host.name.clone(),
        names: host.names.clone(),
        tls: tls.flatten().map(Arc::new),
        to: to(host, gateway, context),
        broken,
    }
}

fn tls(
    ssl: &Ssl,
    alpn: &[String],
    gateway: &Gateway,
    context: &mut Context<'_, '_>,
) -> Option<Tls> {
    let found = certificate(ssl, Kind::GlooGateway, &gateway.meta, context)?;
    let min = ssl.min.unwrap_or(TlsVersion::V1_2);
    Some(Tls {
        certificates: vec![found],
        min_version: min,
        max_version: ssl.max.unwrap_or(TlsVersion::V1_3).max(min),
        alpn: alpn.to_vec(),
        client_certificates: None,
    })
}

fn to(host: &Host, gateway: &Gateway, context: &mut Context<'_, '_>) -> TcpTarget {
    match &host.to {
        To::Destinations(destinations) => {
            let weighted = destinations.iter().map(|one| WeightedBackend {
                backend: context
                    .destinations
                    .find(&one.to, None, &gateway.meta, context.findings),
                weight: one.weight,
                filters: None,
            });
            TcpTarget::Weighted(weighted.collect())
        }
        To::ByName => {
            let mut by_name = BTreeMap::new();
            for (name, upstream) in &context.resources.upstreams {
                let to = action::To::Upstream(Reference {
                    name: name.clone(),
                    mark: host.mark.clone(),
                });
                let found = context
                    .destinations
                    .find(&to, None, &upstream.meta, context.findings);
                // As Gloo calls clusters in Envoy.
                let cluster = format!("{}_{}", name.name, name.namespace);
                by_name.extend(found.map(|index| (cluster.to_lowercase(), index)));
            }
            TcpTarget::ByName(by_name)
        }
    }
}
