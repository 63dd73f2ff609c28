//! From the sketch to the table, and how often strangers fill both cells of a source.

use super::{SECOND, Set, Sketch, Source, Tables, Word};
use crate::bucket::{Cell, Limit};
use crate::key::{Address, Secret, bucket_key};
use crate::table::{Sight, cell_indices, conforms_in_sketch, set_index, storable, take_in_sketch};

extern crate std;

use std::vec::Vec;

#[test]
fn a_debt_goes_along_to_the_table() {
    let limit = Limit::new(5, 5, 5 * SECOND).unwrap();
    let newcomer = Source {
        key: 100,
        cells: [0, 0],
        limit,
    };
    let tables = Tables {
        set: Set::default(),
        sketch: Sketch::new(1),
        keep: SECOND / 2,
    };
    let start = 1 << 40;
    // Four others take the places; the last two of their buckets are full again later.
    for (key, tokens) in [(10, 1), (11, 3), (12, 5), (13, 5)] {
        let other = Source { key, ..newcomer };
        assert_eq!(
            tables.take(other, start, tokens).1,
            Sight::Placed { evicted: false }
        );
    }
    for _ in 0..5 {
        assert_eq!(tables.take(newcomer, start, 1).1, Sight::Sketched);
    }
    assert!(!tables.admits(newcomer, start));
    // Full again after 1 s, and kept half a second more.
    let kept = start + 3 * SECOND / 2;
    assert_eq!(tables.take(newcomer, kept - 1, 5).1, Sight::Sketched);
    // Of the debt of 5 s, 3.5 s are left: one token of 5 has come back.
    assert_eq!(
        tables.take(newcomer, kept, 2).1,
        Sight::Placed { evicted: true }
    );
    assert_eq!(tables.set.places_of(10), 0);
    assert!(tables.admits(newcomer, kept));
    assert!(!tables.admits(newcomer, kept));
    assert_eq!(tables.take(newcomer, kept, 1).1, Sight::Known);
}

#[test]
fn a_cell_recovers_in_bounded_time_after_a_flood() {
    let limit = Limit::new(10, 10, SECOND).unwrap();
    let (first, second) = (Word::default(), Word::default());
    let other = Word::default();
    let now = 1 << 40;
    // Each source of a flood shares one cell and finds its other one free.
    for _ in 0..1_000 {
        let free = Word::default();
        for _ in 0..10 {
            take_in_sketch(&[&first, &free], now, limit.cost(1), limit.tolerance, 1);
            take_in_sketch(&[&free, &second], now, limit.cost(1), limit.tolerance, 1);
        }
    }
    let conforms =
        |now| conforms_in_sketch(&[&first, &second], now, limit.cost(1), limit.tolerance);
    assert!(!conforms(now));
    assert!((&first).load() <= now + 2 * limit.tolerance);
    assert!(conforms(now + limit.tolerance + limit.cost(1)));
    // And a source with one cell outside is not concerned at all.
    assert!(conforms_in_sketch(
        &[&first, &other],
        now,
        limit.cost(1),
        limit.tolerance
    ));
}

/// SplitMix64's sequence: addresses that an attacker, or chance, draws.
fn drawn(seed: u64) -> impl Iterator<Item = u64> {
    (1_u64..)
        .map(move |n| crate::key::mix(n.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(seed)))
}

const SECRET: Secret = Secret {
    first: 0x243f_6a88_85a3_08d3,
    second: 0x1319_8a2e_0370_7344,
};

fn key(seed: u64, address: u64) -> u64 {
    let low = 0xffff_0000_0000 | address & 0xffff_ffff;
    storable(bucket_key(SECRET, seed, Address { high: 0, low }))
}

#[test]
fn an_innocent_is_denied_as_seldom_as_two_cells_are_both_hot() {
    const CELLS: u32 = 1 << 14;
    let limit = Limit::new(10, 10, 60 * SECOND).unwrap();
    let now = 1 << 40;
    for hot in [CELLS / 32, CELLS / 8, CELLS / 4, CELLS] {
        let cells: Vec<Word> = (0..2 * CELLS).map(|_| Word::default()).collect();
        let cells_of = |key| cell_indices(key, CELLS - 1).map(|index| &cells[index as usize]);
        for address in drawn(1).take(hot as usize) {
            let cells = cells_of(key(7, address));
            for _ in 0..20 {
                take_in_sketch(&cells, now, limit.cost(1), limit.tolerance, 1);
            }
        }
        let innocents = 400_000;
        let denied = drawn(2)
            .take(innocents)
            .filter(|&address| {
                let cells = cells_of(key(7, address));
                !conforms_in_sketch(&cells, now, limit.cost(1), limit.tolerance)
            })
            .count();
        let rate = denied as f64 / innocents as f64;
        let k_over_m = f64::from(hot) / f64::from(CELLS);
        let bound = k_over_m * k_over_m;
        std::println!("{hot} hot of {CELLS}: {rate:.6}, bound {bound:.6}");
        assert!(rate <= bound * 1.1, "{hot} hot: {rate} > {bound}");
        // Cells that are hot twice make it less than that; nothing else does.
        let exact = (1.0 - (-k_over_m).exp()).powi(2);
        assert!(
            (rate - exact).abs() <= 0.15 * exact,
            "{hot} hot: {rate}, {exact}"
        );
    }
}

#[test]
fn neighbours_spread_over_sets_and_cells_evenly() {
    // A /16 in order: what a table sees most.
    const MASK: u32 = (1 << 12) - 1;
    let mut sets: Vec<u32> = (0..=MASK).map(|_| 0).collect();
    let mut cells: Vec<u32> = (0..2 * (MASK + 1)).map(|_| 0).collect();
    for address in 0..1_u64 << 16 {
        let key = key(3, 0x0a00_0000 + address);
        sets[set_index(key, MASK) as usize] += 1;
        let [first, second] = cell_indices(key, MASK);
        assert!(first <= MASK && (MASK + 1..=2 * MASK + 1).contains(&second));
        cells[first as usize] += 1;
        cells[second as usize] += 1;
    }
    // 16 on average, Poisson: more than 45 has a probability of 10^-9 for each.
    let most = sets.iter().chain(&cells).max();
    assert!(most.is_some_and(|&most| most < 45), "{most:?}");
}
