//! Words that are a limit's own, because it has one bucket for all: found again by the next process as
//! those of the table are.
//!
//! A word is kept for its limit for as long as it is in use here. Afterwards it stays, and another
//! limit gets the place only where there is no other: a limit that comes back goes on where it was.
//! Where no place is left, the caller has a word of its own, which ends with the process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{BucketKey, BucketTable, Slot, Word, index};

/// Places that the word of a key may be at.
const PROBES: usize = 64;

/// How often each place is in use.
#[derive(Debug, Default)]
pub(super) struct InUse(Mutex<HashMap<usize, usize>>);

impl InUse {
    fn lock(&self) -> MutexGuard<'_, HashMap<usize, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A word of a limit's own.
#[derive(Debug)]
pub struct Single {
    table: Arc<BucketTable>,
    place: usize,
}

impl Single {
    /// The word.
    #[must_use]
    pub fn word(&self) -> &Word {
        &self.table.layout.singles[self.place].word
    }
}

impl Drop for Single {
    fn drop(&mut self) {
        let mut in_use = self.table.in_use.lock();
        if let Some(users) = in_use.get_mut(&self.place) {
            *users -= 1;
            if *users == 0 {
                in_use.remove(&self.place);
            }
        }
    }
}

impl BucketTable {
    /// The word of `key` alone; `None`: there is no room, or nobody who could come after.
    #[must_use]
    pub fn single(self: &Arc<Self>, key: BucketKey) -> Option<Single> {
        self.as_file()?;
        let mut in_use = self.in_use.lock();
        let place = self.place(key, |place| in_use.contains_key(&place))?;
        *in_use.entry(place).or_default() += 1;
        Some(Single {
            table: Arc::clone(self),
            place,
        })
    }

    /// Where the word of `key` is, made if it is not there: at a free place, or at one that is not
    /// `taken`.
    fn place(&self, key: BucketKey, taken: impl Fn(usize) -> bool) -> Option<usize> {
        let singles = &self.layout.singles;
        let mask = singles.len() - 1;
        let probes = PROBES.min(singles.len());
        let places = || (0..probes).map(|step| (index(key.0 >> 1) + step) & mask);
        if let Some(found) = places().find(|place| singles[*place].owner() == key.0) {
            return Some(found);
        }
        let free = places().find(|place| singles[*place].owner() == 0);
        let place = free.or_else(|| places().find(|place| !taken(*place)))?;
        singles[place].give(key, 0);
        Some(place)
    }

    /// Takes over what another table's limits had of their own.
    pub(super) fn carry_singles(&self, from: &[Slot]) -> usize {
        let mut lost = 0;
        for slot in from.iter().filter(|slot| slot.owner() != 0) {
            match self.place(BucketKey(slot.owner()), |_| true) {
                Some(place) => self.layout.singles[place].word.store(slot.word.get()),
                None => lost += 1,
            }
        }
        lost
    }
}
