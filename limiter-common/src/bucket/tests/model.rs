//! Any sequence of requests, against models in `u128` that have no rounding and no overflow.
//!
//! Two of them hold the bucket from both sides. Where the emission interval `fill_interval /
//! tokens_per_fill` is not a whole number of nanoseconds (or of 2^-20 ns, if it is short), the bucket
//! rounds it up, and each taking to a whole nanosecond: so the exact rational rate is the bound from
//! above, and the rounded one is what it must reach.

use proptest::prelude::*;
use std::vec::Vec;

use super::Plain;
use crate::bucket::{COARSE_INTERVAL, Decision, FINE_SHIFT, Limit, Step, step, take};

extern crate std;

/// What one is asked for at a time.
#[derive(Clone, Copy, Debug)]
struct Request {
    now: u64,
    tokens: u64,
}

/// The three numbers of a policy.
#[derive(Clone, Copy, Debug)]
struct Policy {
    max_tokens: u64,
    tokens_per_fill: u64,
    fill_interval: u64,
}

impl Policy {
    fn limit(self) -> Option<Limit> {
        Limit::new(self.max_tokens, self.tokens_per_fill, self.fill_interval).ok()
    }
}

/// The textbook's token bucket, in nanoseconds: one comes back each nanosecond. What tokens are worth
/// is worked out anew, in wide integers; `exactly_rounded` says how near that is to the policy.
struct Model {
    limit: Limit,
    capacity: u128,
    level: u128,
    last: u64,
}

impl Model {
    fn new(limit: Limit) -> Self {
        let capacity = worth(limit, limit.capacity);
        Self {
            limit,
            capacity,
            level: capacity,
            last: 0,
        }
    }

    fn take(&mut self, request: Request) -> bool {
        // Time does not run backwards for a bucket: a clock that does refills nothing.
        let elapsed = u128::from(request.now.saturating_sub(self.last));
        self.last = self.last.max(request.now);
        self.level = (self.level + elapsed).min(self.capacity);
        let cost = worth(self.limit, request.tokens);
        let admitted = request.tokens <= self.limit.capacity && cost <= self.level;
        if admitted {
            self.level -= cost;
        }
        admitted
    }
}

/// Whole nanoseconds that cover `tokens`.
fn worth(limit: Limit, tokens: u64) -> u128 {
    (u128::from(tokens) * u128::from(limit.interval)).div_ceil(1 << limit.shift)
}

fn admits(bucket: &Plain, limit: &Limit, request: Request) -> bool {
    let cost = limit.cost(request.tokens);
    match take(bucket, request.now, cost, limit.tolerance, 1) {
        Decision::Admitted { .. } => true,
        Decision::Denied { .. } => false,
        Decision::Contended => panic!("nobody else is there"),
    }
}

/// Numbers over the whole range of a `u64`, small ones and large ones equally likely.
fn magnitude(bits: u32) -> impl Strategy<Value = u64> {
    (0..bits).prop_flat_map(|bit| (1_u64 << bit)..=((1_u64 << bit) - 1) * 2 + 1)
}

fn policy() -> impl Strategy<Value = Policy> {
    let parts = (magnitude(40), magnitude(40), magnitude(62));
    parts.prop_map(|(max_tokens, tokens_per_fill, fill_interval)| Policy {
        max_tokens,
        tokens_per_fill,
        fill_interval,
    })
}

fn valid() -> impl Strategy<Value = (Policy, Limit)> {
    policy().prop_filter_map("not a limit", |policy| Some((policy, policy.limit()?)))
}

/// The last instant from which the slowest limit's bucket can still be described in a `u64`. (What
/// comes after is in `edges`; a clock of nanoseconds gets here after 292 years.)
const END: u64 = 1 << 63;

/// Requests whose times are of the order that matters to `limit`: ties, single nanoseconds, an
/// emission interval, a whole refill; and steps back.
fn requests(limit: Limit, steps_back: bool) -> impl Strategy<Value = Vec<Request>> {
    let interval = limit.cost(1);
    let delta = prop_oneof![
        3 => Just(0),
        2 => 0..=3_u64,
        4 => 0..=interval.saturating_mul(2),
        1 => 0..=limit.tolerance.saturating_mul(2),
    ];
    let capacity = limit.capacity;
    let tokens = prop_oneof![4 => Just(1), 3 => 1..=capacity, 1 => capacity..=u64::MAX];
    let one = (
        delta,
        tokens,
        proptest::bool::weighted(if steps_back { 0.2 } else { 0.0 }),
    );
    (0..=1_u64 << 62, proptest::collection::vec(one, 1..200)).prop_map(|(start, steps)| {
        let mut now = start;
        let mut request = |(delta, tokens, back)| {
            now = if back {
                now.saturating_sub(delta)
            } else {
                now.saturating_add(delta).min(END)
            };
            Request { now, tokens }
        };
        steps.into_iter().map(&mut request).collect()
    })
}

fn with_requests(steps_back: bool) -> impl Strategy<Value = (Policy, Limit, Vec<Request>)> {
    valid().prop_flat_map(move |(policy, limit)| {
        requests(limit, steps_back).prop_map(move |requests| (policy, limit, requests))
    })
}

/// The most that the bucket may have admitted between two instants: what it holds, and what the
/// exact rate refills in the meantime. Where a full bucket is worth no whole number of nanoseconds, it
/// counts as if it had been worth the next.
fn bound(policy: Policy, limit: Limit, elapsed: u128) -> u128 {
    let fill = u128::from(policy.tokens_per_fill.min(policy.max_tokens));
    let full = u128::from(limit.capacity) * u128::from(limit.interval);
    let whole = full.is_multiple_of(1 << limit.shift);
    let elapsed = if whole { elapsed } else { elapsed + 1 };
    u128::from(policy.max_tokens) + elapsed * fill / u128::from(policy.fill_interval)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn decides_as_the_model_with_the_rounded_interval((_, limit, requests) in with_requests(false)) {
        let bucket = Plain::full();
        let mut model = Model::new(limit);
        // A bucket that was never used is full at any time; the model's first refill is at 0.
        for request in requests {
            let expected = model.take(request);
            prop_assert_eq!(admits(&bucket, &limit, request), expected, "{:?}", request);
        }
    }

    #[test]
    fn exactly_rounded((policy, limit) in valid(), tokens: u64) {
        let fill = u128::from(policy.tokens_per_fill.min(policy.max_tokens));
        let exact = u128::from(policy.fill_interval) << limit.shift;
        let interval = u128::from(limit.interval);
        prop_assert!(interval * fill >= exact && interval * fill - exact < fill);
        prop_assert!(limit.shift == FINE_SHIFT || limit.interval >= COARSE_INTERVAL);
        prop_assert_eq!(limit.capacity, policy.max_tokens);
        let tokens = tokens % limit.capacity + 1;
        for tokens in [tokens, limit.capacity] {
            prop_assert_eq!(u128::from(limit.cost(tokens)), worth(limit, tokens));
        }
        prop_assert_eq!(limit.cost(limit.capacity), limit.tolerance);
    }

    #[test]
    fn whoever_is_denied_is_admitted_after_the_wait((_, limit, requests) in with_requests(true)) {
        let bucket = Plain::full();
        for request in requests {
            let cost = limit.cost(request.tokens);
            let decision = take(&bucket, request.now, cost, limit.tolerance, 1);
            let Decision::Denied { wait } = decision else { continue };
            if request.tokens > limit.capacity {
                prop_assert_eq!(wait, u64::MAX);
                continue;
            }
            prop_assert!(wait <= limit.tolerance);
            let later = request.now + wait;
            let copy = Plain(bucket.0.clone());
            prop_assert!(!admits(&copy, &limit, Request { now: later - 1, ..request }), "too soon");
            prop_assert!(admits(&copy, &limit, Request { now: later, ..request }), "too late");
        }
    }

    #[test]
    fn never_more_than_burst_and_rate_times_time((policy, limit, requests) in with_requests(true)) {
        let bucket = Plain::full();
        let mut admitted: Vec<(u128, u64)> = Vec::new();
        // A clock that stepped back measures the same time again; that time counts twice.
        let (mut last, mut elapsed) = (requests[0].now, 0_u128);
        for request in requests {
            elapsed += u128::from(request.now.saturating_sub(last));
            last = request.now;
            if admits(&bucket, &limit, request) {
                admitted.push((elapsed, request.tokens));
            }
        }
        for (first, &(start, _)) in admitted.iter().enumerate() {
            let mut sum = 0_u128;
            for &(end, tokens) in &admitted[first..] {
                sum += u128::from(tokens);
                prop_assert!(sum <= bound(policy, limit, end - start), "{} in {} ns", sum, end - start);
            }
        }
    }

    #[test]
    fn a_limit_that_changes_binds_at_once(
        (_, before, requests) in with_requests(false), (policy, after) in valid(), repeats in 1..50_usize,
    ) {
        let bucket = Plain::full();
        for &request in &requests {
            admits(&bucket, &before, request);
        }
        let now = requests.last().map_or(0, |request| request.now).min(1 << 62);
        let one = Request { now, tokens: 1 };
        let denied = !admits(&bucket, &after, one);
        if denied {
            // Once denied, nobody waits longer than for the new limit's first token.
            let later = Request { now: now + after.cost(1), tokens: 1 };
            prop_assert!(admits(&bucket, &after, later));
        }
        let later = now + after.cost(1);
        let admitted = (0..repeats).filter(|_| admits(&bucket, &after, Request { now: later, tokens: 1 }));
        prop_assert!(admitted.count() as u128 <= bound(policy, after, after.cost(1).into()));
    }

    #[test]
    fn no_input_panics(tat: u64, now: u64, cost: u64, tolerance: u64, tokens: u64) {
        let limit = Limit {
            interval: cost,
            tolerance,
            capacity: tolerance / cost,
            shift: 0,
        };
        let _step = step(tat, now, cost, tolerance);
        let _remaining = limit.remaining(tat, now);
        let _capacity = limit.capacity;
        let _cost = limit.cost(tokens);
        let _limit = Limit::new(tat, now, cost);
        if let Step::Admit { tat: next } = step(tat, now, cost, tolerance) {
            prop_assert!(next >= now && next >= tat && cost <= tolerance);
        }
    }
}
