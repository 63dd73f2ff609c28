//! Kernel limits: from Gateways, interfaces and ports to destinations.

use std::collections::BTreeMap;

use limiter_common::Protocol;
use limiter_common::policy::{MAX_CLASSES, MAX_POLICIES, POLICY_NAME_LEN};

use super::missing;
use crate::policy::findings::{Findings, Mark, Scope};
use crate::policy::gateway_api::gateway::Gateway;
use crate::policy::kinds::Kind;
use crate::policy::native::network_rate_limit_policy::escalation as native;
use crate::policy::native::network_rate_limit_policy::{MAX_CIDRS_OF_ALL, NetworkLimit, Target};
use crate::policy::plan::{DaemonConfig, Escalation, NetworkPolicy};
use crate::policy::resource::Name;
use crate::policy::resources::Resources;
use crate::policy::suggest;

/// What each policy applies to, with `others` that another dialect has. A port has one policy at
/// most, and so has an interface.
pub(super) fn compile(
    resources: &Resources,
    others: &[NetworkLimit],
    daemon: &DaemonConfig,
    findings: &mut Findings,
) -> (Vec<NetworkPolicy>, Vec<Escalation>) {
    let mut taken = Taken::default();
    let mut room = Room::default();
    let mut plan = Vec::new();
    let mut escalations = Vec::new();
    for policy in resources.network.values().chain(others) {
        let mut scope = findings.at(&policy.meta.origin);
        if daemon.interfaces.is_empty() {
            let message = "no interface is named, so nothing enforces this policy";
            scope.warning(
                &policy.mark,
                message,
                "name one under `spec.interfaces` of a LimiterConfig",
            );
        }
        let length = policy.meta.name.to_string().len();
        if length > POLICY_NAME_LEN {
            scope.error(
                &policy.mark,
                format!(
                    "the kernel calls this `{}`, which is {length} bytes long, so it is not enforced",
                    policy.meta.name
                ),
                format!("at most {POLICY_NAME_LEN} are possible: give its resource a shorter name"),
            );
            continue;
        }
        if !room.take(policy, &mut scope) {
            continue;
        }
        let mut reach = Reach {
            resources,
            daemon,
            policy: policy.meta.name.to_string(),
            taken: &mut taken,
            ports: Vec::new(),
            interfaces: Vec::new(),
        };
        reach.resolve(policy, &mut scope);
        let (name, mut ports, interfaces) = (reach.policy, reach.ports, reach.interfaces);
        ports.sort_unstable();
        ports.dedup();
        if let Some(escalation) = &policy.escalation {
            escalations.extend(escalate(policy, escalation, &ports, daemon, &mut scope));
        }
        plan.push(NetworkPolicy {
            name,
            ports,
            interfaces,
            default: policy.default.clone(),
            rules: policy.rules.clone(),
            allow: policy.allow.clone(),
            deny: policy.deny.clone(),
            shadow: policy.shadow,
            written: policy.written.clone(),
        });
    }
    (plan, escalations)
}

/// On which of its policy's ports an escalation counts.
fn escalate(
    policy: &NetworkLimit,
    escalation: &native::Escalation,
    ports: &[(Protocol, u16)],
    daemon: &DaemonConfig,
    scope: &mut Scope<'_>,
) -> Option<Escalation> {
    let tcp = ports
        .iter()
        .filter(|(protocol, _)| *protocol == Protocol::Tcp);
    let tcp: Vec<_> = tcp.map(|(_, port)| *port).collect();
    if tcp.is_empty() {
        scope.error(
            &escalation.mark,
            "the policy targets no TCP port, and offences are counted by the port that they come to",
            "name a Gateway under `targetRefs`, or TCP ports under `ports`",
        );
        return None;
    }
    if escalation.fleet && daemon.store.is_none() {
        scope.warning(
            &escalation.mark,
            "there is no store that nodes share, so sentences are for each node alone",
            "name one in `rateLimit` of a LimiterConfig or EnvoyGateway, or write `scope: Node`",
        );
    }
    let of = escalation.on(policy.meta.name.to_string(), tcp);
    // The kernel drops nothing for a policy in shadow mode.
    let shadow = of.shadow || policy.shadow;
    Some(Escalation { shadow, ..of })
}

/// How much of the kernel's tables is used.
#[derive(Default)]
struct Room {
    policies: usize,
    classes: usize,
    cidrs: usize,
}

impl Room {
    /// Whether there is room for the policy too; or else an error at it.
    fn take(&mut self, policy: &NetworkLimit, scope: &mut Scope<'_>) -> bool {
        let tables = [
            (
                &mut self.policies,
                1,
                MAX_POLICIES as usize - 1,
                "network policies",
            ),
            (
                &mut self.classes,
                policy.classes(),
                MAX_CLASSES as usize,
                "groups of limits (one for each policy, one for each rule)",
            ),
            (
                &mut self.cidrs,
                policy.cidrs(),
                MAX_CIDRS_OF_ALL,
                "CIDRs in all policies",
            ),
        ];
        let full = tables
            .iter()
            .find(|(used, more, most, _)| **used + more > *most);
        if let Some((_, _, most, what)) = full {
            scope.error(
                &policy.mark,
                format!("too many {what}, so this policy is not enforced"),
                format!("the kernel has room for {most}"),
            );
            return false;
        }
        for (used, more, _, _) in tables {
            *used += more;
        }
        true
    }
}

/// What has a policy, and which.
#[derive(Default)]
struct Taken {
    ports: BTreeMap<(Protocol, u16), String>,
    interfaces: BTreeMap<String, String>,
}

/// The targets of one policy, being resolved.
struct Reach<'a> {
    resources: &'a Resources,
    daemon: &'a DaemonConfig,
    policy: String,
    taken: &'a mut Taken,
    ports: Vec<(Protocol, u16)>,
    interfaces: Vec<String>,
}

impl Reach<'_> {
    fn resolve(&mut self, policy: &NetworkLimit, scope: &mut Scope<'_>) {
        for target in &policy.targets.refs {
            match target {
                Target::Gateway {
                    name,
                    mark,
                    section,
                } => match (self.resources.gateways.get(name), section) {
                    (None, _) => missing(self.resources, Kind::Gateway, name, mark, scope),
                    (Some(gateway), None) => self.gateway(gateway, name, mark, scope),
                    (Some(gateway), Some(section)) => {
                        self.section(gateway, section, &section.mark, scope);
                    }
                },
                Target::Interface(name) => self.interface(name, &name.mark, scope),
            }
        }
        for port in &policy.targets.ports {
            let what = match port.protocol {
                Protocol::Tcp => format!("TCP port {}", port.port),
                Protocol::Udp => format!("UDP port {}", port.port),
                Protocol::Icmp => "ICMP".to_owned(),
            };
            self.port((port.protocol, port.port), &what, &port.mark, scope);
        }
    }

    fn gateway(&mut self, gateway: &Gateway, name: &Name, mark: &Mark, scope: &mut Scope<'_>) {
        for listener in &gateway.listeners {
            let port = listener.port;
            let what = format!("port {port} of Gateway `{name}`");
            self.port((Protocol::Tcp, port), &what, mark, scope);
        }
        let sets = self.resources.listener_sets.values();
        for set in sets.filter(|set| set.gateway == *name) {
            for listener in &set.listeners {
                let port = listener.port;
                let what = format!("port {port} of Gateway `{name}`");
                self.port((Protocol::Tcp, port), &what, mark, scope);
            }
        }
    }

    fn section(&mut self, gateway: &Gateway, section: &str, mark: &Mark, scope: &mut Scope<'_>) {
        let name = &gateway.meta.name;
        let names = || {
            gateway
                .listeners
                .iter()
                .map(|listener| listener.name.as_str())
        };
        let found = gateway
            .listeners
            .iter()
            .find(|listener| listener.name == section);
        match found {
            Some(listener) => {
                let port = listener.port;
                let what = format!("port {port} of Gateway `{name}`");
                self.port((Protocol::Tcp, port), &what, mark, scope);
            }
            None => scope.error(
                mark,
                format!("the Gateway `{name}` has no listener `{section}`"),
                format!("its listeners are {}", suggest::listed(names())),
            ),
        }
    }

    fn port(&mut self, port: (Protocol, u16), what: &str, mark: &Mark, scope: &mut Scope<'_>) {
        match self.taken.ports.get(&port) {
            Some(other) if *other != self.policy => scope.error(
                mark,
                format!("{what} is limited by `{other}` already"),
                "one policy a port: join the two",
            ),
            _ => {
                self.taken.ports.insert(port, self.policy.clone());
                self.ports.push(port);
            }
        }
    }

    fn interface(&mut self, name: &str, mark: &Mark, scope: &mut Scope<'_>) {
        if let Some(other) = self.taken.interfaces.get(name) {
            scope.error(
                mark,
                format!("the interface `{name}` is limited by `{other}` already"),
                "one policy an interface: join the two",
            );
            return;
        }
        let attached = &self.daemon.interfaces;
        if !attached.is_empty() && attached.iter().all(|one| one.name != name) {
            let names = attached.iter().map(|one| one.name.as_str());
            let remedy = suggest::remedy(name, names, "those it names are");
            scope.warning(
                mark,
                format!("the LimiterConfig does not name `{name}`, so nothing is enforced there"),
                remedy,
            );
        }
        self.taken
            .interfaces
            .insert(name.to_owned(), self.policy.clone());
        self.interfaces.push(name.to_owned());
    }
}
