//! The table of blocks: those of this node and those of the fleet.
//!
//! The store has the truth about the fleet's, and this table follows it: what the store tells is
//! blocked here, what it lifts is lifted here. It is told the other way as well: what is passed or
//! lifted here is in force here at once, and [`Blocks::pending`] until the store has it. So losing the
//! store costs reach, and nothing else.
//!
//! **A store that has forgotten** (restarted empty, or another one in its place) has another epoch:
//! then what is missing there was lost, not lifted, and is told to it again. One that went back (a
//! replica that had not got the last events) is told those.
//!
//! **In the kernel** lies one sentence a network: of a network that both block, the longer. The kernel
//! keeps no narrower sentence that ends before a wider one; when the wider one is lifted, those inside
//! it are put there again from this table.
//!
//! Instants are those of [`Now::mono`], which is the kernel's clock here, and of the server's clock,
//! which a [`ServerClock`](super::ServerClock) relates to it. The wall clock of a node only tells people when.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use limiter_common::policy::MAX_SENTENCES;

use super::counts::{Counts, Event};
use super::entry::{Block, BlockError, Cause, Gate, GateError, Origin, Scope, Sentence, Told};
use super::stream::StreamId;
use super::table::{Entry, Key, Lift, Table};
use crate::engine::time::Now;

/// Blocks of both scopes at most; when there are as many, the one that ends first gives way.
pub const MAX_BLOCKS: usize = MAX_SENTENCES as usize;

pub(super) const MILLISECOND: u64 = 1_000_000;

/// The table, with what enforces it.
#[derive(Debug)]
pub struct Blocks {
    gate: Arc<dyn Gate>,
    /// Whether there is a store.
    shared: bool,
    table: Mutex<Table>,
    pub(super) counts: Counts,
    /// What comes of blocks is counted, and not told one by one.
    pub(super) quiet: AtomicBool,
}

impl Blocks {
    /// A table with what `gate` serves already. `shared`: there is a store; without one, what an
    /// earlier process knew of a fleet is this node's.
    #[must_use]
    pub fn adopt(gate: Arc<dyn Gate>, shared: bool, now: Now) -> Self {
        let mut table = Table::default();
        for sentence in gate.served() {
            let (scope, origin) = match sentence.origin {
                origin @ (Origin::Fleet | Origin::Unsent) if shared => (Scope::Fleet, origin),
                _ => (Scope::Node, Origin::Node),
            };
            let left = sentence.until.saturating_sub(now.mono);
            if left > 0 {
                let entry = Entry {
                    until: sentence.until,
                    passed: now.mono,
                    since_ms: None,
                    until_ms: now.unix.saturating_add(left) / MILLISECOND,
                    cause: Cause::unknown(),
                    origin,
                    seen: StreamId::default(),
                };
                table.insert((sentence.net, scope), entry);
            }
        }
        Self {
            gate,
            shared,
            table: Mutex::new(table),
            counts: Counts::default(),
            quiet: AtomicBool::new(false),
        }
    }

    #[must_use]
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Whether there is a store that nodes share.
    #[must_use]
    pub const fn shared(&self) -> bool {
        self.shared
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks `net` here for `length` nanoseconds; a fleet's block is [`Blocks::pending`] then. One
    /// that lasts longer already stays as it is.
    ///
    /// # Errors
    /// When the table is full of blocks that last longer, there is no store for one of the fleet, or
    /// the kernel refuses.
    pub fn pass(
        &self,
        net: IpNet,
        length: u64,
        scope: Scope,
        cause: Cause,
        now: Now,
    ) -> Result<(), BlockError> {
        let origin = match scope {
            Scope::Node => Origin::Node,
            Scope::Fleet if self.shared => Origin::Unsent,
            Scope::Fleet => return Err(BlockError::NoStore),
        };
        let key = (net, scope);
        let until = now.mono.saturating_add(length);
        let table = &mut *self.table();
        table.expire(now);
        if scope == Scope::Fleet {
            table.lifts.remove(&net);
        }
        let before = table.entries.get(&key);
        if before.is_some_and(|before| before.until >= until) {
            return Ok(());
        }
        let entry = Entry {
            until,
            passed: before.map_or(now.mono, |before| before.passed),
            since_ms: before.map_or(Some(now.unix / MILLISECOND), |before| before.since_ms),
            until_ms: now.unix.saturating_add(length) / MILLISECOND,
            cause: cause.clone(),
            origin,
            seen: before.map(|before| before.seen).unwrap_or_default(),
        };
        if !self.make_room(table, key, until) {
            return Err(BlockError::Full { max: MAX_BLOCKS });
        }
        let undo = table.insert(key, entry);
        if let Err(error) = self.enforce(table, net) {
            match undo {
                Some(before) => drop(table.insert(key, before)),
                None => drop(table.remove(key)),
            }
            return Err(error.into());
        }
        self.in_force(key, &cause, until);
        Ok(())
    }

    /// Lifts the block on `net`: this node's (`only` so), or that of the fleet as well, which is
    /// [`Blocks::pending`] then.
    ///
    /// # Errors
    /// When there is none, or the kernel refuses.
    pub fn lift(
        &self,
        net: IpNet,
        only: Option<Scope>,
        by: &Cause,
        now: Now,
    ) -> Result<(), BlockError> {
        let table = &mut *self.table();
        table.expire(now);
        let wanted = |scope| only.is_none_or(|only| only == scope);
        let has = |table: &Table, scope| table.entries.contains_key(&(net, scope));
        let fleet = has(table, Scope::Fleet);
        let here = has(table, Scope::Node);
        if !(fleet && wanted(Scope::Fleet) || here && wanted(Scope::Node)) {
            return Err(if fleet {
                BlockError::OfTheFleet(net)
            } else {
                BlockError::NotBlocked(net)
            });
        }
        if fleet && wanted(Scope::Fleet) {
            if table.lifts.len() >= MAX_BLOCKS {
                return Err(BlockError::Full { max: MAX_BLOCKS });
            }
            if let Some(entry) = self.lift_here(table, (net, Scope::Fleet), by)? {
                let known = entry.origin == Origin::Fleet && entry.seen != StreamId::default();
                let lift = Lift {
                    by: by.clone(),
                    until: entry.until,
                    until_ms: known.then_some(entry.until_ms),
                };
                table.lifts.insert(net, lift);
            }
        }
        if here && wanted(Scope::Node) {
            self.lift_here(table, (net, Scope::Node), by)?;
        }
        Ok(())
    }

    /// Forgets what is over. The kernel ends sentences by itself.
    pub fn expire(&self, now: Now) {
        self.table().expire(now);
    }

    /// What is blocked, by network.
    #[must_use]
    pub fn list(&self, now: Now) -> Vec<Block> {
        let table = self.table();
        let entries = table.entries.iter();
        entries
            .filter_map(|(key, entry)| told(key, entry, now))
            .collect()
    }

    /// Who blocks `net`.
    #[must_use]
    pub fn of(&self, net: IpNet, now: Now) -> Vec<Block> {
        let table = self.table();
        let keys = [Scope::Node, Scope::Fleet].map(|scope| (net, scope));
        let found = keys
            .iter()
            .filter_map(|key| told(key, table.entries.get(key)?, now));
        found.collect()
    }

    /// How many are blocked by this node, and by the fleet.
    #[must_use]
    pub fn numbers(&self) -> (usize, usize) {
        let table = self.table();
        let fleet = table
            .entries
            .keys()
            .filter(|(_, scope)| *scope == Scope::Fleet);
        let fleet = fleet.count();
        (table.entries.len() - fleet, fleet)
    }

    /// Makes room for a block until `until`; `false`: all others last longer.
    pub(super) fn make_room(&self, table: &mut Table, key: Key, until: u64) -> bool {
        if table.entries.len() < MAX_BLOCKS || table.entries.contains_key(&key) {
            return true;
        }
        let by = Cause::told("the table is full, and it ends soonest");
        match table.ends.first().copied() {
            Some((end, shortest)) if end < until => {
                self.note(Event::GaveWay, shortest, &by);
                if let Err(error) = self.lift_here(table, shortest, &by) {
                    self.failed(shortest.0, &error);
                }
                true
            }
            _ => {
                self.note(Event::GaveWay, key, &by);
                false
            }
        }
    }

    /// Has the kernel serve what the table says of `net`.
    pub(super) fn enforce(&self, table: &Table, net: IpNet) -> Result<(), GateError> {
        let scopes = [Scope::Fleet, Scope::Node];
        let entries = scopes
            .iter()
            .filter_map(|scope| table.entries.get(&(net, *scope)));
        // Of equals the fleet's, which comes first.
        let longest = entries.reduce(|a, b| if b.until > a.until { b } else { a });
        longest.map_or(Ok(()), |entry| {
            self.gate.block(Sentence {
                net,
                until: entry.until,
                origin: entry.origin,
            })
        })
    }

    /// Takes a block away, and puts those in force that it hid.
    pub(super) fn lift_here(
        &self,
        table: &mut Table,
        key: Key,
        by: &Cause,
    ) -> Result<Option<Entry>, GateError> {
        let Some(entry) = table.entries.get(&key) else {
            return Ok(None);
        };
        let (net, entry) = (key.0, entry.clone());
        self.gate.lift(net)?;
        table.remove(key);
        self.note(Event::Lifted, key, by);
        for inner in table.within(net) {
            self.enforce(table, inner)?;
        }
        Ok(Some(entry))
    }

    pub(super) fn note(&self, event: Event, key: Key, cause: &Cause) {
        self.tell(event, key, cause, None);
    }

    /// A block has come into force.
    pub(super) fn in_force(&self, key: Key, cause: &Cause, until: u64) {
        self.tell(Event::Blocked, key, cause, Some(until));
    }

    fn tell(&self, event: Event, (net, scope): Key, cause: &Cause, until: Option<u64>) {
        self.counts.add(event);
        if !self.quiet.load(Ordering::Relaxed) {
            let told = Told {
                net,
                scope,
                cause,
                until,
            };
            self.gate.note(event, told);
        }
    }

    pub(super) fn failed(&self, net: IpNet, error: &GateError) {
        self.note(Event::Failed, (net, Scope::Node), &Cause::told(&error.0));
    }
}

/// A block as it is told; `None`: it is over.
fn told((net, scope): &Key, entry: &Entry, now: Now) -> Option<Block> {
    (entry.until > now.mono).then(|| Block {
        net: *net,
        scope: *scope,
        unsent: entry.origin == Origin::Unsent,
        since: entry.since_ms,
        until: entry.until_ms,
        left: entry.until - now.mono,
        cause: entry.cause.clone(),
    })
}

#[cfg(test)]
mod tests;
