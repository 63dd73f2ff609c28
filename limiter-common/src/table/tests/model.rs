//! Any sequence of packets of several sources, on one thread.

use proptest::prelude::*;
use std::vec::Vec;

extern crate std;

use super::{SECOND, Set, Sketch, Source, Tables, is_admitted};
use crate::bucket::{Limit, Step, step};
use crate::table::{SLOTS, Sight, ask_source};

/// A packet: which source, how long after the one before, and how many tokens.
#[derive(Clone, Copy, Debug)]
struct Packet {
    source: usize,
    after: u64,
    tokens: u64,
}

/// Sources with limits of a few tokens; all from the same cells where `cells` is 1.
fn sources(count: usize, cells: usize) -> impl Strategy<Value = Vec<Source>> {
    let one = (1..6_u64, 1..4_u64, 0..cells, 0..cells);
    proptest::collection::vec(one, count).prop_map(|sources| {
        let source = |(index, (tokens, seconds, first, second))| Source {
            key: 2 + index as u64,
            cells: [first, second],
            limit: Limit::new(tokens, 1, seconds * SECOND).unwrap(),
        };
        sources.into_iter().enumerate().map(source).collect()
    })
}

fn packets(sources: usize) -> impl Strategy<Value = Vec<Packet>> {
    let after = prop_oneof![4 => Just(0), 3 => 0..SECOND, 2 => 0..5 * SECOND, 1 => 0..40 * SECOND];
    let one = (0..sources, after, prop_oneof![5 => Just(1), 1 => 1..6_u64]);
    let packet = |(source, after, tokens)| Packet {
        source,
        after,
        tokens,
    };
    proptest::collection::vec(one.prop_map(packet), 1..300)
}

/// A bucket of its own for each source.
struct Plain(Vec<u64>);

impl Plain {
    fn new(sources: &[Source]) -> Self {
        Self(sources.iter().map(|_| 0).collect())
    }

    fn take(&mut self, sources: &[Source], packet: Packet, now: u64) -> bool {
        let limit = sources[packet.source].limit;
        let tat = &mut self.0[packet.source];
        match step(*tat, now, limit.cost(packet.tokens), limit.tolerance) {
            Step::Admit { tat: next } => {
                *tat = next;
                true
            }
            Step::Deny { .. } => false,
        }
    }
}

/// What each source was admitted, and when.
struct Log(Vec<Vec<(u64, u64)>>);

impl Log {
    fn new(sources: &[Source]) -> Self {
        Self(sources.iter().map(|_| Vec::new()).collect())
    }

    fn add(&mut self, packet: Packet, now: u64) {
        self.0[packet.source].push((now, packet.tokens));
    }

    /// Whether no source was admitted more than `times` its limit between any two instants.
    fn holds(&self, sources: &[Source], times: u64) -> Result<(), TestCaseError> {
        for (source, admitted) in sources.iter().zip(&self.0) {
            for (first, &(start, _)) in admitted.iter().enumerate() {
                let mut sum = 0;
                for &(end, tokens) in &admitted[first..] {
                    sum += tokens;
                    let limit = source.limit;
                    // Rounded once for each of the buckets that it may have had.
                    let most = times * (limit.capacity + (end - start) / limit.interval);
                    prop_assert!(sum < most + times, "{} > {} {:?}", sum, most, source);
                }
            }
        }
        Ok(())
    }
}

const START: u64 = 1 << 40;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn sources_with_a_place_have_a_bucket_of_their_own(
        sources in sources(SLOTS, 1), packets in packets(SLOTS),
    ) {
        let tables = Tables { set: Set::default(), sketch: Sketch::new(1), keep: 10 * SECOND };
        let mut plain = Plain::new(&sources);
        let mut now = START;
        for packet in packets {
            now += packet.after;
            let expected = plain.take(&sources, packet, now);
            let (decision, sight) = tables.take(sources[packet.source], now, packet.tokens);
            let own = matches!(sight, Sight::Known | Sight::Placed { .. });
            prop_assert!(own, "{:?}", sight);
            prop_assert_eq!(is_admitted(decision), expected);
        }
    }

    #[test]
    fn sources_alone_in_their_cells_have_a_bucket_of_their_own(
        mut sources in sources(8, 1), packets in packets(8),
    ) {
        for (index, source) in sources.iter_mut().enumerate() {
            source.cells = [index, 7 - index];
        }
        let tables = Tables { set: Set::taken(), sketch: Sketch::new(8), keep: SECOND };
        let mut plain = Plain::new(&sources);
        let mut now = START;
        for packet in packets {
            now += packet.after;
            let expected = plain.take(&sources, packet, now);
            let (decision, sight) = tables.take(sources[packet.source], now, packet.tokens);
            prop_assert_eq!(sight, Sight::Sketched);
            prop_assert_eq!(is_admitted(decision), expected);
        }
    }

    #[test]
    fn the_sketch_admits_nobody_more_than_twice_its_limit(
        sources in sources(10, 3), packets in packets(10),
    ) {
        let tables = Tables { set: Set::taken(), sketch: Sketch::new(3), keep: SECOND };
        let mut log = Log::new(&sources);
        let mut now = START;
        for packet in packets {
            now += packet.after;
            if is_admitted(tables.take(sources[packet.source], now, packet.tokens).0) {
                log.add(packet, now);
            }
        }
        log.holds(&sources, 2)?;
    }

    #[test]
    fn coming_and_going_admits_nobody_more_than_twice_its_limit(
        sources in sources(12, 3), packets in packets(12), keep in 0..4 * SECOND,
    ) {
        let tables = Tables { set: Set::default(), sketch: Sketch::new(3), keep };
        let mut log = Log::new(&sources);
        let mut now = START;
        for packet in packets {
            now += packet.after;
            if is_admitted(tables.take(sources[packet.source], now, packet.tokens).0) {
                log.add(packet, now);
            }
        }
        log.holds(&sources, 2)?;
    }

    #[test]
    fn a_place_is_kept_until_its_bucket_was_full_for_long_enough(
        sources in sources(12, 3), packets in packets(12), keep in 0..4 * SECOND,
    ) {
        let tables = Tables { set: Set::default(), sketch: Sketch::new(3), keep };
        let mut now = START;
        for packet in packets {
            now += packet.after;
            let before = tables.set.snapshot();
            let (_, sight) = tables.take(sources[packet.source], now, packet.tokens);
            let after = tables.set.snapshot();
            let mut evictions = 0;
            for ((owner, tat), (next, _)) in before.iter().zip(&after) {
                if owner == next {
                    continue;
                }
                prop_assert_eq!(*next, sources[packet.source].key);
                if *owner != 0 {
                    evictions += 1;
                    prop_assert!(tat + keep <= now, "full at {}, now {}", tat, now);
                }
            }
            prop_assert_eq!(evictions == 1, sight == Sight::Placed { evicted: true });
            if sight == Sight::Sketched {
                let in_use = |(owner, tat): &(u64, u64)| *owner != 0 && tat + keep > now;
                prop_assert!(before.iter().all(in_use));
            }
        }
    }

    #[test]
    fn asking_foretells_taking(
        sources in sources(12, 3), packets in packets(12), keep in 0..4 * SECOND,
    ) {
        let tables = Tables { set: Set::default(), sketch: Sketch::new(3), keep };
        let mut now = START;
        for packet in packets {
            now += packet.after;
            let source = sources[packet.source];
            let request = source.request(now, packet.tokens);
            let cells = || Some(tables.sketch.cells(source.cells));
            let asked = ask_source(&&tables.set, cells, &request);
            let taken = is_admitted(tables.take(source, now, packet.tokens).0);
            prop_assert_eq!(asked, Some(taken));
        }
    }

    #[test]
    fn the_short_way_leads_where_the_long_one_does(
        sources in sources(12, 3), packets in packets(12), keep in 0..4 * SECOND,
    ) {
        let new = || Tables { set: Set::default(), sketch: Sketch::new(3), keep };
        let (short, long) = (new(), new());
        let mut now = START;
        for packet in packets {
            now += packet.after;
            let source = sources[packet.source];
            let taken = short.take(source, now, packet.tokens);
            prop_assert_eq!(taken, long.take_the_long_way(source, now, packet.tokens));
            prop_assert_eq!(short.set.snapshot(), long.set.snapshot());
            prop_assert_eq!(short.sketch.snapshot(), long.sketch.snapshot());
        }
    }
}
