//! The table and the sketch against plain buckets, one for each source, and under real threads.

mod interleaved;
mod model;
mod sketch;
mod threads;

extern crate std;

use std::sync::atomic::{AtomicU64, Ordering};
use std::vec::Vec;

use super::{Request, SLOTS, Sight, Slot, Slots, take_at_hand, take_source};
use crate::bucket::{Cell, Decision, Limit};

const SECOND: u64 = 1_000_000_000;

/// A word as the program has it: sequentially consistent.
#[derive(Debug, Default)]
struct Word(AtomicU64);

impl Cell for &Word {
    fn load(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn compare_exchange(&self, seen: u64, next: u64) -> Result<(), u64> {
        let order = Ordering::SeqCst;
        self.0
            .compare_exchange(seen, next, order, order)
            .map(|_seen| ())
    }
}

/// One set of the table.
#[derive(Debug, Default)]
struct Set([(Word, Word); SLOTS]);

struct Place<'a> {
    key: &'a Word,
    tat: &'a Word,
}

impl<'a> Slot for Place<'a> {
    type Word = &'a Word;

    fn key(&self) -> &&'a Word {
        &self.key
    }

    fn tat(&self) -> &&'a Word {
        &self.tat
    }
}

impl<'a> Slots for &'a Set {
    type Slot = Place<'a>;
    const COUNT: usize = SLOTS;

    fn slot(&self, index: usize) -> Place<'a> {
        let (key, tat) = &self.0[index];
        Place { key, tat }
    }
}

impl Set {
    /// One whose places others hold for good.
    fn taken() -> Self {
        let set = Self::default();
        for (slot, (key, tat)) in set.0.iter().enumerate() {
            key.0.store(u64::MAX - slot as u64, Ordering::SeqCst);
            tat.0.store(u64::MAX, Ordering::SeqCst);
        }
        set
    }

    /// Keys and TATs as they are.
    fn snapshot(&self) -> Vec<(u64, u64)> {
        let word = |word: &Word| word.0.load(Ordering::SeqCst);
        self.0
            .iter()
            .map(|(key, tat)| (word(key), word(tat)))
            .collect()
    }

    /// How many places `key` has.
    fn places_of(&self, key: u64) -> usize {
        self.snapshot()
            .iter()
            .filter(|(owner, _)| *owner == key)
            .count()
    }
}

/// A small sketch: the cells of a source are given by hand.
#[derive(Debug)]
struct Sketch([Vec<Word>; 2]);

impl Sketch {
    fn new(cells: usize) -> Self {
        let row = || (0..cells).map(|_| Word::default()).collect();
        Self([row(), row()])
    }

    fn snapshot(&self) -> Vec<u64> {
        let words = self.0.iter().flatten();
        words.map(|word| word.0.load(Ordering::SeqCst)).collect()
    }

    fn cells(&self, [first, second]: [usize; 2]) -> [&Word; 2] {
        [&self.0[0][first], &self.0[1][second]]
    }
}

/// A source, under one limit.
#[derive(Clone, Copy, Debug)]
struct Source {
    key: u64,
    cells: [usize; 2],
    limit: Limit,
}

impl Source {
    fn request(&self, now: u64, tokens: u64) -> Request {
        Request {
            key: self.key,
            now,
            cost: self.limit.cost(tokens),
            tolerance: self.limit.tolerance,
        }
    }
}

/// A table of one set, and its sketch.
struct Tables {
    set: Set,
    sketch: Sketch,
    keep: u64,
}

impl Tables {
    /// As the program does it: the short way, and where that leads nowhere, the long one.
    fn take(&self, source: Source, now: u64, tokens: u64) -> (Decision, Sight) {
        let request = source.request(now, tokens);
        let cells = || Some(self.sketch.cells(source.cells));
        take_at_hand(&&self.set, cells, &request, self.keep, u32::MAX)
            .unwrap_or_else(|| self.take_the_long_way(source, now, tokens))
    }

    fn take_the_long_way(&self, source: Source, now: u64, tokens: u64) -> (Decision, Sight) {
        let request = source.request(now, tokens);
        let cells = || Some(self.sketch.cells(source.cells));
        take_source(&&self.set, cells, &request, self.keep, u32::MAX)
    }

    fn admits(&self, source: Source, now: u64) -> bool {
        is_admitted(self.take(source, now, 1).0)
    }
}

fn is_admitted(decision: Decision) -> bool {
    matches!(decision, Decision::Admitted { .. })
}
