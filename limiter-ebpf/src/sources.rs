//! The table of sources and the sketch, in map memory. What they promise, and how, is in
//! [`limiter_common::table`].

use core::ptr::NonNull;

use limiter_common::Config;
use limiter_common::bucket::{Decision, KERNEL_TRIES};
use limiter_common::local::Pressure;
use limiter_common::table::{
    self, Request, SLOTS, Sight, Slot, Slots, ask_source, cell_indices, take_at_hand, take_source,
};

use crate::atomic::Word;
use crate::local::Own;
use crate::maps::{CONFIG, SKETCH, SOURCES, SourceSet};

/// What [`sources_take`] and [`sources_ask`] return: [`Decision`] as a number.
const ADMITTED: u64 = 0;
const DENIED: u64 = 1;
const CONTENDED: u64 = 2;

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

/// As [`take`], without a call where there is little to do.
#[inline(always)]
pub(crate) fn take_sole(config: &Config, request: &Request, own: &mut Own) -> Answer {
    let Some(set) = Set::of(config, request.key) else {
        return Answer::Contended;
    };
    let cells = || cells_of(config, request.key);
    match take_at_hand(&set, cells, request, config.keep, KERNEL_TRIES) {
        Some((decision, sight)) => {
            press(own, sight);
            match decision {
                Decision::Admitted { .. } => Answer::Admitted,
                Decision::Denied { .. } => Answer::Denied,
                Decision::Contended => Answer::Contended,
            }
        }
        None => take(request),
    }
}

// The two functions below, and `limit_apply`, are global in the sense of BPF (exported, with numbers
// as arguments): the verifier looks at each once by itself, and not again for every way that leads to
// it. With up to 18 calls a packet, it would not come to an end otherwise.

/// See [`ask`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sources_ask(key: u64, now: u64, cost: u64, tolerance: u64) -> u64 {
    let request = Request {
        key,
        now,
        cost,
        tolerance,
    };
    let Some((config, set)) = table_of(key) else {
        return CONTENDED;
    };
    match ask_source(&set, || cells_of(config, key), &request) {
        Some(true) => ADMITTED,
        Some(false) => DENIED,
        None => CONTENDED,
    }
}

/// See [`take`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sources_take(key: u64, now: u64, cost: u64, tolerance: u64) -> u64 {
    let request = Request {
        key,
        now,
        cost,
        tolerance,
    };
    let Some((config, set)) = table_of(key) else {
        return CONTENDED;
    };
    let cells = || cells_of(config, key);
    let (decision, sight) = take_source(&set, cells, &request, config.keep, KERNEL_TRIES);
    if let Some(mut own) = Own::get() {
        press(&mut own, sight);
    }
    match decision {
        Decision::Admitted { .. } => ADMITTED,
        Decision::Denied { .. } => DENIED,
        Decision::Contended => CONTENDED,
    }
}

#[inline(always)]
fn press(own: &mut Own, sight: Sight) {
    match sight {
        Sight::Known => {}
        Sight::Placed { evicted } => {
            own.press(Pressure::Placed);
            if evicted {
                own.press(Pressure::Evicted);
            }
        }
        Sight::Sketched => own.press(Pressure::Sketched),
        Sight::Lost => own.press(Pressure::Lost),
    }
}

/// The settings, and the set of `key`.
#[inline(always)]
fn table_of(key: u64) -> Option<(&'static Config, Set)> {
    let config = CONFIG.get(0)?;
    Some((config, Set::of(config, key)?))
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
