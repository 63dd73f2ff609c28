//! Each algorithm against a plain model of what it is documented to do, with clocks that are given,
//! and by several threads at once.

mod divided;

use std::collections::HashMap;
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::engine::buckets::{BucketTable, Word};

/// Words without a table.
#[derive(Debug, Default)]
struct Plain([Word; 2]);

impl Words for Plain {
    fn word(&self, index: usize, _: Now) -> Bucket<'_> {
        Bucket::Shared(&self.0[index])
    }

    fn existing(&self, index: usize, _: Now) -> Bucket<'_> {
        Bucket::Shared(&self.0[index])
    }
}

fn at(seconds: f64) -> Now {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small"
    )]
    let now = (seconds * 1e9) as u64;
    Now {
        mono: now,
        unix: now,
    }
}

fn meter(algorithm: Algorithm, capacity: u64, seconds: u64) -> Meter {
    let limit = Limit::new(capacity, capacity, seconds * SECOND).unwrap();
    Meter::new(limit, algorithm, seconds, true)
}

fn admits(meter: &Meter, words: &Plain, tokens: u64, now: Now) -> bool {
    let peeked = meter.peek(words, tokens, now);
    let taken = meter.take(words, tokens, now);
    let admitted = matches!(taken, Verdict::Admit { .. });
    assert_eq!(admitted, matches!(peeked, Verdict::Admit { .. }));
    admitted
}

#[test]
fn a_fixed_window_ends_at_a_multiple_of_its_length() {
    let meter = meter(Algorithm::FixedWindow, 3, 60);
    let words = Plain::default();
    let taken = (0..5).filter(|_| admits(&meter, &words, 1, at(7_199.0)));
    assert_eq!(taken.count(), 3);
    let wanted = Standing {
        remaining: 0,
        reset: SECOND,
    };
    assert_eq!(meter.standing(&words, at(7_199.0)), wanted);
    assert_eq!(
        meter.take(&words, 1, at(7_199.5)),
        Verdict::Deny { wait: SECOND / 2 }
    );
    assert!(admits(&meter, &words, 3, at(7_200.0)));
    assert!(!admits(&meter, &words, 1, at(7_259.9)));
    assert_eq!(
        meter.take(&words, 4, at(7_300.0)),
        Verdict::Deny { wait: NEVER }
    );
}

#[test]
fn a_sliding_window_weighs_the_last_one() {
    let meter = meter(Algorithm::SlidingWindow, 10, 60);
    let words = Plain::default();
    assert!(admits(&meter, &words, 10, at(59.0)));
    // All of the last window weighs on the first instant of this one.
    assert!(!admits(&meter, &words, 1, at(60.0)));
    assert_eq!(
        meter.take(&words, 1, at(60.0)),
        Verdict::Deny { wait: 6 * SECOND }
    );
    assert!(admits(&meter, &words, 1, at(66.0)));
    assert!(!admits(&meter, &words, 1, at(66.0)));
    let half = meter.standing(&words, at(90.0));
    assert_eq!(half.remaining, 4);
    assert_eq!(half.reset, 90 * SECOND);
    assert!(admits(&meter, &words, 9, at(120.0)));
    assert_eq!(meter.standing(&words, at(300.0)).remaining, 10);
}

#[test]
fn a_step_back_of_the_wall_clock_gives_nothing_and_denies_for_two_windows_at_most() {
    for algorithm in [Algorithm::FixedWindow, Algorithm::SlidingWindow] {
        let meter = meter(algorithm, 5, 60);
        let words = Plain::default();
        assert!(admits(&meter, &words, 5, at(7_230.0)));
        // A little: the count goes on in the window that was begun.
        assert!(!admits(&meter, &words, 1, at(7_199.0)));
        // By an hour.
        let Verdict::Deny { wait } = meter.take(&words, 1, at(3_630.0)) else {
            panic!("a step back gave tokens");
        };
        assert!(wait <= 90 * SECOND, "{algorithm:?} {wait}");
        assert!(
            admits(&meter, &words, 1, at(3_630.0 + 120.0)),
            "{algorithm:?}"
        );
    }
}

#[test]
fn none_is_a_check_that_there_is_one() {
    for algorithm in [
        Algorithm::TokenBucket,
        Algorithm::FixedWindow,
        Algorithm::SlidingWindow,
    ] {
        let meter = meter(algorithm, 1, 60);
        let words = Plain::default();
        for _ in 0..3 {
            assert!(admits(&meter, &words, 0, at(60.0)));
        }
        assert!(admits(&meter, &words, 1, at(60.0)));
        assert!(!admits(&meter, &words, 0, at(60.0)));
    }
}

#[test]
fn debt_is_paid_by_later_requests_and_bounded() {
    let meter = meter(Algorithm::TokenBucket, 60, 60);
    let words = Plain::default();
    meter.charge(&words, 90, at(0.0));
    assert_eq!(meter.standing(&words, at(0.0)).remaining, 0);
    assert_eq!(
        meter.take(&words, 1, at(0.0)),
        Verdict::Deny { wait: 31 * SECOND }
    );
    assert!(!admits(&meter, &words, 0, at(30.0)));
    assert!(admits(&meter, &words, 1, at(31.0)));
    meter.charge(&words, u64::MAX, at(31.0));
    assert!(!admits(&meter, &words, 1, at(31.0 + 60.0 * 15.0)));
    assert!(admits(&meter, &words, 1, at(32.0 + 60.0 * 15.0)));

    let meter = self::meter(Algorithm::FixedWindow, 60, 60);
    let words = Plain::default();
    meter.charge(&words, u64::MAX, at(0.0));
    assert!(!admits(&meter, &words, 1, at(59.0)));
    assert!(admits(&meter, &words, 60, at(60.0)));
}

#[test]
fn time_and_a_refund_do_not_give_the_same_token_twice() {
    let meter = meter(Algorithm::TokenBucket, 10, 10);
    let words = Plain::default();
    let Verdict::Admit { mark } = meter.take(&words, 5, at(0.0)) else {
        panic!("the bucket is full");
    };
    // Full again; others empty it; then the refund comes.
    assert!(admits(&meter, &words, 10, at(6.0)));
    meter.give_back(&words, 5, mark, at(6.0));
    assert!(!admits(&meter, &words, 1, at(6.0)));
    let Verdict::Admit { mark } = meter.take(&words, 1, at(7.0)) else {
        panic!("a token is back");
    };
    meter.give_back(&words, 1, mark, at(7.0));
    assert!(admits(&meter, &words, 1, at(7.0)));
    assert!(!admits(&meter, &words, 1, at(7.0)));
}

/// What happens to a meter, after a pause in milliseconds (that may be a step back).
#[derive(Clone, Debug)]
enum Event {
    Take(u64),
    Charge(u64),
    GiveLastBack,
}

fn events() -> impl Strategy<Value = Vec<(i64, Event)>> {
    let event = prop_oneof![
        6 => (0u64..5).prop_map(Event::Take),
        1 => (0u64..30).prop_map(Event::Charge),
        1 => Just(Event::GiveLastBack),
    ];
    let pause = prop_oneof![20 => 0i64..3_000, 3 => 5_000i64..40_000, 1 => -90_000i64..0];
    prop::collection::vec((pause, event), 1..80)
}

/// What a fixed window is, without words: the number of the window, and the count in it.
#[derive(Clone, Copy, Debug, Default)]
struct Fixed {
    window: u64,
    count: u64,
}

impl Fixed {
    /// The count at `now`: one ahead by a window goes on, one further ahead is moved.
    fn at(self, now: u64) -> Self {
        let current = now / LENGTH;
        match self {
            Self { count: 0, .. } => Self {
                window: current,
                count: 0,
            },
            Self { window, .. } if window < current => Self {
                window: current,
                count: 0,
            },
            Self { window, .. } if window <= current + 1 => self,
            Self { count, .. } => Self {
                window: current,
                count,
            },
        }
    }
}

const CAPACITY: u64 = 7;
const LENGTH: u64 = 10 * SECOND;

proptest! {
    #[test]
    fn fixed_windows_count_as_the_model(events in events()) {
        let meter = meter(Algorithm::FixedWindow, CAPACITY, 10);
        let (words, mut model) = (Plain::default(), Fixed::default());
        let mut now: i64 = 1_000_000;
        let mut last = None;
        for (pause, event) in events {
            now += pause;
            let ns = u64::try_from(now).unwrap() * 1_000_000;
            let clock = Now { mono: 0, unix: ns };
            let Fixed { window, count } = model.at(ns);
            match event {
                Event::Take(tokens) => match meter.take(&words, tokens, clock) {
                    Verdict::Admit { mark } => {
                        prop_assert!(count + tokens.max(1) <= CAPACITY);
                        if tokens > 0 {
                            model = Fixed { window, count: count + tokens };
                            last = Some((mark, tokens, window));
                        }
                    }
                    Verdict::Deny { wait } => {
                        prop_assert!(count + tokens.max(1) > CAPACITY);
                        prop_assert_eq!(wait, (window + 1) * LENGTH - ns);
                        model = Fixed { window, count };
                    }
                },
                Event::Charge(tokens) => {
                    meter.charge(&words, tokens, clock);
                    model = Fixed { window, count: count + tokens };
                }
                Event::GiveLastBack => {
                    if let Some((mark, tokens, window)) = last.take() {
                        meter.give_back(&words, tokens, mark, clock);
                        if model.window == window {
                            model.count = model.count.saturating_sub(tokens);
                        }
                    }
                }
            }
            let left = CAPACITY.saturating_sub(model.at(ns).count);
            prop_assert_eq!(meter.standing(&words, clock).remaining, left);
        }
    }

    /// On a clock that does not step back: exactly the two counters and the share of time.
    #[test]
    fn sliding_windows_count_as_the_model(events in events()) {
        let meter = meter(Algorithm::SlidingWindow, CAPACITY, 10);
        let words = Plain::default();
        let mut counts: HashMap<u64, u64> = HashMap::new();
        let mut now: u64 = 1_000_000;
        for (pause, event) in events {
            now += pause.unsigned_abs();
            let ns = now * 1_000_000;
            let clock = Now { mono: 0, unix: ns };
            let window = ns / LENGTH;
            let count = |window| counts.get(&window).copied().unwrap_or(0);
            let left = u128::from((window + 1) * LENGTH - ns);
            let weighed = u128::from(count(window - 1)) * left;
            let weighed = u64::try_from(weighed.div_ceil(u128::from(LENGTH))).unwrap();
            let used = count(window) + weighed;
            prop_assert_eq!(meter.standing(&words, clock).remaining, CAPACITY.saturating_sub(used));
            match event {
                Event::Take(tokens) => match meter.take(&words, tokens, clock) {
                    Verdict::Admit { .. } => {
                        prop_assert!(used + tokens.max(1) <= CAPACITY);
                        *counts.entry(window).or_default() += tokens;
                    }
                    Verdict::Deny { wait } => {
                        prop_assert!(used + tokens.max(1) > CAPACITY);
                        // After the wait, and not before, it conforms.
                        for (moment, wanted) in [(ns + wait, true), (ns + wait - 1, false)] {
                            let then = Now { mono: 0, unix: moment };
                            let verdict = meter.peek(&words, tokens, then);
                            prop_assert_eq!(matches!(verdict, Verdict::Admit { .. }), wanted);
                        }
                    }
                },
                Event::Charge(tokens) => {
                    meter.charge(&words, tokens, clock);
                    *counts.entry(window).or_default() += tokens;
                }
                Event::GiveLastBack => {}
            }
        }
    }

    /// Whatever the wall clock does, within one of its windows no more is admitted than fits.
    #[test]
    fn no_window_admits_more_than_fits(events in events(), sliding in any::<bool>()) {
        let algorithm = if sliding { Algorithm::SlidingWindow } else { Algorithm::FixedWindow };
        let meter = meter(algorithm, CAPACITY, 10);
        let words = Plain::default();
        let mut now: i64 = 1_000_000;
        let mut real: u64 = 0;
        let mut admitted: Vec<(u64, u64)> = Vec::new();
        for (pause, event) in events {
            now += pause;
            real += pause.unsigned_abs();
            let unix = u64::try_from(now).unwrap() * 1_000_000;
            if let Event::Take(tokens) = event
                && matches!(meter.take(&words, tokens, Now { mono: 0, unix }), Verdict::Admit { .. })
            {
                admitted.push((real, tokens));
            }
        }
        // A step forward over a border begins a new window, a step back none: in a stretch of real
        // time there are no more windows than it has lengths, and two.
        for (index, (from, _)) in admitted.iter().enumerate() {
            let stretch = admitted[index..].iter().take_while(|(at, _)| at - from < 10_000);
            let sum: u64 = stretch.map(|(_, tokens)| tokens).sum();
            prop_assert!(sum <= 2 * CAPACITY, "{sum}");
        }
    }

    /// Of a token bucket: what is admitted and not given back is within burst and rate, on top of
    /// which comes what was given back in between for requests from before.
    #[test]
    fn tokens_never_leak(events in events()) {
        let meter = meter(Algorithm::TokenBucket, CAPACITY, 10);
        let words = Plain::default();
        let mut now: u64 = 0;
        let mut last = None;
        // Net tokens taken, in their order.
        let mut net: Vec<(u64, i128)> = Vec::new();
        for (pause, event) in events {
            now += pause.unsigned_abs();
            let clock = Now { mono: now * 1_000_000, unix: 0 };
            match event {
                Event::Take(tokens) => {
                    if let Verdict::Admit { mark } = meter.take(&words, tokens, clock) {
                        net.push((now, i128::from(tokens)));
                        last = (tokens > 0).then_some((mark, tokens));
                    }
                }
                Event::Charge(tokens) => meter.charge(&words, tokens, clock),
                Event::GiveLastBack => {
                    if let Some((mark, tokens)) = last.take() {
                        meter.give_back(&words, tokens, mark, clock);
                        net.push((now, -i128::from(tokens)));
                    }
                }
            }
        }
        for from in 0..net.len() {
            let mut sum = 0;
            for (until, tokens) in &net[from..] {
                sum += tokens;
                let time = i128::from(until - net[from].0);
                prop_assert!(sum * 10_000 <= i128::from(CAPACITY) * (10_000 + time) + 10_000);
            }
        }
    }
}

#[test]
fn threads_share_windows_exactly() {
    for algorithm in [Algorithm::FixedWindow, Algorithm::SlidingWindow] {
        let meter = meter(algorithm, 1_000, 3_600);
        let table = BucketTable::new(64);
        let spare = Word::default();
        let words = InTable {
            table: &table,
            spare: &spare,
        };
        let total: usize = thread::scope(|scope| {
            let run = || {
                (0..1_000)
                    .filter(|_| matches!(meter.take(&words, 1, at(60.0)), Verdict::Admit { .. }))
                    .count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(total, 1_000, "{algorithm:?}");
        assert_eq!(table.live(at(3_599.0)), 1);
        let over = if algorithm == Algorithm::FixedWindow {
            3_601.0
        } else {
            7_201.0
        };
        assert_eq!(table.live(at(over)), 0, "{algorithm:?}");
    }
}

/// Threads whose clocks differ by less than a window charge across borders: every charge counts.
#[test]
fn threads_around_a_border_lose_no_charge() {
    let meter = meter(Algorithm::FixedWindow, 1 << 20, 1);
    let words = Plain::default();
    let total: u64 = thread::scope(|scope| {
        let threads: Vec<_> = (0..4u32)
            .map(|n| {
                let (meter, words) = (&meter, &words);
                scope.spawn(move || {
                    let now = at(10.0 + f64::from(n % 2) * 0.5 + 0.4);
                    for _ in 0..5_000 {
                        meter.charge(words, 1, now);
                    }
                    5_000
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    let left = meter.standing(&words, at(10.5)).remaining;
    assert_eq!((1 << 20) - left, total);
}

struct InTable<'a> {
    table: &'a BucketTable,
    spare: &'a Word,
}

impl InTable<'_> {
    fn key(&self, index: usize) -> crate::engine::buckets::BucketKey {
        let key = self.table.key(&self.table.hasher(), Timeline::Wall);
        if index == 0 { key } else { key.sibling() }
    }
}

impl Words for InTable<'_> {
    fn word(&self, index: usize, now: Now) -> Bucket<'_> {
        self.table.bucket(self.key(index), now, self.spare)
    }

    fn existing(&self, index: usize, now: Now) -> Bucket<'_> {
        self.table.existing(self.key(index), now, self.spare)
    }
}
