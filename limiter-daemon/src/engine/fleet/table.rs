//! What is known of blocks, found by network and by end.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::entry::{Cause, Origin, Scope};
use super::stream::StreamId;
use crate::engine::time::Now;

/// A network may be blocked by this node and by the fleet.
pub(super) type Key = (IpNet, Scope);

#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) entries: BTreeMap<Key, Entry>,
    /// The same, by when they end.
    pub(super) ends: BTreeSet<(u64, Key)>,
    /// Lifted here, and the store is to be told.
    pub(super) lifts: BTreeMap<IpNet, Lift>,
    /// What the store has been heard of up to.
    pub(super) position: StreamId,
    pub(super) epoch: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) until: u64,
    /// When it was passed.
    pub(super) passed: u64,
    pub(super) since_ms: Option<u64>,
    pub(super) until_ms: u64,
    pub(super) cause: Cause,
    pub(super) origin: Origin,
    /// The event that told it.
    pub(super) seen: StreamId,
}

#[derive(Clone, Debug)]
pub(super) struct Lift {
    pub(super) by: Cause,
    /// When it is of no interest any more.
    pub(super) until: u64,
    pub(super) until_ms: Option<u64>,
}

impl Table {
    pub(super) fn insert(&mut self, key: Key, entry: Entry) -> Option<Entry> {
        let before = self.remove(key);
        self.ends.insert((entry.until, key));
        self.entries.insert(key, entry);
        before
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Entry> {
        let entry = self.entries.remove(&key)?;
        self.ends.remove(&(entry.until, key));
        Some(entry)
    }

    /// Forgets what is over.
    pub(super) fn expire(&mut self, now: Now) {
        while let Some((until, key)) = self.ends.first().copied() {
            if until > now.mono {
                break;
            }
            self.remove(key);
        }
        self.lifts.retain(|_, lift| lift.until > now.mono);
    }

    /// `net`, if it is blocked, and the blocked networks inside it.
    pub(super) fn within(&self, net: IpNet) -> Vec<IpNet> {
        let last = net.broadcast();
        let from = self
            .entries
            .range((net, Scope::Node)..)
            .map(|((other, _), _)| *other);
        let mut nets: Vec<_> = from
            .take_while(|other| same_family(*other, net) && other.addr() <= last)
            .filter(|other| net.contains(other))
            .collect();
        nets.dedup();
        nets
    }
}

const fn same_family(one: IpNet, other: IpNet) -> bool {
    matches!(
        (one, other),
        (IpNet::V4(_), IpNet::V4(_)) | (IpNet::V6(_), IpNet::V6(_))
    )
}
