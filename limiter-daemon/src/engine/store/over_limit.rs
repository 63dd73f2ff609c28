//! Keys over their limit, remembered by this node: what is known to be denied is not asked again.
//!
//! A [`Ledger`] in front of another. When that denies an item, what it read is kept until the item
//! would conform, at most for [`LONGEST`]; a question with an item that this reading denies is
//! answered here, with the wait that is left of what was read: smaller requests and other nodes may have
//! taken more since. A request that was to be denied charges nothing, so all
//! counts are what they would have been.
//!
//! - Nobody is denied for longer than the store would: a reading only gets milder with time, what
//!   others take makes it only stricter, and this node's own refunds make it forget. **Refunds of
//!   other nodes, and a store that comes back empty, are seen after at most [`LONGEST`].**
//! - Of the other limits of such a request nothing is known: they are not asked, and not told of
//!   ([`Reading::Unknown`](crate::engine::meter::Reading)); the wait is the longest of those that are
//!   known to deny.
//! - A question with candidates is always asked, as is one that is denied in any case: their counts
//!   stay true.
//! - Another meter under the same key (a reload changed the limit) is not believed.
//! - The number of keys is bounded. With no room for one it is not remembered, and counted.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::ledger::{
    Asking, Change, ChangeKind, Conforms, Item, Ledger, Question, Reply, Role, Said,
};
use super::told::{Told, not_asked};
use crate::engine::charge::Few;
use crate::engine::meter::{Meter, Snapshot, Verdict};
use crate::engine::time::Now;

/// Nanoseconds that a denial is remembered at most. For a longer one a key costs one question in this
/// time.
pub const LONGEST: u64 = 1_000_000_000;
const SHARDS: usize = 64;

/// A ledger that is not asked about what is known to be denied.
#[derive(Debug)]
pub struct OverLimit {
    inner: Arc<dyn Ledger>,
    memory: Arc<Memory>,
    /// Answers only where all items are known to be denied.
    whole: bool,
}

/// What is remembered.
#[derive(Debug)]
pub struct Memory {
    shards: Box<[RwLock<Shard>]>,
    hasher: RandomState,
    /// Of each shard.
    room: usize,
    /// When the last entry is over.
    last: AtomicU64,
    counts: Counts,
}

/// What has come of it.
#[derive(Debug, Default)]
struct Counts {
    answered: AtomicU64,
    remembered: AtomicU64,
    full: AtomicU64,
    forgotten: AtomicU64,
}

#[derive(Debug)]
struct Shard {
    entries: HashMap<String, Entry>,
    /// Nothing in it is over before.
    first: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    meter: Meter,
    told: Told,
    /// By [`Now::mono`].
    until: u64,
}

impl OverLimit {
    /// Remembers at most so many keys (rounded up to 64) of `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Ledger>, keys: usize) -> Self {
        let shard = || {
            RwLock::new(Shard {
                entries: HashMap::new(),
                first: u64::MAX,
            })
        };
        Self {
            inner,
            memory: Arc::new(Memory {
                shards: (0..SHARDS).map(|_| shard()).collect(),
                hasher: RandomState::new(),
                room: keys.div_ceil(SHARDS),
                last: AtomicU64::new(0),
                counts: Counts::default(),
            }),
            whole: false,
        }
    }

    /// The same memory before `inner`, for those who are to be told of every item: it answers only
    /// where it knows them all.
    #[must_use]
    pub fn of_all(&self, inner: Arc<dyn Ledger>) -> Self {
        Self {
            inner,
            memory: Arc::clone(&self.memory),
            whole: true,
        }
    }

    /// What is remembered.
    #[must_use]
    pub const fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }
}

impl Ledger for OverLimit {
    fn ask(&self, question: Question, now: Now) -> Option<Asking> {
        let plain = |item: &Item| matches!(item.role, Role::Enforced | Role::Shadow);
        if question.denials == 0
            && question.items.iter().all(plain)
            && let Some(reply) = self.memory.answer(&question, self.whole, now)
        {
            return Some(Box::pin(std::future::ready(Ok(reply))));
        }
        let refunds = question
            .items
            .iter()
            .filter(|item| item.role == Role::Refund);
        refunds.for_each(|item| self.memory.forget(&item.key));
        let enforced = |item: &Item| item.role == Role::Enforced;
        let asked: Few<Option<(String, Meter, u64)>> = question
            .items
            .iter()
            .map(|item| enforced(item).then(|| (item.key.clone(), item.meter, item.tokens)))
            .collect();
        let asking = self.inner.ask(question, now)?;
        let memory = Arc::clone(&self.memory);
        Some(Box::pin(async move {
            let reply = asking.await?;
            for (index, (asked, said)) in asked.into_iter().zip(&reply.said).enumerate() {
                if let Some((key, meter, tokens)) = asked
                    && said.conforms == Conforms::No
                {
                    let told = Told {
                        reading: said.reading,
                        there: reply.now_of(index).unix,
                        asked: now.mono,
                    };
                    memory.remember(key, meter, tokens, told);
                }
            }
            Ok(reply)
        }))
    }

    fn change(&self, changes: Vec<Change>, now: Now) {
        let back = |change: &&Change| matches!(change.kind, ChangeKind::GiveBack { .. });
        for change in changes.iter().filter(back) {
            self.memory.forget(&change.key);
        }
        self.inner.change(changes, now);
    }

    fn join(&self) {
        self.inner.join();
    }
}

impl Memory {
    fn shard(&self, key: &str) -> &RwLock<Shard> {
        let hash = self.hasher.hash_one(key);
        let index = usize::try_from(hash % 64).unwrap_or(0);
        &self.shards[index]
    }

    /// The answer, if an item is known to be denied.
    fn answer(&self, question: &Question, whole: bool, now: Now) -> Option<Reply> {
        if self.last.load(Ordering::Acquire) <= now.mono {
            return None;
        }
        let known: Few<Option<Told>> = question
            .items
            .iter()
            .map(|item| self.denied(item, now.mono))
            .collect();
        if whole && !known.iter().all(Option::is_some) {
            return None;
        }
        let there = known.iter().flatten().next()?.now(now.mono);
        add(&self.counts.answered);
        let said = known.iter().map(|told| match told {
            Some(told) => Said {
                remembered: true,
                ..Said::new(Conforms::No, told.reading)
            },
            None => not_asked(),
        });
        let clocks = known
            .iter()
            .map(|told| told.map_or(there, |told| told.now(now.mono)));
        Some(Reply {
            now: there,
            said: said.collect(),
            clocks: clocks.collect(),
        })
    }

    fn denied(&self, item: &Item, mono: u64) -> Option<Told> {
        if item.role != Role::Enforced {
            return None;
        }
        let shard = self.shard(&item.key);
        let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
        let entry = *shard.entries.get(&item.key)?;
        drop(shard);
        let known = entry.until > mono && entry.meter == item.meter;
        let wait = known.then(|| entry.told.wait(&item.meter, item.tokens, mono))?;
        wait.map(|_still| entry.told)
    }

    fn remember(&self, key: String, meter: Meter, tokens: u64, told: Told) {
        let Some(wait) = told.wait(&meter, tokens, told.asked) else {
            return;
        };
        let until = told.asked.saturating_add(wait.min(LONGEST));
        let mut shard = self
            .shard(&key)
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if shard.entries.len() >= self.room && !shard.entries.contains_key(&key) {
            shard.sweep(told.asked);
            if shard.entries.len() >= self.room {
                drop(shard);
                add(&self.counts.full);
                return;
            }
        }
        let entry = Entry { meter, told, until };
        shard.entries.insert(key, entry);
        add(&self.counts.remembered);
        shard.first = shard.first.min(until);
        drop(shard);
        self.last.fetch_max(until, Ordering::Release);
    }

    /// Forgets that `key` was denied: it has tokens again.
    pub fn forget(&self, key: &str) {
        let shard = self.shard(key);
        let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
        let found = shard.entries.remove(key);
        drop(shard);
        if found.is_some() {
            add(&self.counts.forgotten);
        }
    }

    /// Questions that were answered here; denials that were remembered, for whose key there was no
    /// room, and that were forgotten because of a refund.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, u64); 4] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("answered", read(&self.counts.answered)),
            ("remembered", read(&self.counts.remembered)),
            ("full", read(&self.counts.full)),
            ("forgotten", read(&self.counts.forgotten)),
        ]
    }
}

impl Shard {
    /// Removes what is over.
    fn sweep(&mut self, mono: u64) {
        if self.first > mono {
            return;
        }
        self.entries.retain(|_, entry| entry.until > mono);
        let untils = self.entries.values().map(|entry| entry.until);
        self.first = untils.min().unwrap_or(u64::MAX);
    }
}

impl Told {
    /// How long `tokens` still have to wait at `mono`; `None`: not at all.
    fn wait(&self, meter: &Meter, tokens: u64, mono: u64) -> Option<u64> {
        let snapshot = Snapshot::new(meter, self.reading);
        match meter.peek(&snapshot, tokens, self.now(mono)) {
            Verdict::Deny { wait } => Some(wait),
            Verdict::Admit { .. } => None,
        }
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
