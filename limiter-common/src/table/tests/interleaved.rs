//! Two CPUs, one of which does all it does between two accesses of the other: at each place where it
//! can. Threads rarely meet so closely.

use core::cell::Cell as StdCell;

extern crate std;

use std::sync::atomic::Ordering;

use super::{Place, SECOND, Set, Sketch, Source, Tables, Word, is_admitted};
use crate::bucket::{Cell, Limit};
use crate::table::{Request, SLOTS, Sight, Slot, Slots, take_source};

/// Does `other` before the access with this number.
struct Interrupt<'a> {
    accesses: StdCell<u32>,
    at: u32,
    other: &'a dyn Fn(),
}

impl Interrupt<'_> {
    fn access(&self) {
        let number = self.accesses.get();
        self.accesses.set(number + 1);
        if number == self.at {
            (self.other)();
        }
    }
}

struct Interrupted<'a, T>(T, &'a Interrupt<'a>);

impl Cell for Interrupted<'_, &Word> {
    fn load(&self) -> u64 {
        self.1.access();
        self.0.load()
    }

    fn compare_exchange(&self, seen: u64, next: u64) -> Result<(), u64> {
        self.1.access();
        self.0.compare_exchange(seen, next)
    }
}

impl<'a> Slot for (Interrupted<'a, &'a Word>, Interrupted<'a, &'a Word>) {
    type Word = Interrupted<'a, &'a Word>;

    fn key(&self) -> &Self::Word {
        &self.0
    }

    fn tat(&self) -> &Self::Word {
        &self.1
    }
}

impl<'a> Slots for Interrupted<'a, &'a Set> {
    type Slot = (Interrupted<'a, &'a Word>, Interrupted<'a, &'a Word>);
    const COUNT: usize = SLOTS;

    fn slot(&self, index: usize) -> Self::Slot {
        let Place { key, tat } = self.0.slot(index);
        (Interrupted(key, self.1), Interrupted(tat, self.1))
    }
}

const NOW: u64 = 1 << 40;

/// What two CPUs do at once: `first` is interrupted by `second` at each of its accesses in turn.
/// Owners 50 to 53 have the places; that of 50 is due between the two times.
fn at_every_access(first: (u64, u64), second: (u64, u64), check: impl Fn(&Tables, [bool; 2])) {
    let limit = Limit::new(1, 1, 10 * SECOND).unwrap();
    let source = |key| Source {
        key,
        cells: [0, 0],
        limit,
    };
    for at in 0.. {
        let tables = Tables {
            set: Set::default(),
            sketch: Sketch::new(1),
            keep: SECOND,
        };
        // Full again a second ago at NOW (50), long ago (51), or not before long.
        let dues = [NOW - SECOND, NOW - 9 * SECOND, NOW + SECOND, NOW + SECOND];
        for ((index, due), (key, tat)) in dues.iter().enumerate().zip(&tables.set.0) {
            key.0.store(50 + index as u64, Ordering::SeqCst);
            tat.0.store(*due, Ordering::SeqCst);
        }
        let admitted = StdCell::new(false);
        let other = || admitted.set(tables.admits(source(second.0), second.1));
        let interrupt = Interrupt {
            accesses: StdCell::new(0),
            at,
            other: &other,
        };
        let request = Request {
            key: first.0,
            now: first.1,
            cost: limit.cost(1),
            tolerance: limit.tolerance,
        };
        let cells = || Some(tables.sketch.cells([0, 0]));
        let set = Interrupted(&tables.set, &interrupt);
        let (decision, sight) = take_source(&set, cells, &request, tables.keep, 8);
        if interrupt.accesses.get() <= at {
            assert!(at > 3, "too few accesses to mean anything");
            return;
        }
        // What is on its way in the sketch is not yet known to the table.
        let first = is_admitted(decision) && sight != Sight::Sketched;
        check(&tables, [first, admitted.get()]);
        // Nobody is left in transition.
        assert!(tables.set.snapshot().iter().all(|(key, _)| *key > 1));
    }
}

#[test]
fn one_source_gets_one_place_and_one_token() {
    for (first, second) in [(0, 0), (1, 0), (0, 1)] {
        let times = [NOW - 1 + first, NOW - 1 + second];
        at_every_access((100, times[0]), (100, times[1]), |tables, admitted| {
            assert!(tables.set.places_of(100) <= 1);
            assert!(admitted != [true, true], "{:?}", tables.set.snapshot());
        });
    }
}

#[test]
fn an_owner_who_comes_back_is_not_admitted_twice() {
    for owner in [50, 51] {
        for (first, second) in [((100, NOW), (owner, NOW)), ((owner, NOW), (100, NOW))] {
            at_every_access(first, second, |tables, _| {
                let before = tables.set.places_of(owner);
                assert!(before <= 1 && tables.set.places_of(100) <= 1);
            });
        }
        // Against itself: one token.
        at_every_access((owner, NOW), (owner, NOW), |tables, admitted| {
            assert_eq!(tables.set.places_of(owner), 1);
            assert!(admitted != [true, true], "{:?}", tables.set.snapshot());
        });
    }
}
