//! Kernel limits: from Gateways to ports.

use std::collections::BTreeMap;

use limiter_common::{MAX_POLICIES, MAX_PORTS};

use super::missing;
use crate::policy::findings::Findings;
use crate::policy::kinds::Kind;
use crate::policy::plan::{DaemonConfig, NetworkPolicy};
use crate::policy::resources::Resources;

/// The ports of each policy. A port has one policy at most.
pub(super) fn compile(
    resources: &Resources,
    daemon: &DaemonConfig,
    findings: &mut Findings,
) -> Vec<NetworkPolicy> {
    let mut taken: BTreeMap<u16, String> = BTreeMap::new();
    let mut plan = Vec::new();
    for policy in resources.network.values() {
        let mut scope = findings.at(&policy.meta.origin);
        let name = policy.meta.name.to_string();
        let mut ports = Vec::new();
        for (target, mark) in &policy.targets {
            let Some(gateway) = resources.gateways.get(target) else {
                missing(resources, Kind::Gateway, target, mark, &mut scope);
                continue;
            };
            for port in gateway.listeners.iter().map(|listener| listener.port) {
                match taken.get(&port).filter(|other| **other != name) {
                    Some(other) => scope.error(
                        mark,
                        format!(
                            "port {port} of Gateway `{target}` is limited by `{other}` already"
                        ),
                        "one policy a port: join the two",
                    ),
                    None => {
                        taken.insert(port, name.clone());
                        ports.push(port);
                    }
                }
            }
        }
        if daemon.interfaces.is_empty() {
            let message = "no interface is named, so nothing enforces this policy";
            scope.warning(
                &policy.mark,
                message,
                "name one under `spec.interfaces` of a LimiterConfig",
            );
        }
        if plan.len() + 1 >= MAX_POLICIES as usize || taken.len() > MAX_PORTS as usize {
            let remedy = format!(
                "at most {} policies and {MAX_PORTS} ports have room in the kernel",
                MAX_POLICIES - 1
            );
            scope.error(&policy.mark, "too many network policies or ports", remedy);
        }
        ports.sort_unstable();
        ports.dedup();
        plan.push(NetworkPolicy {
            name,
            ports,
            connections: policy.connections,
            packets: policy.packets,
        });
    }
    plan
}
