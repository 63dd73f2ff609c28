//! Which server has which slot, as a server of the cluster tells (`CLUSTER SLOTS`).

use redis::Value;

use crate::engine::store::slot::SLOTS;
use crate::policy::plan::StoreHost;

/// Marks a slot that nobody has.
const NOBODY: u16 = u16::MAX;
/// Ranges that are looked at.
const RANGES: usize = SLOTS as usize;

/// Where slots are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Map {
    /// By slot, the index of its master.
    owners: Vec<u16>,
    masters: Vec<StoreHost>,
    /// Masters and replicas.
    all: Vec<StoreHost>,
}

impl Map {
    /// What an answer says that `asked` gave; `None`: nothing, or nobody has any slot.
    pub(super) fn read(answer: &Value, asked: &StoreHost) -> Option<Self> {
        let Value::Array(ranges) = answer else {
            return None;
        };
        let mut map = Self {
            owners: vec![NOBODY; usize::from(SLOTS)],
            masters: Vec::new(),
            all: Vec::new(),
        };
        for range in ranges.iter().take(RANGES) {
            let Value::Array(range) = range else {
                return None;
            };
            let [first, last, servers @ ..] = &range[..] else {
                return None;
            };
            let (first, last) = (slot(first)?, slot(last)?);
            let mut hosts = servers.iter().map(|server| place(server, asked));
            // Of a master that has no address, as one that never met the others, nothing is known.
            let Some(master) = hosts.next()? else {
                continue;
            };
            let index = index_in(&mut map.masters, &master)?;
            map.owners.get_mut(first..=last)?.fill(index);
            index_in(&mut map.all, &master)?;
            for replica in hosts.flatten() {
                index_in(&mut map.all, &replica)?;
            }
        }
        (!map.masters.is_empty()).then_some(map)
    }

    /// Index of the master; `None`: nobody has it.
    pub(super) fn owner(&self, slot: u16) -> Option<usize> {
        let index = usize::from(*self.owners.get(usize::from(slot))?);
        (index < self.masters.len()).then_some(index)
    }

    /// The masters.
    pub(super) fn masters(&self) -> &[StoreHost] {
        &self.masters
    }

    /// Masters and replicas.
    pub(super) fn all(&self) -> &[StoreHost] {
        &self.all
    }
}

fn index_in(hosts: &mut Vec<StoreHost>, host: &StoreHost) -> Option<u16> {
    let index = hosts.iter().position(|other| other == host);
    let index = index.unwrap_or_else(|| {
        hosts.push(host.clone());
        hosts.len() - 1
    });
    u16::try_from(index).ok().filter(|index| *index != NOBODY)
}

fn slot(value: &Value) -> Option<usize> {
    match value {
        Value::Int(slot) => usize::try_from(*slot).ok(),
        _ => None,
    }
}

/// A server's address; without one (an empty name, or none) it is at that of who was asked.
fn place(server: &Value, asked: &StoreHost) -> Option<StoreHost> {
    let Value::Array(server) = server else {
        return None;
    };
    let [name, Value::Int(port), ..] = &server[..] else {
        return None;
    };
    let name = text(name)?;
    named(name, u16::try_from(*port).ok()?, asked)
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        Value::Nil => Some(""),
        _ => None,
    }
}

fn named(name: &str, port: u16, asked: &StoreHost) -> Option<StoreHost> {
    let host = match name {
        // Known to have a name, and not by which.
        "?" => return None,
        "" => asked.host.clone(),
        name => name.to_owned(),
    };
    (port != 0).then_some(StoreHost { host, port })
}

/// Where a redirection leads that `asked` gave: `host:port`, also of IPv6 without brackets.
pub(super) fn host(place: &str, asked: &StoreHost) -> Option<StoreHost> {
    let (name, port) = place.rsplit_once(':')?;
    let name = name.strip_prefix('[').unwrap_or(name);
    let name = name.strip_suffix(']').unwrap_or(name);
    named(name, port.parse().ok()?, asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> StoreHost {
        StoreHost {
            host: host.to_owned(),
            port,
        }
    }

    fn server(name: &str, port: i64) -> Value {
        let name = Value::BulkString(name.as_bytes().to_vec());
        let id = Value::BulkString(b"id".to_vec());
        Value::Array(vec![name, Value::Int(port), id, Value::Array(Vec::new())])
    }

    fn range(first: i64, last: i64, servers: Vec<Value>) -> Value {
        let slots = [Value::Int(first), Value::Int(last)];
        Value::Array(slots.into_iter().chain(servers).collect())
    }

    #[test]
    fn slots_have_their_masters() {
        let asked = at("seed", 7000);
        let answer = Value::Array(vec![
            range(
                0,
                5_460,
                vec![server("10.0.0.1", 7000), server("10.0.0.4", 7003)],
            ),
            range(5_461, 16_000, vec![server("", 7001)]),
            range(16_002, 16_383, vec![server("10.0.0.1", 7000)]),
        ]);
        let map = Map::read(&answer, &asked).unwrap();
        let owners = [0, 5_460, 5_461, 16_000, 16_001, 16_383]
            .map(|slot| Some(map.masters()[map.owner(slot)?].clone()));
        let (one, two) = (Some(at("10.0.0.1", 7000)), Some(at("seed", 7001)));
        assert_eq!(
            owners,
            [one.clone(), one.clone(), two.clone(), two, None, one]
        );
        assert_eq!(map.masters().len(), 2);
        assert_eq!(map.all().len(), 3);
    }

    #[test]
    fn what_makes_no_sense_is_no_map() {
        let asked = at("seed", 7000);
        let bad = [
            Value::Nil,
            Value::Array(Vec::new()),
            Value::Array(vec![range(0, 16_384, vec![server("a", 1)])]),
            Value::Array(vec![range(9, 3, vec![server("a", 1)])]),
            Value::Array(vec![range(-1, 3, vec![server("a", 1)])]),
            Value::Array(vec![range(0, 3, Vec::new())]),
            Value::Array(vec![range(0, 3, vec![server("?", 1)])]),
        ];
        for answer in bad {
            assert_eq!(Map::read(&answer, &asked), None, "{answer:?}");
        }
    }

    #[test]
    fn redirections_lead_to_hosts() {
        let asked = at("seed", 7000);
        assert_eq!(host("10.0.0.1:7001", &asked), Some(at("10.0.0.1", 7001)));
        assert_eq!(host(":7001", &asked), Some(at("seed", 7001)));
        assert_eq!(host("::1:7001", &asked), Some(at("::1", 7001)));
        assert_eq!(host("[::1]:7001", &asked), Some(at("::1", 7001)));
        for bad in ["", "host", "host:", "host:0", "?:7001"] {
            assert_eq!(host(bad, &asked), None, "{bad}");
        }
    }
}
