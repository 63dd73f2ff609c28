//! Brings the maps to what the plan says, while packets go on being judged by them.
//!
//! Policies keep their ids by name, over reloads and restarts, because buckets are filed under the
//! id: a reload that gave new ids would refill everybody's bucket. The name of a policy that is gone
//! keeps its id (and the policy's counters) until another policy needs it.

use std::collections::{BTreeMap, BTreeSet};

use limiter_common::policy::{POLICY_NAME_LEN, UNIT_CONNECTIONS, UNIT_PACKETS};
use limiter_common::{MAX_POLICIES, MAX_PORTS, PolicyName, PortKey, PortPolicy, Protocol};

use super::error::L4Error;
use super::maps::Tables;
use crate::policy::plan::NetworkPolicy;

/// Puts `policies` in force, and nothing else. What cannot be put in force changes nothing.
pub(super) fn sync(tables: &mut Tables, policies: &[NetworkPolicy]) -> Result<(), L4Error> {
    let names = names(tables)?;
    let assignment = assign(&names, policies)?;
    let wanted = ports(policies, &assignment.ids)?;

    // Ports that lose their policy first: an id is given to another policy only when no port
    // leads to it any more.
    let present: BTreeMap<_, _> = tables.ports()?.into_iter().map(entry).collect();
    for (&(protocol, port), _) in present.iter().filter(|(key, _)| !wanted.contains_key(key)) {
        tables.remove_port(PortKey::new(protocol, port))?;
    }
    for (id, name) in assignment.new {
        if names.contains_key(&id) {
            tables.purge(id)?;
        }
        tables.set_name(id, name)?;
    }
    for (key, policy) in wanted {
        if present.get(&key) != Some(&policy) {
            tables.set_port(PortKey::new(key.0, key.1), policy)?;
        }
    }
    Ok(())
}

/// The ids taken, with their names.
pub(super) fn names(tables: &Tables) -> Result<BTreeMap<u32, String>, L4Error> {
    let mut names = BTreeMap::new();
    for id in 1..MAX_POLICIES {
        if let Some(name) = tables.name(id)? {
            names.insert(id, name);
        }
    }
    Ok(names)
}

/// Which id each policy gets.
#[derive(Debug, Default, PartialEq, Eq)]
struct Assignment<'a> {
    ids: BTreeMap<&'a str, u32>,
    /// The ids that change hands, with the names that they get.
    new: Vec<(u32, PolicyName)>,
}

/// A policy that had an id keeps it; another gets a free one, or one whose policy is gone.
fn assign<'a>(
    names: &BTreeMap<u32, String>,
    policies: &'a [NetworkPolicy],
) -> Result<Assignment<'a>, L4Error> {
    let mut assignment = Assignment::default();
    let wanted: BTreeSet<&str> = policies.iter().map(|policy| policy.name.as_str()).collect();
    let gone = names
        .iter()
        .filter(|(_, name)| !wanted.contains(name.as_str()))
        .map(|(id, _)| *id);
    let free = (1..MAX_POLICIES).filter(|id| !names.contains_key(id));
    let mut available = free.chain(gone);
    let known: BTreeMap<&str, u32> = names
        .iter()
        .map(|(id, name)| (name.as_str(), *id))
        .collect();
    for name in &wanted {
        if let Some(id) = known.get(name) {
            assignment.ids.insert(name, *id);
            continue;
        }
        let max = MAX_POLICIES as usize - 1;
        let found = wanted.len();
        let id = available
            .next()
            .ok_or(L4Error::TooManyPolicies { found, max })?;
        assignment.ids.insert(name, id);
        assignment.new.push((id, stored(name)?));
    }
    Ok(assignment)
}

fn stored(name: &str) -> Result<PolicyName, L4Error> {
    let too_long = || L4Error::NameTooLong {
        name: name.to_owned(),
        max: POLICY_NAME_LEN,
    };
    let mut stored = PolicyName {
        len: 0,
        name: [0; POLICY_NAME_LEN],
    };
    stored.len = u32::try_from(name.len()).map_err(|_overflow| too_long())?;
    let place = stored.name.get_mut(..name.len()).ok_or_else(too_long)?;
    place.copy_from_slice(name.as_bytes());
    Ok(stored)
}

/// Protocol and port, in an order for maps.
type Port = (u8, u16);

fn entry((key, policy): (PortKey, PortPolicy)) -> (Port, PortPolicy) {
    ((key.protocol, key.port), policy)
}

/// What each port is to be under.
fn ports(
    policies: &[NetworkPolicy],
    ids: &BTreeMap<&str, u32>,
) -> Result<BTreeMap<Port, PortPolicy>, L4Error> {
    let mut ports = BTreeMap::new();
    let mut owners: BTreeMap<u16, &str> = BTreeMap::new();
    for policy in policies {
        let Some(&id) = ids.get(policy.name.as_str()) else {
            continue;
        };
        for &port in &policy.ports {
            if let Some(first) = owners.insert(port, &policy.name) {
                let (first, second) = (first.to_owned(), policy.name.clone());
                return Err(L4Error::PortTaken {
                    port,
                    first,
                    second,
                });
            }
            ports.insert((Protocol::Tcp as u8, port), port_policy(policy, id));
        }
    }
    let max = MAX_PORTS as usize;
    if ports.len() > max {
        return Err(L4Error::TooManyPorts {
            found: ports.len(),
            max,
        });
    }
    Ok(ports)
}

fn port_policy(policy: &NetworkPolicy, id: u32) -> PortPolicy {
    let mut units = 0;
    if policy.connections.is_some() {
        units |= UNIT_CONNECTIONS;
    }
    if policy.packets.is_some() {
        units |= UNIT_PACKETS;
    }
    PortPolicy {
        policy: id,
        units,
        connections: policy.connections.unwrap_or_default(),
        packets: policy.packets.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
