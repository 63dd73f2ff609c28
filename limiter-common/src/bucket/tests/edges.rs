//! Single cases worth naming.

use super::Plain;
use crate::bucket::{
    COARSE_INTERVAL, Cell as _, Decision, FINE_SHIFT, KERNEL_TRIES, Limit, LimitError,
    MAX_TOLERANCE, Step, conforms, give_back, step, take,
};

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;

fn admits(bucket: &Plain, limit: &Limit, now: u64, tokens: u64) -> bool {
    let decision = take(bucket, now, limit.cost(tokens), limit.tolerance, 1);
    matches!(decision, Decision::Admitted { .. })
}

#[test]
fn a_hundred_per_minute() {
    let limit = Limit::new(100, 100, MINUTE).unwrap();
    let bucket = Plain::full();
    let now = 5 * MINUTE;
    assert_eq!(
        (0..120).filter(|_| admits(&bucket, &limit, now, 1)).count(),
        100
    );
    assert!(!admits(&bucket, &limit, now + 600_000_000 - 1, 1));
    assert!(admits(&bucket, &limit, now + 600_000_000, 1));
    assert!(!admits(&bucket, &limit, now + 600_000_000, 1));
    assert_eq!(
        (0..120)
            .filter(|_| admits(&bucket, &limit, now + 10 * MINUTE, 1))
            .count(),
        100
    );
}

#[test]
fn zeros_and_what_cannot_be_expressed_are_errors() {
    let cases = [
        ((0, 1, 1), LimitError::NoTokens),
        ((1, 0, 1), LimitError::NoFill),
        ((1, 1, 0), LimitError::NoInterval),
        (((1 << 20) + 1, (1 << 20) + 1, 1), LimitError::TooFast),
        ((u64::MAX, u64::MAX, u64::MAX - 1), LimitError::TooSlow),
        ((2, 1, u64::MAX), LimitError::TooSlow),
        ((1, 1, MAX_TOLERANCE + 1), LimitError::TooSlow),
        ((u64::MAX, 1, 2), LimitError::TooSlow),
    ];
    for ((tokens, fill, every), error) in cases {
        assert_eq!(
            Limit::new(tokens, fill, every),
            Err(error),
            "{tokens} {fill} {every}"
        );
    }
}

#[test]
fn the_fastest_and_the_slowest_limits() {
    let fastest = Limit::new(MAX_TOLERANCE, 1 << 20, 1).unwrap();
    assert_eq!((fastest.interval, fastest.shift), (1, FINE_SHIFT));
    assert_eq!(fastest.capacity, MAX_TOLERANCE);
    assert_eq!(fastest.tolerance, MAX_TOLERANCE >> FINE_SHIFT);
    assert_eq!(fastest.cost(MAX_TOLERANCE), fastest.tolerance);
    let slowest = Limit::new(1, 1, MAX_TOLERANCE).unwrap();
    assert_eq!((slowest.interval, slowest.capacity), (MAX_TOLERANCE, 1));
}

#[test]
fn short_intervals_keep_their_fraction() {
    // 3 bytes every 2 ns: 12 Gbit/s.
    let limit = Limit::new(3_000, 3, 2).unwrap();
    assert_eq!((limit.shift, limit.capacity), (FINE_SHIFT, 3_000));
    assert_eq!((limit.cost(1), limit.cost(3_000)), (1, limit.tolerance));
    assert!((2_000..=2_001).contains(&limit.tolerance));
    // The last whole nanosecond, and the first that has none to keep.
    let fine = Limit::new(1, 1, COARSE_INTERVAL - 1).unwrap();
    let coarse = Limit::new(1, 1, COARSE_INTERVAL).unwrap();
    assert_eq!(
        (fine.shift, fine.cost(1)),
        (FINE_SHIFT, COARSE_INTERVAL - 1)
    );
    assert_eq!((coarse.shift, coarse.cost(1)), (0, COARSE_INTERVAL));
}

#[test]
fn a_bucket_can_be_emptied_at_once_and_says_so() {
    for (tokens, fill, every) in [
        (3_000_000, 3_000_000, SECOND),
        (7, 7, 5),
        (100, 100, MINUTE),
    ] {
        let limit = Limit::new(tokens, fill, every).unwrap();
        let bucket = Plain::full();
        assert_eq!(limit.remaining(0, SECOND), tokens);
        assert!(admits(&bucket, &limit, SECOND, tokens));
        assert_eq!(limit.remaining(bucket.load(), SECOND), 0);
    }
}

#[test]
fn a_fill_larger_than_the_bucket_counts_as_the_bucket() {
    assert_eq!(Limit::new(10, 1000, SECOND), Limit::new(10, 10, SECOND));
}

#[test]
fn an_interval_that_does_not_divide_is_rounded_up() {
    let limit = Limit::new(3, 3, SECOND).unwrap();
    assert_eq!(limit.interval, 333_333_334);
    assert_eq!(limit.capacity, 3);
}

#[test]
fn remaining_and_wait_follow_from_the_state() {
    let limit = Limit::new(10, 10, SECOND).unwrap();
    let bucket = Plain::full();
    let now = SECOND;
    assert_eq!(limit.remaining(bucket.load(), now), 10);
    assert!(admits(&bucket, &limit, now, 7));
    assert_eq!(limit.remaining(bucket.load(), now), 3);
    assert_eq!(limit.remaining(bucket.load(), now + 99_999_999), 3);
    assert_eq!(limit.remaining(bucket.load(), now + 100_000_000), 4);
    assert_eq!(limit.remaining(bucket.load(), now + MINUTE), 10);
    let wait = step(bucket.load(), now, limit.cost(5), limit.tolerance);
    assert_eq!(wait, Step::Deny { wait: 200_000_000 });
    assert_eq!(limit.remaining(u64::MAX, 0), 0);
}

#[test]
fn a_cost_above_the_bucket_never_conforms() {
    let limit = Limit::new(10, 10, SECOND).unwrap();
    for tokens in [11, u64::MAX] {
        let denied = step(0, MINUTE, limit.cost(tokens), limit.tolerance);
        assert_eq!(denied, Step::Deny { wait: u64::MAX });
    }
}

#[test]
fn the_default_limit_admits_nothing() {
    let none = Limit::default();
    assert_eq!((none.capacity, none.remaining(0, SECOND)), (0, 0));
    assert_eq!(
        step(0, SECOND, 1, none.tolerance),
        Step::Deny { wait: u64::MAX }
    );
}

#[test]
fn the_end_of_the_clock_denies_instead_of_wrapping() {
    let limit = Limit::new(1, 1, MAX_TOLERANCE).unwrap();
    for tat in [0, u64::MAX - 1, u64::MAX] {
        for now in [u64::MAX - 1, u64::MAX] {
            let step = step(tat, now, limit.cost(1), limit.tolerance);
            assert!(matches!(step, Step::Deny { .. }), "{tat} {now} {step:?}");
        }
    }
}

#[test]
fn asking_takes_nothing() {
    let limit = Limit::new(2, 1, SECOND).unwrap();
    let bucket = Plain::full();
    for _ in 0..5 {
        assert!(conforms(&bucket, SECOND, limit.cost(2), limit.tolerance));
    }
    assert!(admits(&bucket, &limit, SECOND, 2));
    assert!(!conforms(&bucket, SECOND, limit.cost(1), limit.tolerance));
}

#[test]
fn asking_settles_a_debt_from_before_a_limit_was_lowered() {
    let (before, after) = (
        Limit::new(100, 1, SECOND).unwrap(),
        Limit::new(2, 1, SECOND).unwrap(),
    );
    let bucket = Plain::full();
    assert!(admits(&bucket, &before, MINUTE, 100));
    assert!(!conforms(&bucket, MINUTE, after.cost(1), after.tolerance));
    assert!(conforms(
        &bucket,
        MINUTE + SECOND,
        after.cost(1),
        after.tolerance
    ));
}

#[test]
fn what_is_given_back_can_be_taken_again() {
    let limit = Limit::new(2, 1, SECOND).unwrap();
    let bucket = Plain::full();
    assert!(admits(&bucket, &limit, SECOND, 2));
    give_back(&bucket, limit.cost(1));
    assert!(admits(&bucket, &limit, SECOND, 1));
    assert!(!admits(&bucket, &limit, SECOND, 1));
    give_back(&bucket, u64::MAX);
    assert_eq!(bucket.load(), 0);
}

#[test]
fn without_tries_nothing_is_decided() {
    assert_eq!(take(&Plain::full(), SECOND, 1, 1, 0), Decision::Contended);
    assert_ne!(KERNEL_TRIES, 0);
}
