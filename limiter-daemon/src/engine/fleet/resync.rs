//! Making the table of blocks what the store has, in steps: there may be as many as the table holds, and
//! whoever else works on the same thread is not to wait for all of them.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::sync::atomic::Ordering;
use std::vec;

use ipnet::IpNet;

use super::blocks::Blocks;
use super::counts::Event;
use super::entry::{Cause, Origin, Remote, Scope};
use super::stream::{ServerClock, StreamId};
use crate::engine::time::Now;

/// Changes that are noted one by one; further ones are only counted.
const NOTED: usize = 64;

/// The table on its way to what the store has.
#[derive(Debug)]
pub struct Resync<'a> {
    blocks: &'a Blocks,
    /// What the store has not, and whether it has lost it.
    gone: vec::IntoIter<(IpNet, bool)>,
    rest: btree_map::Iter<'a, IpNet, Remote>,
    epoch: &'a str,
    last: StreamId,
    changes: usize,
}

impl Blocks {
    /// Makes the table what the store has, which was heard of up to `last`, while nobody hears of
    /// events.
    pub fn resync<'a>(
        &'a self,
        all: &'a BTreeMap<IpNet, Remote>,
        epoch: &'a str,
        last: StreamId,
    ) -> Resync<'a> {
        let table = &mut *self.table();
        let forgotten = table.epoch.as_ref().is_some_and(|known| known != epoch);
        let went_back = last < table.position;
        let mut gone = Vec::new();
        for ((net, _), entry) in &mut table.entries {
            if entry.origin != Origin::Fleet {
                continue;
            }
            if !all.contains_key(net) {
                gone.push((*net, forgotten || went_back && entry.seen > last));
            }
            // What comes now is later, whatever the server's clock says.
            entry.seen = entry.seen.min(last);
        }
        Resync {
            blocks: self,
            gone: gone.into_iter(),
            rest: all.iter(),
            epoch,
            last,
            changes: 0,
        }
    }
}

impl Resync<'_> {
    /// Goes on with at most `most` blocks; `false`: that was all.
    pub fn step(&mut self, most: usize, clock: &ServerClock, now: Now) -> bool {
        let blocks = self.blocks;
        let table = &mut *blocks.table();
        table.expire(now);
        for _ in 0..most {
            blocks.quiet.store(self.changes >= NOTED, Ordering::Relaxed);
            if let Some((net, lost)) = self.gone.next() {
                let key = (net, Scope::Fleet);
                let entry = table.entries.get_mut(&key);
                let Some(entry) = entry.filter(|entry| entry.origin == Origin::Fleet) else {
                    continue;
                };
                self.changes += 1;
                let done = if lost {
                    entry.origin = Origin::Unsent;
                    entry.seen = StreamId::default();
                    blocks.enforce(table, net)
                } else {
                    let by = Cause::told("the fleet does not block it any more");
                    blocks.lift_here(table, key, &by).map(drop)
                };
                if let Err(error) = done {
                    blocks.failed(net, &error);
                }
            } else if let Some((net, remote)) = self.rest.next() {
                let news = blocks.follow(table, *net, remote, self.last, clock, now);
                self.changes += usize::from(news);
            } else {
                table.epoch = Some(self.epoch.to_owned());
                table.position = self.last;
                blocks.quiet.store(false, Ordering::Relaxed);
                blocks.counts.add(Event::Resynced);
                return false;
            }
        }
        blocks.quiet.store(false, Ordering::Relaxed);
        true
    }

    /// Blocks that came, went, or were lost there, so far.
    #[must_use]
    pub const fn changes(&self) -> usize {
        self.changes
    }
}
