//! A set of policies as the program reads it: what one generation of the maps holds.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};
use limiter_common::key::{CIDR_SET_BITS, mix, port_index};
use limiter_common::policy::{FLAG_CIDRS, FLAG_SHADOW, MAX_CIDRS, MAX_CLASSES, MAX_LEVELS};
use limiter_common::{Address, CidrAction, Class, Level, Limit, Policy, Protocol, Unit};

use super::error::L4Error;
use crate::policy::plan::{NetworkLevel, NetworkPolicy, Scope, SourceLimits};

/// Length of the prefix that IPv4 addresses have in front of them in a trie.
const MAPPED: u8 = 96;

/// Buckets that take so long to fill, in nanoseconds, do with the coarse clock, whose tick is 10 ms
/// at most.
const COARSE_TOLERANCE: u64 = 100_000_000;

/// A CIDR of the policy with this id: prefix length counted from the set's first bit on.
pub(super) type Cidr = (u32, [u8; 16], u32);

/// What one generation holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Image {
    /// Ids of policies by the index of a port, as if in generation 0.
    pub(super) ports: BTreeMap<u32, u32>,
    /// Ids of policies by the index of an interface.
    pub(super) interfaces: BTreeMap<u32, u32>,
    /// By id.
    pub(super) policies: BTreeMap<u32, Policy>,
    pub(super) classes: Vec<Class>,
    /// [`CidrAction`]s as they lie in the map.
    pub(super) cidrs: HashMap<Cidr, u32>,
}

/// What is to be put in force: the image, and what the kernel does not know of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Compiled {
    pub(super) image: Image,
    /// Interfaces targeted as a whole, with the ids of their policies.
    pub(super) targets: Vec<(String, u32)>,
    /// By class: the rule that it belongs to; `None` for a policy's default.
    pub(super) rules: Vec<Option<String>>,
}

impl Compiled {
    /// Compiles `policies`. Which indices the interfaces have is for the caller to fill in.
    pub(super) fn new(
        policies: &[NetworkPolicy],
        ids: &BTreeMap<&str, u32>,
    ) -> Result<Self, L4Error> {
        let mut compiled = Self::default();
        let mut owners: HashMap<u32, &str> = HashMap::new();
        let mut tenants: HashMap<&str, &str> = HashMap::new();
        for policy in policies {
            let Some(&id) = ids.get(policy.name.as_str()) else {
                continue;
            };
            for &(protocol, port) in &policy.ports {
                let index = port_index(0, protocol, port);
                if let Some(first) = owners.insert(index, &policy.name) {
                    return Err(port_taken(protocol, port, first, &policy.name));
                }
                compiled.image.ports.insert(index, id);
            }
            for interface in &policy.interfaces {
                if let Some(first) = tenants.insert(interface, &policy.name) {
                    return Err(L4Error::InterfaceTaken {
                        interface: interface.clone(),
                        first: first.to_owned(),
                        second: policy.name.clone(),
                    });
                }
                compiled.targets.push((interface.clone(), id));
            }
            compiled.policy(policy, id)?;
        }
        let (found, max) = (compiled.image.cidrs.len(), MAX_CIDRS as usize / 2);
        if found > max {
            return Err(L4Error::TooManyCidrs { found, max });
        }
        Ok(compiled)
    }

    /// The policies of the interfaces that `index` knows.
    pub(super) fn interfaces(&self, index: impl Fn(&str) -> Option<u32>) -> BTreeMap<u32, u32> {
        self.targets
            .iter()
            .filter_map(|(name, id)| Some((index(name)?, *id)))
            .collect()
    }

    fn policy(&mut self, policy: &NetworkPolicy, id: u32) -> Result<(), L4Error> {
        let class = self.class(policy, None, &policy.default)?;
        let lists = [&policy.allow, &policy.deny];
        let named = policy.rules.iter().map(|rule| &rule.cidrs).chain(lists);
        if named.flatten().any(covers_ipv4) {
            // An IPv6 network means IPv6 sources; a network for all of IPv4 below replaces this.
            let all_v4 = [IpNet::from(Ipv4Net::default())];
            self.list(id, &all_v4, CidrAction::Class(class));
        }
        for rule in &policy.rules {
            let class = self.class(policy, Some(&rule.name), &rule.limits)?;
            self.list(id, &rule.cidrs, CidrAction::Class(class));
        }
        self.list(id, &policy.deny, CidrAction::Deny);
        self.list(id, &policy.allow, CidrAction::Allow);
        let cidrs = !policy.allow.is_empty()
            || !policy.deny.is_empty()
            || policy.rules.iter().any(|rule| !rule.cidrs.is_empty());
        let mut flags = 0;
        if policy.shadow {
            flags |= FLAG_SHADOW;
        }
        if cidrs {
            flags |= FLAG_CIDRS;
        }
        let policy = Policy {
            id,
            flags,
            class,
            reserved: 0,
        };
        self.image.policies.insert(id, policy);
        Ok(())
    }

    fn class(
        &mut self,
        policy: &NetworkPolicy,
        rule: Option<&str>,
        limits: &SourceLimits,
    ) -> Result<u32, L4Error> {
        let levels: &[NetworkLevel] = match limits {
            SourceLimits::Unlimited => &[],
            SourceLimits::Levels(levels) => levels,
        };
        let max = MAX_LEVELS as usize;
        if levels.len() > max {
            return Err(L4Error::TooManyLevels {
                policy: policy.name.clone(),
                found: levels.len(),
                max,
            });
        }
        let mut class = Class {
            count: u32::try_from(levels.len()).unwrap_or(MAX_LEVELS),
            ..Class::default()
        };
        for (place, limits) in class.levels.iter_mut().zip(levels) {
            *place = level(limits, seed(&policy.name, rule, limits.scope));
        }
        class.sole = sole(&class);
        let index = self.image.classes.len();
        let max = MAX_CLASSES as usize;
        if index >= max {
            return Err(L4Error::TooManyClasses { max });
        }
        self.image.classes.push(class);
        self.rules.push(rule.map(str::to_owned));
        Ok(u32::try_from(index).unwrap_or(u32::MAX))
    }

    fn list(&mut self, id: u32, cidrs: &[IpNet], action: CidrAction) {
        for cidr in cidrs {
            let (address, length) = prefix(cidr);
            let key = (id, address, CIDR_SET_BITS + length);
            self.image.cidrs.insert(key, action.to_raw());
        }
    }
}

/// Whether an IPv6 network contains the addresses that stand for IPv4 in a trie (`::ffff:0:0/96`).
#[must_use]
pub fn covers_ipv4(net: &IpNet) -> bool {
    let mapped = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0);
    matches!(net, IpNet::V6(net) if net.prefix_len() <= MAPPED && net.contains(&mapped))
}

/// The network as it lies in a trie: its first address, and the length of its prefix.
pub(super) fn prefix(net: &IpNet) -> ([u8; 16], u32) {
    let length = u32::from(net.prefix_len());
    match net.network() {
        IpAddr::V4(address) => (
            Address::v4(address.octets()).octets(),
            u32::from(MAPPED) + length,
        ),
        IpAddr::V6(address) => (address.octets(), length),
    }
}

fn level(limits: &NetworkLevel, seed: u64) -> Level {
    let (mask_v4, mask_v6) = match limits.scope {
        Scope::Listener => (Address::default(), Address::default()),
        Scope::Source { v4, v6 } => (Address::mask_v4(v4.into()), Address::mask(v6.into())),
    };
    let mut level = Level {
        mask_v4,
        mask_v6,
        seed,
        ..Level::default()
    };
    let limits: [Option<Limit>; 3] = [limits.connections, limits.packets, limits.bytes];
    for ((unit, limit), place) in Unit::ALL.iter().zip(limits).zip(&mut level.limits) {
        let Some(limit) = limit else { continue };
        *place = limit;
        level.units |= unit.bit();
        if limit.tolerance >= COARSE_TOLERANCE {
            level.coarse |= unit.bit();
        }
    }
    level
}

/// See [`Class::sole`].
fn sole(class: &Class) -> u32 {
    let units = class.levels.first().map_or(0, |level| level.units);
    if class.count == 1 && units.is_power_of_two() {
        units.trailing_zeros() + 1
    } else {
        0
    }
}

/// The identity of a level's buckets. Not of the limits: they change, and the buckets stay.
fn seed(policy: &str, rule: Option<&str>, scope: Scope) -> u64 {
    let scope = match scope {
        Scope::Listener => 1 << 16,
        Scope::Source { v4, v6 } => u64::from(v4) << 8 | u64::from(v6),
    };
    let policy = digest(0x6c69_6d69_7465_7264, policy);
    let rule = rule.map_or(policy, |rule| digest(!policy, rule));
    mix(rule ^ mix(scope.wrapping_add(1)))
}

/// A 64-bit hash of a text that depends on `start`; stable, as the buckets it leads to are.
fn digest(start: u64, text: &str) -> u64 {
    let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
    text.as_bytes()
        .chunks(8)
        .fold(mix(start ^ length), |hash, chunk| {
            let mut word = [0; 8];
            for (place, byte) in word.iter_mut().zip(chunk) {
                *place = *byte;
            }
            mix(hash ^ u64::from_le_bytes(word)).wrapping_add(0x9e37_79b9_7f4a_7c15)
        })
}

fn port_taken(protocol: Protocol, port: u16, first: &str, second: &str) -> L4Error {
    let protocol = match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Icmp => "ICMP",
    };
    L4Error::PortTaken {
        protocol,
        port,
        first: first.to_owned(),
        second: second.to_owned(),
    }
}

#[cfg(test)]
mod tests;
