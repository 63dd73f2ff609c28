//! Limits on the connections of Gloo's gateways: the kernel's, on their ports, before TLS.

use limiter_common::Protocol;

use super::options::Options;
use crate::policy::findings::Findings;
use crate::policy::gloo::gateway::Serves;
use crate::policy::gloo::token_bucket::NetworkBucket;
use crate::policy::kinds::Kind;
use crate::policy::native::network_rate_limit_policy::{NetworkLimit, Port, Targets};
use crate::policy::plan::{NetworkLevel, Scope, SourceLimits};
use crate::policy::resource::{Meta, Name};
use crate::policy::resources::Resources;

/// One policy for each gateway that has a limit, a token a connection.
pub(in crate::policy::compile) fn limits(resources: &Resources) -> Vec<NetworkLimit> {
    // What is wrong with targets has been said where listeners are made.
    let options = Options::new(resources, &mut Findings::default());
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
        limits.push(NetworkLimit {
            meta: Meta {
                name: Name::new(
                    &format!("{}/{}", Kind::GlooGateway.name(), name.namespace),
                    &name.name,
                ),
                ..gateway.meta.clone()
            },
            targets: Targets::of_ports(vec![Port {
                protocol: Protocol::Tcp,
                port: gateway.bind.port(),
                mark: gateway.mark.clone(),
            }]),
            default: SourceLimits::Levels(levels(&bucket)),
            rules: Vec::new(),
            allow: Vec::new(),
            deny: Vec::new(),
            shadow: false,
            escalation: bucket.escalation.as_deref().cloned(),
            mark: bucket.all.mark,
        });
    }
    limits
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
