//! Limits on connections that Gloo's gateways and options have: the kernel's, on their ports, before
//! TLS.

use limiter_common::Protocol;

use super::super::topology::Entry;
use super::gateway_api;
use super::options::Options;
use crate::policy::findings::Mark;
use crate::policy::gloo::gateway::Serves;
use crate::policy::gloo::token_bucket::NetworkBucket;
use crate::policy::kinds::Kind;
use crate::policy::native::network_rate_limit_policy::{NetworkLimit, Port, Targets};
use crate::policy::plan::{NetworkLevel, Scope, SourceLimits};
use crate::policy::resource::{Meta, Name};
use crate::policy::resources::Resources;

/// One policy for each gateway that has a limit, a token a connection; and for each option on
/// Gateways of Gateway API.
pub(super) fn limits(
    resources: &Resources,
    options: &Options<'_>,
    entries: &[Entry<'_>],
) -> Vec<NetworkLimit> {
    let mut limits = Vec::new();
    for gateway in resources.gloo_gateways.values() {
        let bucket = match &gateway.serves {
            Serves::Http { options: own, .. } => options.of_gateway(gateway, own).network,
            Serves::Tcp(tcp) => tcp.limit.clone(),
        };
        let Some(bucket) = bucket else {
            continue;
        };
        let name = &gateway.meta.name;
        let name = Name::new(
            &format!("{}/{}", Kind::GlooGateway.name(), name.namespace),
            &name.name,
        );
        let ports = [gateway.bind.port()];
        limits.push(limit(name, &gateway.meta, &gateway.mark, &bucket, &ports));
    }
    for (label, meta, bucket, ports) in gateway_api::network(options, entries) {
        let name = match label.split_once('/') {
            Some((kind, rest)) => Name::new(kind, rest),
            None => Name::new("", &label),
        };
        limits.push(limit(name, meta, &bucket.all.mark, bucket, &ports));
    }
    limits
}

/// A limit called `name`, which is written in a resource at `mark`.
fn limit(
    name: Name,
    meta: &Meta,
    mark: &Mark,
    bucket: &NetworkBucket,
    ports: &[u16],
) -> NetworkLimit {
    let ports = ports.iter().map(|port| Port {
        protocol: Protocol::Tcp,
        port: *port,
        mark: mark.clone(),
    });
    NetworkLimit {
        meta: Meta {
            name,
            ..meta.clone()
        },
        targets: Targets::of_ports(ports.collect()),
        default: SourceLimits::Levels(levels(bucket)),
        rules: Vec::new(),
        allow: Vec::new(),
        deny: Vec::new(),
        shadow: false,
        escalation: bucket.escalation.as_deref().cloned(),
        mark: bucket.all.mark.clone(),
        written: bucket.all.written.clone(),
    }
}

/// The bucket of all, and that of each source.
fn levels(bucket: &NetworkBucket) -> Vec<NetworkLevel> {
    let all = (Scope::Listener, &bucket.all);
    let each = bucket.each.as_ref().map(|(by, bucket)| (*by, bucket));
    let levels = each.into_iter().chain([all]);
    levels
        .map(|(scope, bucket)| NetworkLevel {
            scope,
            connections: Some(bucket.limit),
            packets: None,
            bytes: None,
        })
        .collect()
}
