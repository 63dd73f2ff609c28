//! The share of one of several nodes.

use proptest::prelude::*;

use super::*;

const ALL: [Algorithm; 3] = [
    Algorithm::TokenBucket,
    Algorithm::FixedWindow,
    Algorithm::SlidingWindow,
];

/// How many of so many requests for a token are admitted at once.
fn burst(meter: &Meter, words: &Plain, requests: usize, now: Now) -> usize {
    let admitted = (0..requests).filter(|_| admits(meter, words, 1, now));
    admitted.count()
}

#[test]
fn nodes_together_admit_what_the_limit_does() {
    for algorithm in ALL {
        for (capacity, nodes, each) in [(100, 1, 100), (100, 3, 33), (7, 2, 3), (3, 3, 1)] {
            let share = meter(algorithm, capacity, 60).divided(nodes, 1);
            let words = Plain::default();
            let admitted = burst(&share, &words, 200, at(6_000.0));
            assert_eq!(admitted, each, "{algorithm:?} {capacity}/{nodes}");
            assert_eq!(share.capacity(), u64::try_from(each).unwrap());
            assert_eq!(share.standing(&words, at(6_000.0)).remaining, 0);
        }
    }
}

#[test]
fn a_share_is_refilled_at_its_part_of_the_rate() {
    let share = meter(Algorithm::TokenBucket, 60, 60).divided(3, 1);
    let words = Plain::default();
    assert_eq!(burst(&share, &words, 100, at(0.0)), 20);
    let wait = 3 * SECOND;
    assert_eq!(share.take(&words, 1, at(0.0)), Verdict::Deny { wait });
    assert_eq!(burst(&share, &words, 100, at(30.0)), 10);
    // One that is less than a token holds one, which comes back as seldom.
    let share = meter(Algorithm::TokenBucket, 1, 60).divided(3, 1);
    let words = Plain::default();
    assert_eq!(burst(&share, &words, 100, at(0.0)), 1);
    assert_eq!(burst(&share, &words, 100, at(179.0)), 0);
    assert_eq!(burst(&share, &words, 100, at(180.0)), 1);
}

#[test]
fn a_request_that_costs_more_than_a_share_can_conform() {
    for algorithm in ALL {
        let share = meter(algorithm, 10, 60).divided(4, 5);
        let words = Plain::default();
        assert!(admits(&share, &words, 5, at(6_000.0)), "{algorithm:?}");
        assert!(!admits(&share, &words, 5, at(6_000.0)), "{algorithm:?}");
        // Never more than the limit has.
        assert_eq!(meter(algorithm, 10, 60).divided(4, 50).capacity(), 10);
    }
}

#[test]
fn what_is_used_stays_used_when_the_number_of_nodes_changes() {
    for algorithm in ALL {
        let limit = meter(algorithm, 60, 60);
        let now = at(6_000.0);
        for (first, second) in [(1, 3), (3, 1), (3, 2), (2, 6), (6, 1)] {
            let words = Plain::default();
            // Half of the first share is used: half of the second is left.
            let half = usize::try_from(60 / first / 2).unwrap();
            assert_eq!(burst(&limit.divided(first, 1), &words, half, now), half);
            let left = usize::try_from(60 / second / 2).unwrap();
            let left_now = burst(&limit.divided(second, 1), &words, 100, now);
            assert_eq!(left_now, left, "{algorithm:?} {first} -> {second}");
            // And none is, however often it changes.
            for nodes in [first, second, 1, 4, second] {
                let more = burst(&limit.divided(nodes, 1), &words, 100, now);
                assert_eq!(more, 0, "{algorithm:?} {nodes}");
            }
        }
    }
}

#[test]
fn tokens_and_costs_come_back_and_are_taken_by_the_same_share() {
    for algorithm in ALL {
        let share = meter(algorithm, 60, 60).divided(3, 1);
        let (words, now) = (Plain::default(), at(6_000.0));
        let Verdict::Admit { mark } = share.take(&words, 20, now) else {
            panic!("the share is full");
        };
        assert!(!admits(&share, &words, 1, now));
        share.give_back(&words, 5, mark, now);
        assert_eq!(share.standing(&words, now).remaining, 5);
        share.charge(&words, 3, now);
        assert_eq!(share.standing(&words, now).remaining, 2, "{algorithm:?}");
    }
}

/// A store counts; then it is gone, and each of the nodes has its share of what is left.
#[test]
fn a_share_goes_on_from_what_was_counted_for_all() {
    for algorithm in ALL {
        let limit = meter(algorithm, 60, 60);
        let (store, now) = (Plain::default(), at(6_030.0));
        let words = Plain::default();
        for used in [0, 20, 50, 60] {
            let taken = limit.standing(&store, now).remaining - (60 - used);
            assert!(taken == 0 || admits(&limit, &store, taken, now));
            limit.assume(&words, limit.standing(&store, now), now);
            assert_eq!(limit.standing(&words, now).remaining, 60 - used);
            let share = limit.divided(2, 1).standing(&words, now).remaining;
            assert_eq!(share, (60 - used) / 2, "{algorithm:?}");
        }
        // A store that has forgotten gives nothing.
        limit.assume(&words, limit.standing(&Plain::default(), now), now);
        let other = Plain::default();
        assert!(admits(&limit, &other, 10, now));
        limit.assume(&words, limit.standing(&other, now), now);
        assert_eq!(limit.standing(&words, now).remaining, 0, "{algorithm:?}");
        let later = match algorithm {
            Algorithm::TokenBucket => at(6_060.0),
            Algorithm::FixedWindow => at(6_060.0),
            Algorithm::SlidingWindow => at(6_090.0),
        };
        let wanted = limit.standing(&store, later).remaining;
        assert_eq!(limit.standing(&words, later).remaining, wanted);
    }
}

#[test]
fn the_slowest_limit_and_the_most_nodes_overflow_nothing() {
    let year = 366 * 86_400;
    for algorithm in ALL {
        for capacity in [1, 2, 1 << 31, 1 << 40] {
            let share = meter(algorithm, capacity, year).divided(u32::MAX, 1);
            let words = Plain::default();
            assert!(admits(&share, &words, 1, at(6_000.0)), "{algorithm:?}");
            assert!(!admits(&share, &words, u64::MAX, at(6_000.0)));
        }
    }
}

proptest! {
    /// In no stretch of time is more admitted on all nodes than the limit's burst and rate.
    #[test]
    fn shares_add_up_to_no_more_than_the_limit(
        capacity in 1u64..40,
        nodes in 1u32..7,
        events in prop::collection::vec((0u64..4_000, 0usize..7), 1..200),
    ) {
        let limit = meter(Algorithm::TokenBucket, capacity, 10);
        let share = limit.divided(nodes, 1);
        let words: Vec<Plain> = (0..nodes).map(|_| Plain::default()).collect();
        let mut now = 0;
        let mut admitted = Vec::new();
        for (pause, node) in events {
            now += pause * 1_000_000;
            let moment = Now { mono: now, unix: 0 };
            let verdict = share.take(&words[node % words.len()], 1, moment);
            if matches!(verdict, Verdict::Admit { .. }) {
                admitted.push(now);
            }
        }
        // Each holds one token at least.
        let most = u128::from(capacity.max(u64::from(nodes)));
        for (index, from) in admitted.iter().enumerate() {
            for (further, to) in admitted[index..].iter().enumerate() {
                let filled = u128::from(to - from) * u128::from(capacity) / u128::from(10 * SECOND);
                let count = u128::try_from(further).unwrap() + 1;
                prop_assert!(count <= most + filled, "{count} in {}", to - from);
            }
        }
    }
}
