//! The table of blocks and the store: what is heard of it, and what it is to be told.

use ipnet::IpNet;

use super::blocks::{Blocks, MILLISECOND};
use super::counts::Event;
use super::entry::{Cause, Origin, Pending, Remote, Scope};
use super::stream::{ServerClock, StreamId};
use super::table::{Entry, Lift, Table};
use crate::engine::time::Now;

/// Ends that differ by less are the same end, worked out at two moments.
const SAME: u64 = 1_000_000_000;

impl Blocks {
    /// The store told that `net` is blocked, by the event `seen`.
    pub fn blocked(
        &self,
        net: IpNet,
        remote: &Remote,
        seen: StreamId,
        clock: &ServerClock,
        now: Now,
    ) {
        self.follow(&mut self.table(), net, remote, seen, clock, now);
    }

    /// Whether that was news.
    pub(super) fn follow(
        &self,
        table: &mut Table,
        net: IpNet,
        remote: &Remote,
        seen: StreamId,
        clock: &ServerClock,
        now: Now,
    ) -> bool {
        let until = clock.here(remote.until);
        if until <= now.mono {
            return false;
        }
        // Lifted here: the store is about to be told.
        let lifted = |lift: &Lift| lift.until_ms.is_none_or(|end| end >= remote.until);
        if table.lifts.get(&net).is_some_and(lifted) {
            return false;
        }
        table.lifts.remove(&net);
        let key = (net, Scope::Fleet);
        let before = table
            .entries
            .get(&key)
            .map(|before| (before.until, before.origin, before.cause.clone()));
        if let Some((longer, Origin::Unsent, _)) = &before
            && *longer > until.saturating_add(SAME)
        {
            // It lasts longer here, which the store is about to be told.
            return false;
        }
        let newer = |entry: &Entry| entry.origin == Origin::Fleet && entry.seen > seen;
        if table.entries.get(&key).is_some_and(newer) || !self.make_room(table, key, until) {
            return false;
        }
        let shorter = before
            .as_ref()
            .is_some_and(|(before, ..)| *before > until.saturating_add(SAME));
        if shorter {
            let by = Cause::told("it is blocked for a shorter time");
            if let Err(error) = self.lift_here(table, key, &by) {
                self.failed(net, &error);
            }
        }
        let entry = Entry {
            until,
            passed: clock.here(remote.since),
            since_ms: Some(remote.since),
            until_ms: remote.until,
            cause: remote.cause.clone(),
            origin: Origin::Fleet,
            seen,
        };
        table.insert(key, entry);
        if let Err(error) = self.enforce(table, net) {
            self.failed(net, &error);
            return false;
        }
        let news = before.is_none_or(|(before, _, cause)| {
            before.abs_diff(until) > SAME || cause != remote.cause
        });
        if news {
            self.in_force(key, &remote.cause, until);
        }
        news
    }

    /// The store told that `net` is not blocked any more, by the event `seen`.
    pub fn lifted(&self, net: IpNet, by: &Cause, seen: StreamId) {
        let table = &mut *self.table();
        let key = (net, Scope::Fleet);
        let known = table.entries.get(&key);
        // What was blocked anew since, by an event that is still to be heard or is to be sent, stays.
        if known.is_none_or(|entry| entry.origin == Origin::Unsent || entry.seen > seen) {
            return;
        }
        if let Err(error) = self.lift_here(table, key, by) {
            self.failed(net, &error);
        }
    }

    /// Whether `epoch` is that of the store that the table follows.
    #[must_use]
    pub fn knows(&self, epoch: &str) -> bool {
        self.table().epoch.as_deref() == Some(epoch)
    }

    /// Up to where the store has been heard of.
    #[must_use]
    pub fn position(&self) -> StreamId {
        self.table().position
    }

    /// The store has been heard of up to `position`.
    pub fn heard(&self, position: StreamId) {
        self.table().position = position;
    }

    /// What the store is to be told, at most `most` of it.
    #[must_use]
    pub fn pending(&self, most: usize, now: Now) -> Vec<Pending> {
        let table = &mut *self.table();
        table.expire(now);
        let lifts = table.lifts.iter().map(|(net, lift)| Pending::Lift {
            net: *net,
            until: lift.until_ms,
            by: lift.by.clone(),
        });
        let unsent = table
            .entries
            .iter()
            .filter(|(_, entry)| entry.origin == Origin::Unsent);
        let blocks = unsent.map(|((net, _), entry)| Pending::Block {
            net: *net,
            left: (entry.until - now.mono).div_ceil(MILLISECOND),
            age: now.mono.saturating_sub(entry.passed) / MILLISECOND,
            cause: entry.cause.clone(),
            mark: entry.until,
        });
        lifts.chain(blocks).take(most).collect()
    }

    /// The store has the block that was pending with this `mark`, as it says; `None`: it has no room
    /// for it, so it stays this node's.
    pub fn sent(
        &self,
        net: IpNet,
        mark: u64,
        remote: Option<(&Remote, StreamId)>,
        clock: &ServerClock,
    ) {
        let table = &mut *self.table();
        let key = (net, Scope::Fleet);
        let found = table.entries.get(&key);
        if found.is_none_or(|entry| entry.until != mark || entry.origin != Origin::Unsent) {
            // Lifted, or passed anew, meanwhile.
            return;
        }
        let Some(mut entry) = table.remove(key) else {
            return;
        };
        let scope = match remote {
            Some((remote, seen)) => {
                entry.until = clock.here(remote.until).max(entry.until);
                entry.until_ms = remote.until;
                entry.since_ms = Some(remote.since);
                entry.cause.clone_from(&remote.cause);
                entry.origin = Origin::Fleet;
                entry.seen = seen;
                self.counts.add(Event::Sent);
                Scope::Fleet
            }
            None => {
                entry.origin = Origin::Node;
                self.note(Event::GaveWay, (net, Scope::Fleet), &entry.cause);
                Scope::Node
            }
        };
        table.insert((net, scope), entry);
        if let Err(error) = self.enforce(table, net) {
            self.failed(net, &error);
        }
    }

    /// The store has lifted what was to be lifted up to `until`.
    pub fn sent_lift(&self, net: IpNet, until: Option<u64>) {
        let table = &mut *self.table();
        if table
            .lifts
            .get(&net)
            .is_some_and(|lift| lift.until_ms == until)
        {
            table.lifts.remove(&net);
            self.counts.add(Event::Sent);
        }
    }
}
