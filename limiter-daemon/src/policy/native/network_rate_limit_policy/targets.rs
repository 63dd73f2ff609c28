//! What a policy applies to.

use limiter_common::Protocol;
use serde::Deserialize;

use crate::policy::decode::At;
use crate::policy::findings::{Mark, Scope};
use crate::policy::native::{GROUP, limiter_config};
use crate::policy::resource::{Meta, Name};
use crate::policy::{gateway_api, suggest};

const MAX_TARGETS: usize = 64;
const MAX_PORTS: usize = 1024;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawTarget {
    group: At<String>,
    kind: At<String>,
    name: At<String>,
    section_name: Option<At<String>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RawPort {
    protocol: RawProtocol,
    port: Option<At<u16>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum RawProtocol {
    Tcp,
    Udp,
    Icmp,
}

/// All targets of a policy.
#[derive(Clone, Debug)]
pub(crate) struct Targets {
    pub(crate) refs: Vec<Target>,
    pub(crate) ports: Vec<Port>,
    /// Something among them could have connections.
    pub(super) connects: bool,
}

impl Targets {
    /// Ports, of which at least one could have connections.
    pub(crate) const fn of_ports(ports: Vec<Port>) -> Self {
        Self {
            refs: Vec::new(),
            ports,
            connects: true,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Target {
    Gateway {
        name: Name,
        mark: Mark,
        /// One listener of it only.
        section: Option<At<String>>,
    },
    Interface(At<String>),
}

/// A port named as such; ICMP stands at port 0.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    pub(crate) mark: Mark,
}

pub(super) fn lower(
    refs: Option<At<Vec<At<RawTarget>>>>,
    ports: Option<At<Vec<At<RawPort>>>>,
    mark: &Mark,
    meta: &Meta,
    scope: &mut Scope<'_>,
) -> Targets {
    let empty = |list: Option<usize>| list.unwrap_or_default() == 0;
    if empty(refs.as_ref().map(|refs| refs.len())) && empty(ports.as_ref().map(|list| list.len())) {
        scope.error(
            mark,
            "no targets, so the policy applies to nothing",
            "name a Gateway or an Interface under `targetRefs`, or ports under `ports`",
        );
    }
    let connects = refs.as_ref().is_some_and(|refs| !refs.is_empty())
        || ports.as_ref().is_none_or(|ports| {
            ports.is_empty()
                || ports
                    .iter()
                    .any(|port| matches!(port.protocol, RawProtocol::Tcp))
        });
    Targets {
        refs: lower_refs(refs, meta, scope),
        ports: lower_ports(ports, scope),
        connects,
    }
}

fn lower_refs(
    raw: Option<At<Vec<At<RawTarget>>>>,
    meta: &Meta,
    scope: &mut Scope<'_>,
) -> Vec<Target> {
    let Some(raw) = raw else {
        return Vec::new();
    };
    scope.at_most(&raw.mark, raw.len(), MAX_TARGETS);
    let mut targets: Vec<Target> = Vec::new();
    for target in raw.value {
        let Some(target) = lower_target(target.value, meta, scope) else {
            continue;
        };
        if targets.iter().any(|other| other.is(&target)) {
            scope.error(
                target.mark(),
                "the same target is named twice",
                "keep one of them",
            );
        } else {
            targets.push(target);
        }
    }
    targets
}

impl Target {
    fn is(&self, other: &Self) -> bool {
        let text = |at: &Option<At<String>>| at.as_ref().map(|at| at.value.clone());
        match (self, other) {
            (Self::Interface(one), Self::Interface(two)) => one.value == two.value,
            (
                Self::Gateway { name, section, .. },
                Self::Gateway {
                    name: other,
                    section: part,
                    ..
                },
            ) => name == other && text(section) == text(part),
            _ => false,
        }
    }

    fn mark(&self) -> &Mark {
        match self {
            Self::Gateway { mark, .. } => mark,
            Self::Interface(name) => &name.mark,
        }
    }
}

fn lower_target(raw: RawTarget, meta: &Meta, scope: &mut Scope<'_>) -> Option<Target> {
    match (raw.group.value.as_str(), raw.kind.value.as_str()) {
        (gateway_api::GROUP, "Gateway") => Some(Target::Gateway {
            name: Name::new(&meta.name.namespace, &raw.name),
            mark: raw.name.mark,
            section: raw.section_name,
        }),
        (GROUP, "Interface") => {
            if let Some(section) = &raw.section_name {
                scope.error(
                    &section.mark,
                    "an Interface has no sections",
                    "remove `sectionName`; single ports go under `ports`",
                );
            }
            limiter_config::check_interface_name(&raw.name, scope)
                .then_some(Target::Interface(raw.name))
        }
        (gateway_api::GROUP | GROUP, kind) => {
            let group = match kind {
                "Gateway" => Some(gateway_api::GROUP),
                "Interface" => Some(GROUP),
                _ => None,
            };
            match group {
                Some(group) => scope.error(
                    &raw.group.mark,
                    format!("there is no `{kind}` in `{}`", raw.group.value),
                    format!("write `{group}`"),
                ),
                None => scope.error(
                    &raw.kind.mark,
                    format!("`{kind}` cannot be a target here"),
                    "the kernel sees ports, not requests: name a `Gateway` or an `Interface`",
                ),
            }
            None
        }
        (group, _) => {
            scope.error(
                &raw.group.mark,
                format!("nothing of the group `{group}` can be a target"),
                format!("it may be {}", suggest::listed([gateway_api::GROUP, GROUP])),
            );
            None
        }
    }
}

fn lower_ports(raw: Option<At<Vec<At<RawPort>>>>, scope: &mut Scope<'_>) -> Vec<Port> {
    let Some(raw) = raw else {
        return Vec::new();
    };
    scope.at_most(&raw.mark, raw.len(), MAX_PORTS);
    let mut ports: Vec<Port> = Vec::new();
    for At { value, mark } in raw.value {
        let Some((protocol, port)) = lower_port(&value, &mark, scope) else {
            continue;
        };
        let same = |other: &Port| (other.protocol, other.port) == (protocol, port);
        if ports.iter().any(same) {
            scope.error(&mark, "the same port is named twice", "keep one of them");
        } else {
            ports.push(Port {
                protocol,
                port,
                mark,
            });
        }
    }
    ports
}

fn lower_port(raw: &RawPort, mark: &Mark, scope: &mut Scope<'_>) -> Option<(Protocol, u16)> {
    let protocol = match raw.protocol {
        RawProtocol::Tcp => Protocol::Tcp,
        RawProtocol::Udp => Protocol::Udp,
        RawProtocol::Icmp => Protocol::Icmp,
    };
    match (protocol, &raw.port) {
        (Protocol::Icmp, None) => Some((protocol, 0)),
        (Protocol::Icmp, Some(port)) => {
            scope.error(&port.mark, "ICMP has no ports", "remove `port`");
            None
        }
        (_, Some(port)) if port.value > 0 => Some((protocol, port.value)),
        (_, Some(port)) => {
            scope.error(&port.mark, "0 is no port", "write 1 to 65535");
            None
        }
        (_, None) => {
            scope.error(mark, "the field `port` is missing", "write 1 to 65535");
            None
        }
    }
}
