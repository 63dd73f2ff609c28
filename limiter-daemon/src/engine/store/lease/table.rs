//! What a node holds of the buckets that nodes share: tokens by key, in parcels, each with its end.
//!
//! A parcel is what one question brought in advance. Requests take from the oldest that has enough; as
//! what a question brings is a multiple of what a request takes, nothing is left over. A parcel is
//! over `max_age` after its question was *asked*, and with the window that it was counted in at the
//! latest; so it never outlives what is stated, however long the answer took.
//!
//! **Refunds.** The tokens of a parcel were charged at one instant, so it says nothing which of them
//! were used: those count as the first, what goes back as the last, and each refund of what was used as
//! that of the very first. So no refund brings more than its tokens would.
//!
//! **Bounds.** At most [`KEYS`] keys are known, in shards with a lock each; one for which there is no
//! room is asked as without a lease. A key that nobody asks for is forgotten after twice its `max_age`.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::counts::Counts;
use crate::engine::meter::{Meter, Reading, worth};
use crate::engine::store::ledger::{Change, ChangeKind, Conforms, Form, Item, Lease, Said};
use crate::engine::store::told::{Told, window_end};
use crate::engine::time::Now;

/// Keys that are known at most.
pub const KEYS: usize = SHARDS * SHARD;
const SHARDS: usize = 64;
const SHARD: usize = 1 << 10;
/// Nanoseconds between two looks for room in a shard that is full.
const LOOK: u64 = 100_000_000;
const SECOND: u64 = 1_000_000_000;

/// All leases of a node.
#[derive(Debug)]
pub struct Table {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    /// To be given back.
    owed: Mutex<Vec<Change>>,
    counts: Counts,
}

#[derive(Debug)]
struct Shard {
    entries: HashMap<String, Entry>,
    /// No parcel is over before.
    due: u64,
    /// When it was last looked for room.
    looked: u64,
}

#[derive(Debug)]
struct Entry {
    meter: Meter,
    lease: Lease,
    /// Oldest first.
    parcels: VecDeque<Parcel>,
    /// What the store said last.
    told: Option<Told>,
    /// Somebody asks for more.
    fetching: bool,
    demand: Demand,
}

#[derive(Debug)]
struct Parcel {
    tokens: u64,
    /// What a refund must know of its last token, and of its first.
    last: u64,
    first: u64,
    /// By [`Now::mono`].
    until: u64,
    /// It is over with its window, whose count is forgotten then.
    perishes: bool,
}

/// Tokens that are asked for in a span of time.
#[derive(Debug, Default)]
struct Demand {
    began: u64,
    before: u64,
    now: u64,
}

/// Whether a request's tokens are in hand.
#[derive(Clone, Copy, Debug)]
pub enum Take {
    Here(Drawn),
    /// They are not. `again`: how many times more they are to be asked for.
    Ask {
        again: u64,
    },
}

/// Tokens that were taken of a lease.
#[derive(Clone, Copy, Debug)]
pub struct Drawn {
    /// The bucket, as if only what was used were counted in it.
    pub reading: Reading,
    /// The clock of that.
    pub now: Now,
    /// What a refund must know.
    pub mark: u64,
}

impl Default for Table {
    fn default() -> Self {
        let shard = || {
            Mutex::new(Shard {
                entries: HashMap::new(),
                due: u64::MAX,
                looked: 0,
            })
        };
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher: RandomState::new(),
            owed: Mutex::default(),
            counts: Counts::default(),
        }
    }
}

impl Table {
    /// What has come of leases.
    #[must_use]
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Tokens in hand.
    #[must_use]
    pub fn in_hand(&self) -> u64 {
        let held = |shard: &Mutex<Shard>| -> u64 {
            let shard = lock(shard);
            shard.entries.values().map(Entry::held).sum()
        };
        self.shards.iter().map(held).sum()
    }

    fn shard(&self, key: &str) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(key);
        let index = usize::try_from(hash % 64).unwrap_or(0);
        lock(&self.shards[index])
    }

    /// Takes the tokens of `item`, at least 1, if they are in hand.
    pub(super) fn take(&self, item: &Item, lease: Lease, now: Now) -> Take {
        let mut shard = self.shard(&item.key);
        if shard.due <= now.mono {
            self.clear(&mut shard, now.mono);
        }
        let Some(entry) = self.entry(&mut shard, item, lease, now.mono) else {
            drop(shard);
            self.counts.untracked.add(1);
            return Take::Ask { again: 0 };
        };
        entry.demand.add(item.tokens, lease.max_age, now.mono);
        if let Some(drawn) = entry.take(item, now.mono) {
            return Take::Here(drawn);
        }
        let room = lease.size.saturating_sub(entry.held());
        let mut again = 0;
        if !entry.fetching {
            again = room.min(entry.demand.of_others(item.tokens)) / item.tokens;
        }
        entry.fetching |= again > 0;
        Take::Ask { again }
    }

    fn entry<'a>(
        &self,
        shard: &'a mut Shard,
        item: &Item,
        lease: Lease,
        mono: u64,
    ) -> Option<&'a mut Entry> {
        if !shard.entries.contains_key(&item.key) {
            if shard.entries.len() >= SHARD {
                if shard.looked.saturating_add(LOOK) <= mono {
                    shard.looked = mono;
                    self.clear(shard, mono);
                }
                if shard.entries.len() >= SHARD {
                    return None;
                }
            }
            let entry = Entry::new(item.meter, lease);
            shard.entries.insert(item.key.clone(), entry);
        }
        let entry = shard.entries.get_mut(&item.key)?;
        if entry.meter != item.meter {
            // The limit was changed.
            let mut before = std::mem::replace(entry, Entry::new(item.meter, lease));
            self.give_back(&item.key, &mut before, u64::MAX);
        }
        entry.lease = lease;
        Some(entry)
    }

    /// Puts back what was taken for a request that does not pass after all.
    pub(super) fn put_back(&self, item: &Item, drawn: &Drawn) {
        let change = Change {
            key: item.key.clone(),
            meter: item.meter,
            tokens: item.tokens,
            form: item.form,
            kind: ChangeKind::GiveBack { mark: drawn.mark },
        };
        if !self.restored(&change, drawn.mark, 0) {
            self.spill(item, item.tokens, drawn.mark);
        }
    }

    /// Takes tokens of a request back into the lease that they are of, if it lasts.
    pub(super) fn refund(&self, change: &Change, mark: u64, now: Now) -> bool {
        self.restored(change, mark, now.mono)
    }

    fn restored(&self, change: &Change, mark: u64, mono: u64) -> bool {
        let mut shard = self.shard(&change.key);
        let Some(entry) = shard.entries.get_mut(&change.key) else {
            return false;
        };
        if entry.meter != change.meter {
            return false;
        }
        let fits = entry.held().saturating_add(change.tokens) <= entry.lease.size;
        let of = |parcel: &&mut Parcel| parcel.first == mark && parcel.until > mono && fits;
        let Some(parcel) = entry.parcels.iter_mut().find(of) else {
            entry.gave_back(change.tokens, mark);
            return false;
        };
        parcel.tokens += change.tokens;
        let until = parcel.until;
        shard.due = shard.due.min(until);
        true
    }

    /// Nobody asks for more of this key any longer, and nothing is known of what it came to.
    pub(super) fn not_fetched(&self, key: &str) {
        let mut shard = self.shard(key);
        if let Some(entry) = shard.entries.get_mut(key) {
            entry.fetching = false;
        }
    }

    /// Takes in what the store says at `there` of an item that was asked at `asked`; what is to be told
    /// of it.
    pub(super) fn told(&self, item: &Item, said: Said, there: Now, asked: Now) -> Said {
        let told = Told {
            reading: said.reading,
            there: there.unix,
            asked: asked.mono,
        };
        let tokens = said.granted.saturating_mul(item.tokens);
        self.counts.prefetched.add(tokens);
        let mut shard = self.shard(&item.key);
        let Some(entry) = shard
            .entries
            .get_mut(&item.key)
            .filter(|entry| entry.meter == item.meter)
        else {
            // The limit was changed meanwhile.
            drop(shard);
            self.spill(item, tokens, told.last());
            return said;
        };
        entry.fetching &= item.again == 0;
        let known = entry.told.is_some_and(|known| known.there > told.there);
        if !known && said.reading != Reading::Unknown {
            entry.told = Some(told);
        }
        let room = entry.lease.size.saturating_sub(entry.held());
        let kept = tokens.min(room);
        if kept > 0 {
            let until = entry.keep(item, kept, tokens - kept, &said, &told);
            shard.due = shard.due.min(until);
        }
        let held = shard.entries.get(&item.key).map_or(0, Entry::held);
        drop(shard);
        self.spill(item, tokens - kept, told.last());
        let reading = match said.conforms {
            Conforms::Yes => said.reading.without(&item.meter, held),
            Conforms::No | Conforms::NotAsked | Conforms::OtherWindow => said.reading,
        };
        Said { reading, ..said }
    }

    /// Gives tokens back for which there is no place.
    fn spill(&self, item: &Item, tokens: u64, mark: u64) {
        if tokens > 0 {
            self.counts.returned.add(tokens);
            self.owe(Change {
                key: item.key.clone(),
                meter: item.meter,
                tokens,
                form: item.form,
                kind: ChangeKind::GiveBack { mark },
            });
        }
    }

    fn owe(&self, change: Change) {
        lock(&self.owed).push(change);
    }

    /// What is to be given back. The caller does.
    pub(super) fn owed(&self) -> Vec<Change> {
        std::mem::take(&mut *lock(&self.owed))
    }

    /// Ends what is over.
    pub(super) fn sweep(&self, now: Now) {
        for shard in &self.shards {
            self.clear(&mut lock(shard), now.mono);
        }
    }

    /// Ends all.
    pub(super) fn empty(&self) {
        for shard in &self.shards {
            self.clear(&mut lock(shard), u64::MAX);
        }
    }

    fn clear(&self, shard: &mut Shard, mono: u64) {
        shard.due = u64::MAX;
        let Shard { entries, due, .. } = shard;
        entries.retain(|key, entry| {
            self.give_back(key, entry, mono);
            let held = entry.parcels.iter().filter(|parcel| parcel.tokens > 0);
            *due = held.map(|parcel| parcel.until).fold(*due, u64::min);
            !entry.idle(mono)
        });
    }

    /// Ends what of one key is over at `mono`.
    fn give_back(&self, key: &str, entry: &mut Entry, mono: u64) {
        while let Some(over) = entry.parcels.iter().position(|one| one.until <= mono) {
            let Some(parcel) = entry.parcels.remove(over).filter(|one| one.tokens > 0) else {
                continue;
            };
            if parcel.perishes && mono < u64::MAX {
                self.counts.lost.add(parcel.tokens);
                continue;
            }
            self.counts.returned.add(parcel.tokens);
            entry.gave_back(parcel.tokens, parcel.last);
            self.owe(Change {
                key: key.to_owned(),
                meter: entry.meter,
                tokens: parcel.tokens,
                form: Form::Own,
                kind: ChangeKind::GiveBack { mark: parcel.last },
            });
        }
    }
}

impl Entry {
    fn new(meter: Meter, lease: Lease) -> Self {
        Self {
            meter,
            lease,
            parcels: VecDeque::new(),
            told: None,
            fetching: false,
            demand: Demand::default(),
        }
    }

    fn held(&self) -> u64 {
        self.parcels.iter().map(|parcel| parcel.tokens).sum()
    }

    /// Nothing is known of it that matters.
    fn idle(&self, mono: u64) -> bool {
        let over = self.demand.began.saturating_add(2 * self.lease.max_age);
        self.parcels.is_empty() && !self.fetching && over <= mono
    }

    fn take(&mut self, item: &Item, mono: u64) -> Option<Drawn> {
        let told = self.told?;
        let enough = |parcel: &&mut Parcel| parcel.tokens >= item.tokens;
        let parcel = self.parcels.iter_mut().find(enough)?;
        parcel.tokens -= item.tokens;
        let mark = parcel.first;
        Some(Drawn {
            reading: told.reading.without(&self.meter, self.held()),
            now: told.now(mono),
            mark,
        })
    }

    /// Tokens go back to the store: it will say that it has them.
    fn gave_back(&mut self, tokens: u64, mark: u64) {
        let Some(told) = &mut self.told else {
            return;
        };
        match &mut told.reading {
            // Of the window before.
            Reading::Counts { end, last, .. }
                if mark.saturating_add(self.meter.window() * SECOND) == *end =>
            {
                *last = last.saturating_sub(tokens);
            }
            Reading::Counts { end, .. } if *end != mark => {}
            reading => *reading = reading.without(&self.meter, tokens),
        }
    }

    /// Keeps tokens that were granted, beside `spilt` ones that are not; until when.
    fn keep(&mut self, item: &Item, kept: u64, spilt: u64, said: &Said, told: &Told) -> u64 {
        let last = match &item.meter {
            Meter::Bucket { limit, .. } => told.last().saturating_sub(worth(limit, spilt)),
            Meter::Fixed(_) | Meter::Sliding(_) => told.last(),
        };
        let mut until = told.asked.saturating_add(self.lease.max_age);
        let mut perishes = false;
        if let Some(end) = window_end(item, told.reading) {
            let over = told.until(end);
            perishes = over <= until && matches!(item.meter, Meter::Fixed(_));
            until = until.min(over);
        }
        // The last one is kept while it is empty: what was taken of it may come back.
        self.parcels.retain(|parcel| parcel.tokens > 0);
        self.parcels.push_back(Parcel {
            tokens: kept,
            last,
            first: said.mark,
            until,
            perishes,
        });
        until
    }
}

impl Told {
    /// What a refund of the last token must know.
    const fn last(&self) -> u64 {
        Said::new(Conforms::Yes, self.reading).mark
    }
}

impl Demand {
    fn add(&mut self, tokens: u64, span: u64, mono: u64) {
        let since = mono.saturating_sub(self.began);
        if since >= span {
            self.before = if since >= 2 * span { 0 } else { self.now };
            self.now = 0;
            self.began = mono;
        }
        self.now = self.now.saturating_add(tokens);
    }

    /// Tokens that one who asks for `tokens` now may expect others to ask for in a span.
    fn of_others(&self, tokens: u64) -> u64 {
        self.before.max(self.now.saturating_sub(tokens))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
