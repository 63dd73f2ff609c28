//! Token buckets of many sources in fixed memory, for the program and for its model in tests.
//!
//! **Table**: sets of [`SLOTS`] slots of a key and a TAT, 16 bytes each; a source's set follows from its key.
//! A slot is given to another source only when its bucket is full again *and* has been for a while
//! (`keep`): so no source comes back to a fuller bucket than it left, and a flood of new sources
//! cannot take the places of regular ones.
//!
//! **Sketch**: two rows of TATs for the sources that find no place; a source has one cell in each.
//! It conforms if either cell does, and both are charged: so what a source was admitted is charged to it in
//! both, and it is denied by strangers only if both its cells are theirs. Per source it admits at
//! most twice the limit, and that only after a cell's debt was capped (see `charge` below).
//!
//! A source that comes from the sketch to the table brings its debt with it.

use core::hint::black_box;

use crate::bucket::{Cell, Decision, Step, conforms, step, take};

/// Slots of a set: 64 bytes.
pub const SLOTS: usize = 4;

/// The key of a slot that is changing hands; that of one never used is 0. Keys of sources are neither.
const IN_TRANSITION: u64 = 1;

/// A key as it can stand in a slot.
#[inline(always)]
#[must_use]
pub const fn storable(key: u64) -> u64 {
    if key > IN_TRANSITION { key } else { key | 2 }
}

/// A place in the table: two words that CPUs share.
pub trait Slot {
    type Word: Cell;
    fn key(&self) -> &Self::Word;
    fn tat(&self) -> &Self::Word;
}

/// Places that a key may be in.
pub trait Slots {
    type Slot: Slot;
    /// How many: a power of two.
    const COUNT: usize;
    /// The place with this index, below `COUNT`.
    fn slot(&self, index: usize) -> Self::Slot;
}

/// The place that `key` has.
///
/// Without a branch for each place: which of them it is nobody can predict, and a wrong guess costs
/// more than the comparisons.
#[inline(always)]
pub fn find<S: Slots>(slots: &S, key: u64) -> Option<S::Slot> {
    let (mut found, mut at) = (0, 0_usize);
    let mut index = 0;
    while index < S::COUNT {
        // Else the compiler finds out that this is 0 or 1, and makes branches of it.
        let same = black_box(is_zero(slots.slot(index).key().load() ^ key));
        found |= same;
        at = at.wrapping_add(same.wrapping_mul(index));
        index += 1;
    }
    // The mask says no more than the loop. It is for the kernel's verifier, which must see it last:
    // before Linux 6.10 it forgets what it knows of two numbers when they are combined by OR.
    (found != 0).then(|| slots.slot(at & (S::COUNT - 1)))
}

/// 1 for 0, else 0.
#[inline(always)]
const fn is_zero(word: u64) -> usize {
    ((word >> 1 | word & 1).wrapping_sub(1) >> 63) as usize
}

/// What became of a source without a place that asked for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Claim<S> {
    /// It has this place now; `evicted`: which was another source's.
    Placed { slot: S, evicted: bool },
    /// Every place is in use: to the sketch.
    Full,
    /// Another CPU is changing the set: whether `key` has a place is not to be known now.
    Lost,
}

/// Tokens asked of the bucket of one source under one limit.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Of the bucket; as [`storable`] makes it.
    pub key: u64,
    pub now: u64,
    pub cost: u64,
    pub tolerance: u64,
}

/// Where a source's bucket was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// In the table.
    Known,
    /// It had none and got a place; `evicted`: which was another source's.
    Placed { evicted: bool },
    /// It has none, and no place is free: in the sketch.
    Sketched,
    /// Other CPUs were changing the set; nothing is decided.
    Lost,
}

/// Whether the source's bucket would give the tokens; takes none.
///
/// A source without a place is asked for in the sketch: that is where its debt is, and what it would
/// bring to a place. `None`: there is no sketch.
#[inline(always)]
pub fn ask_source<S: Slots, C: Cell>(
    slots: &S,
    sketch: impl FnOnce() -> Option<[C; 2]>,
    request: &Request,
) -> Option<bool> {
    let &Request {
        key,
        now,
        cost,
        tolerance,
    } = request;
    match find(slots, key) {
        Some(slot) => Some(conforms(slot.tat(), now, cost, tolerance)),
        None => sketch().map(|cells| conforms_in_sketch(&cells, now, cost, tolerance)),
    }
}

/// Takes the tokens from the source's bucket, wherever it is.
///
/// While CPUs race for a source's first place, those of them that were before it in the sketch (the
/// set was full for them) may admit a packet each that the place does not know of.
#[inline(always)]
pub fn take_source<S: Slots, C: Cell>(
    slots: &S,
    sketch: impl FnOnce() -> Option<[C; 2]>,
    request: &Request,
    keep: u64,
    tries: u32,
) -> (Decision, Sight) {
    let &Request {
        key,
        now,
        cost,
        tolerance,
    } = request;
    if let Some(slot) = find(slots, key) {
        let decision = take_in(&slot, key, now, cost, tolerance, tries);
        return (decision, Sight::Known);
    }
    let Some(cells) = sketch() else {
        return (Decision::Contended, Sight::Lost);
    };
    let debt = sketch_tat(&cells, now, tolerance);
    match claim(slots, key, now, keep, debt) {
        Claim::Placed { slot, evicted } => {
            let decision = take_in(&slot, key, now, cost, tolerance, tries);
            (decision, Sight::Placed { evicted })
        }
        Claim::Full => {
            let decision = take_in_sketch(&cells, now, cost, tolerance, tries);
            (decision, Sight::Sketched)
        }
        Claim::Lost => (Decision::Contended, Sight::Lost),
    }
}

/// As [`take_source`], but only where there is little to do: the source has a place, or it has none,
/// none is to be had, and it is over its limit in the sketch. All that a flood consists of, in other
/// words. `None`: nothing is decided and nothing changed.
#[inline(always)]
pub fn take_at_hand<S: Slots, C: Cell>(
    slots: &S,
    sketch: impl FnOnce() -> Option<[C; 2]>,
    request: &Request,
    keep: u64,
    tries: u32,
) -> Option<(Decision, Sight)> {
    let &Request {
        key,
        now,
        cost,
        tolerance,
    } = request;
    if let Some(slot) = find(slots, key) {
        let decision = take_in(&slot, key, now, cost, tolerance, tries);
        return Some((decision, Sight::Known));
    }
    let mut index = 0;
    while index < S::COUNT {
        let slot = slots.slot(index);
        // A place that nobody has, or that is changing hands, is for `claim` to look at.
        if slot.key().load() <= IN_TRANSITION || slot.tat().load().saturating_add(keep) <= now {
            return None;
        }
        index += 1;
    }
    let [first, second] = sketch()?;
    match (
        step(first.load(), now, cost, tolerance),
        step(second.load(), now, cost, tolerance),
    ) {
        (Step::Deny { wait }, Step::Deny { .. }) => {
            Some((Decision::Denied { wait }, Sight::Sketched))
        }
        _ => None,
    }
}

/// Gives `key` a place that is free, or whose bucket has been full for `keep` nanoseconds, with a
/// bucket in state `tat`.
///
/// The place passes through a transition, and that is what makes a key's place the only one. Whoever
/// holds a place in transition looks at the others of the set: if `key` stands there, or another
/// place is in transition (it may become `key`'s, or be `key`'s in the hands of somebody who will
/// give it back), it gives up its own. All accesses are sequentially consistent, so of two CPUs that
/// place the same key at least one sees the other.
///
/// Whoever charged the place in the meantime is seen here, for the TAT is compared again, or sees
/// that the key has changed (see [`take_in`]).
#[inline(always)]
pub fn claim<S: Slots>(slots: &S, key: u64, now: u64, keep: u64, tat: u64) -> Claim<S::Slot> {
    let mut index = 0;
    while index < S::COUNT {
        let slot = slots.slot(index);
        let owner = slot.key().load();
        if owner == IN_TRANSITION || owner == key {
            return Claim::Lost;
        }
        let due = slot.tat().load();
        let kept = if owner == 0 { 0 } else { keep };
        if due.saturating_add(kept) > now {
            index += 1;
            continue;
        }
        if slot.key().compare_exchange(owner, IN_TRANSITION).is_err() {
            return Claim::Lost;
        }
        let set = alone(slots, key, index) && slot.tat().compare_exchange(due, tat).is_ok();
        // Nobody else changes a key in transition.
        let next = if set { key } else { owner };
        let _ours = slot.key().compare_exchange(IN_TRANSITION, next);
        if !set {
            return Claim::Lost;
        }
        let evicted = owner != 0;
        return Claim::Placed { slot, evicted };
    }
    Claim::Full
}

/// Whether no other place than `own` is, or may become, that of `key`.
#[inline(always)]
fn alone<S: Slots>(slots: &S, key: u64, own: usize) -> bool {
    let mut index = 0;
    while index < S::COUNT {
        let owner = slots.slot(index).key().load();
        if index != own && (owner == IN_TRANSITION || owner == key) {
            return false;
        }
        index += 1;
    }
    true
}

/// Index of the set of `key` in a table of `mask + 1` sets.
#[inline(always)]
#[must_use]
pub const fn set_index(key: u64, mask: u32) -> u32 {
    high(key) & mask
}

/// Indices of the cells of `key` in a sketch of two rows, one after the other, of `mask + 1` cells.
///
/// The second depends on all bits of the key (multiplicative hashing), so that sources which share
/// one cell share the other no more often than chance has it.
#[inline(always)]
#[must_use]
pub const fn cell_indices(key: u64, mask: u32) -> [u32; 2] {
    let second = high(key.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    [
        low(key) & mask,
        (second & mask).wrapping_add(mask).wrapping_add(1),
    ]
}

const fn high(key: u64) -> u32 {
    low(key >> 32)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half is what is asked for"
)]
const fn low(key: u64) -> u32 {
    key as u32
}

/// Takes from the bucket at `slot`, if it is still that of `key`.
///
/// If the place changed hands under the charge, the charge stays with the new owner, who has that
/// much less, and nothing was admitted.
#[inline(always)]
pub fn take_in<S: Slot>(
    slot: &S,
    key: u64,
    now: u64,
    cost: u64,
    tolerance: u64,
    tries: u32,
) -> Decision {
    let decision = take(slot.tat(), now, cost, tolerance, tries);
    if slot.key().load() == key {
        decision
    } else {
        Decision::Contended
    }
}

/// Whether `cost` conforms to either cell of a source in the sketch; takes nothing.
#[inline(always)]
pub fn conforms_in_sketch<C: Cell>(cells: &[C; 2], now: u64, cost: u64, tolerance: u64) -> bool {
    let conforms = |cell: &C| matches!(step(cell.load(), now, cost, tolerance), Step::Admit { .. });
    conforms(&cells[0]) || conforms(&cells[1])
}

/// Takes `cost` from both cells of a source in the sketch, if it conforms to either.
#[inline(always)]
pub fn take_in_sketch<C: Cell>(
    cells: &[C; 2],
    now: u64,
    cost: u64,
    tolerance: u64,
    tries: u32,
) -> Decision {
    let [first, second] = cells;
    match take_one(first, now, cost, tolerance, tries) {
        Decision::Admitted { tat } => {
            charge(second, now, cost, tolerance, tries);
            Decision::Admitted { tat }
        }
        Decision::Contended => Decision::Contended,
        Decision::Denied { wait } => match take_one(second, now, cost, tolerance, tries) {
            Decision::Denied { .. } => Decision::Denied { wait },
            decided => {
                charge(first, now, cost, tolerance, tries);
                decided
            }
        },
    }
}

/// The debt that a source takes from the sketch to the table: that of its lesser cell, at most an
/// empty bucket's.
#[inline(always)]
pub fn sketch_tat<C: Cell>(cells: &[C; 2], now: u64, tolerance: u64) -> u64 {
    let [first, second] = cells;
    let (a, b) = (first.load(), second.load());
    let lesser = if a < b { a } else { b };
    let empty = now.saturating_add(tolerance);
    if lesser < empty { lesser } else { empty }
}

/// Like [`take`], but leaves a debt beyond an empty bucket's: cells are shared by sources and limits.
#[inline(always)]
fn take_one<C: Cell>(cell: &C, now: u64, cost: u64, tolerance: u64, tries: u32) -> Decision {
    let mut seen = cell.load();
    let mut left = tries;
    while left > 0 {
        left -= 1;
        match step(seen, now, cost, tolerance) {
            Step::Admit { tat } => match cell.compare_exchange(seen, tat) {
                Ok(()) => return Decision::Admitted { tat },
                Err(found) => seen = found,
            },
            Step::Deny { wait } => return Decision::Denied { wait },
        }
    }
    Decision::Contended
}

/// Adds `cost` to the debt of a cell, whether or not it conforms, up to twice an empty bucket's: so
/// a cell recovers in bounded time after a flood.
#[inline(always)]
fn charge<C: Cell>(cell: &C, now: u64, cost: u64, tolerance: u64, tries: u32) {
    let mut seen = cell.load();
    let mut left = tries;
    while left > 0 {
        left -= 1;
        let base = if seen > now { seen } else { now };
        let most = now.saturating_add(tolerance).saturating_add(tolerance);
        let charged = base.saturating_add(cost);
        let next = if charged < most { charged } else { most };
        if next <= seen {
            return;
        }
        match cell.compare_exchange(seen, next) {
            Ok(()) => return,
            Err(found) => seen = found,
        }
    }
}

#[cfg(test)]
mod tests;
