//! The table of sources and the sketch, in map memory. What they promise, and how, is in
//! [`limiter_common::table`].

use core::ptr::NonNull;

use limiter_common::Config;
use limiter_common::bucket::{Decision, KERNEL_TRIES, conforms};
use limiter_common::table::{
    self, Claim, SLOTS, Slot, Slots, cell_indices, claim, conforms_in_sketch, find, sketch_tat,
    take_in, take_in_sketch,
};

use crate::atomic::Word;
use crate::maps::{CONFIG, SKETCH, SOURCES, SourceSet};
use crate::stats::{Pressure, press};

/// What [`sources_take`] and [`sources_ask`] return: [`Decision`] as a number.
const ADMITTED: u64 = 0;
const DENIED: u64 = 1;
const CONTENDED: u64 = 2;

/// Tokens asked of one bucket.
pub(crate) struct Request {
    /// Of the bucket.
    pub(crate) key: u64,
    pub(crate) now: u64,
    pub(crate) cost: u64,
    pub(crate) tolerance: u64,
}

/// What became of a request; without the numbers, which nobody here asks for.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    Admitted,
    Denied,
    Contended,
}

impl Answer {
    #[inline(always)]
    const fn from_raw(raw: u64) -> Self {
        match raw {
            ADMITTED => Self::Admitted,
            DENIED => Self::Denied,
            _ => Self::Contended,
        }
    }
}

/// Whether the bucket would give the tokens; takes none.
#[inline(always)]
pub(crate) fn ask(request: &Request) -> Answer {
    let &Request {
        key,
        now,
        cost,
        tolerance,
    } = request;
    Answer::from_raw(sources_ask(key, now, cost, tolerance))
}

/// Takes the tokens from the bucket, wherever it is.
#[inline(always)]
pub(crate) fn take(request: &Request) -> Answer {
    let &Request {
        key,
        now,
        cost,
        tolerance,
    } = request;
    Answer::from_raw(sources_take(key, now, cost, tolerance))
}

// The two functions below, and `limit_apply`, are global in the sense of BPF (exported, with numbers
// as arguments): the verifier looks at each once by itself, and not again for every way that leads to
// it. With up to 18 calls a packet, it would not come to an end otherwise.

/// See [`ask`].
///
/// A source without a place is asked for in the sketch: that is where its debt is, and what it would
/// bring to a place.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sources_ask(key: u64, now: u64, cost: u64, tolerance: u64) -> u64 {
    let Some(config) = CONFIG.get(0) else {
        return CONTENDED;
    };
    let Some(set) = Set::of(config, key) else {
        return CONTENDED;
    };
    let conforms = match find(&set, key) {
        Some(place) => conforms(place.tat(), now, cost, tolerance),
        None => match cells_of(config, key) {
            Some(cells) => conforms_in_sketch(&cells, now, cost, tolerance),
            None => return CONTENDED,
        },
    };
    if conforms { ADMITTED } else { DENIED }
}

/// See [`take`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sources_take(key: u64, now: u64, cost: u64, tolerance: u64) -> u64 {
    let decision = match CONFIG.get(0) {
        Some(config) => decide(config, key, now, cost, tolerance),
        None => Decision::Contended,
    };
    match decision {
        Decision::Admitted { .. } => ADMITTED,
        Decision::Denied { .. } => DENIED,
        Decision::Contended => CONTENDED,
    }
}

#[inline(always)]
fn decide(config: &Config, key: u64, now: u64, cost: u64, tolerance: u64) -> Decision {
    let Some(set) = Set::of(config, key) else {
        return Decision::Contended;
    };
    if let Some(place) = find(&set, key) {
        return take_in(&place, key, now, cost, tolerance, KERNEL_TRIES);
    }
    let Some(cells) = cells_of(config, key) else {
        return Decision::Contended;
    };
    let debt = sketch_tat(&cells, now, tolerance);
    match claim(&set, key, now, config.keep, debt) {
        Claim::Placed { slot, evicted } => {
            press(Pressure::Placed);
            if evicted {
                press(Pressure::Evicted);
            }
            take_in(&slot, key, now, cost, tolerance, KERNEL_TRIES)
        }
        Claim::Full => {
            press(Pressure::Sketched);
            take_in_sketch(&cells, now, cost, tolerance, KERNEL_TRIES)
        }
        Claim::Lost => {
            press(Pressure::Lost);
            Decision::Contended
        }
    }
}

/// A set of the table.
struct Set(NonNull<SourceSet>);

impl Set {
    /// That of `key`. There is none only if the daemon stated a size that the map has not.
    #[inline(always)]
    fn of(config: &Config, key: u64) -> Option<Self> {
        let set = SOURCES.get_ptr_mut(table::set_index(key, config.set_mask))?;
        NonNull::new(set).map(Self)
    }
}

impl Slots for Set {
    type Slot = Place;
    const COUNT: usize = SLOTS;

    #[inline(always)]
    fn slot(&self, index: usize) -> Place {
        let words = self.0.cast::<u64>();
        // SAFETY: callers keep `index` below `SLOTS`, so both words lie in the set, which a lookup
        // returned and which therefore points into a map value.
        unsafe {
            let key = words.add(2 * index);
            Place {
                key: Word::new(key),
                tat: Word::new(key.add(1)),
            }
        }
    }
}

/// A slot of a set.
struct Place {
    key: Word,
    tat: Word,
}

impl Slot for Place {
    type Word = Word;

    #[inline(always)]
    fn key(&self) -> &Word {
        &self.key
    }

    #[inline(always)]
    fn tat(&self) -> &Word {
        &self.tat
    }
}

/// The cells of `key` in the sketch.
#[inline(always)]
fn cells_of(config: &Config, key: u64) -> Option<[Word; 2]> {
    let [first, second] = cell_indices(key, config.cell_mask);
    Some([cell(first)?, cell(second)?])
}

#[inline(always)]
fn cell(index: u32) -> Option<Word> {
    let cell = NonNull::new(SKETCH.get_ptr_mut(index)?)?;
    // SAFETY: a lookup returned it, so it points into a map value.
    Some(unsafe { Word::new(cell) })
}
