//! Races for places, under real threads.

extern crate std;

use std::sync::Barrier;
use std::thread;
use std::vec::Vec;

use super::{SECOND, Set, Sketch, Source, Tables, is_admitted};
use crate::bucket::{Decision, Limit};
use crate::table::Sight;

const THREADS: usize = 4;
const ROUNDS: u64 = 400;
const NOW: u64 = 1 << 40;

/// Calls `work` on every thread, all starting at once.
fn together<T: Send>(work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        let run = |thread| {
            let (start, work) = (&start, &work);
            scope.spawn(move || {
                start.wait();
                work(thread)
            })
        };
        let threads: Vec<_> = (0..THREADS).map(run).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

fn source(key: u64, limit: Limit) -> Source {
    Source {
        key,
        cells: [0, 0],
        limit,
    }
}

/// Keeps asking, as packets keep coming, until each has been decided `packets` times.
fn admitted(tables: &Tables, source: Source, now: u64, packets: usize) -> u64 {
    let mut count = 0;
    let mut decided = 0;
    while decided < packets {
        match tables.take(source, now, 1) {
            (Decision::Contended, _) => {}
            (decision, _) => {
                decided += 1;
                count += u64::from(is_admitted(decision));
            }
        }
    }
    count
}

#[test]
fn at_first_sight_a_source_gets_one_place_and_its_limit() {
    let limit = Limit::new(10, 1, SECOND).unwrap();
    for round in 0..ROUNDS {
        let tables = Tables {
            set: Set::default(),
            sketch: Sketch::new(1),
            keep: SECOND,
        };
        let source = source(2 + round, limit);
        let sum: u64 = together(|_| admitted(&tables, source, NOW, 8)).iter().sum();
        assert_eq!(sum, 10);
        assert_eq!(tables.set.places_of(source.key), 1);
    }
}

#[test]
fn at_first_sight_with_clocks_apart_too() {
    // To one CPU a place is due that is not yet to another: they go for different ones.
    let limit = Limit::new(10, 1, SECOND).unwrap();
    for round in 0..ROUNDS {
        let tables = Tables {
            set: Set::default(),
            sketch: Sketch::new(1),
            keep: SECOND,
        };
        for (slot, key) in (50..54).enumerate() {
            let due = NOW - 20 * SECOND - (slot as u64) * 9 * SECOND - 10 * SECOND;
            is_admitted(tables.take(source(key, limit), due, 1).0);
        }
        let newcomer = source(100 + round, limit);
        let admitted = together(|thread| {
            let now = NOW - 29 * SECOND + (thread as u64) * 9 * SECOND;
            let mut in_sketch = 0;
            let mut count = 0;
            for _ in 0..8 {
                let (decision, sight) = tables.take(newcomer, now, 1);
                count += u64::from(is_admitted(decision));
                in_sketch += u64::from(sight == Sight::Sketched);
            }
            (count, in_sketch)
        });
        let sum: u64 = admitted.iter().map(|(count, _)| count).sum();
        let sketched: u64 = admitted.iter().map(|(_, sketched)| sketched).sum();
        // 27 s lie between the clocks; and one packet each may have been on its way in the sketch.
        let most = 10 + 27 + (THREADS as u64 - 1).min(sketched);
        assert!(sum <= most, "{sum} of {most}");
        assert!(tables.set.places_of(newcomer.key) <= 1);
    }
}

#[test]
fn whoever_takes_a_place_over_takes_nothing_with_it() {
    // Four owners, due; as many newcomers as threads, and the owners come back at the same time.
    let limit = Limit::new(10, 1, SECOND).unwrap();
    for _ in 0..ROUNDS {
        let tables = Tables {
            set: Set::default(),
            sketch: Sketch::new(1),
            keep: SECOND,
        };
        for key in 50..54 {
            assert!(tables.admits(source(key, limit), NOW - 100 * SECOND));
        }
        let counts = together(|thread| {
            let newcomer = 100 + thread as u64 % 2;
            let owner = 50 + thread as u64 % 2;
            let take = |key| {
                let (decision, sight) = tables.take(source(key, limit), NOW, 1);
                let admitted = is_admitted(decision);
                // What the sketch admits is bound by its own limit.
                u64::from(admitted && sight != Sight::Sketched)
            };
            (0..12).fold([0, 0], |[a, b], _| [a + take(newcomer), b + take(owner)])
        });
        // Threads two apart have the same newcomer and the same owner.
        for pair in 0..2 {
            let both = counts.iter().skip(pair).step_by(2);
            let [newcomer, owner] = both.fold([0, 0], |[a, b], [c, d]| [a + c, b + d]);
            assert!(newcomer <= 10 && owner <= 10, "{newcomer} {owner}");
        }
        for key in (50..54).chain(100..102) {
            assert!(tables.set.places_of(key) <= 1);
        }
        // Nobody is left in transition.
        assert!(tables.set.snapshot().iter().all(|(key, _)| *key > 1));
    }
}

#[test]
fn a_source_in_the_sketch_gets_its_limit_and_what_is_on_its_way() {
    let limit = Limit::new(1_000, 1, SECOND).unwrap();
    for _ in 0..20 {
        let tables = Tables {
            set: Set::taken(),
            sketch: Sketch::new(1),
            keep: SECOND,
        };
        let source = source(9, limit);
        let sum: u64 = together(|_| admitted(&tables, source, NOW, 1_000))
            .iter()
            .sum();
        // One that was admitted by one cell and is not yet charged to the other, on each other thread.
        assert!((1_000..1_000 + THREADS as u64).contains(&sum), "{sum}");
    }
}
