//! Leases of several nodes on one bucket: the stated bounds, under any schedule.

use limiter_common::Limit;
use proptest::prelude::*;

use super::*;
use crate::engine::meter::{Meter, Reading};
use crate::engine::store::fake::{Fake, poll};
use crate::engine::store::ledger::{Form, Lease, Unanswered};
use crate::policy::plan::Algorithm;

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
/// On no boundary of a window.
const BEGIN: u64 = 1_700_000_123_456_789_000;
const KEY: &str = "p:{d/p}r@d/r+#bucket:";

fn meter(algorithm: Algorithm, capacity: u64, seconds: u64) -> Meter {
    let limit = Limit::new(capacity, capacity, seconds * SECOND).unwrap();
    Meter::new(limit, algorithm, seconds, false)
}

fn item(meter: Meter, tokens: u64, lease: Option<Lease>) -> Item {
    Item {
        key: KEY.to_owned(),
        meter,
        tokens,
        role: Role::Enforced,
        lease,
        again: 0,
        form: Form::Own,
    }
}

fn question(items: impl IntoIterator<Item = Item>) -> Question {
    Question {
        denials: 0,
        items: items.into_iter().collect(),
    }
}

fn lease(size: u64, max_age: u64) -> Lease {
    Lease { size, max_age }
}

const fn clock(now: u64) -> Now {
    Now {
        mono: now,
        unix: now,
    }
}

fn answer(ledger: &impl Ledger, question: Question, now: Now) -> Result<Reply, Unanswered> {
    let mut asking = ledger.ask(question, now).unwrap();
    poll(&mut asking).expect("an answer at once")
}

fn passes(reply: &Reply) -> bool {
    reply.said.iter().all(|said| said.conforms == Conforms::Yes)
}

fn admits(ledger: &impl Ledger, question: Question, now: u64) -> bool {
    passes(&answer(ledger, question, clock(now)).unwrap())
}

#[test]
fn a_hot_key_costs_a_fraction_of_a_round_trip() {
    let fake = Fake::at(BEGIN);
    let leases = Leases::new(Arc::new(fake.clone()));
    let item = item(
        meter(Algorithm::TokenBucket, 20_000, 86_400),
        1,
        Some(lease(100, 60 * SECOND)),
    );
    for n in 0..10_000 {
        assert!(admits(&leases, question([item.clone()]), BEGIN + n));
    }
    let asked = fake.with(|state| state.asked);
    // 99 questions for 101 decisions each, and those of the beginning, when it was not known to be hot.
    assert!((99..=110).contains(&asked), "{asked}");
    assert_eq!(leases.table().counts().decisions(), 10_000 - asked);
    leases.end(clock(BEGIN + 10_000));
    assert_eq!(leases.table().in_hand(), 0);
    // What was charged is what passed: all else went back.
    let used = fake.with(|state| state.buckets[KEY]);
    let interval = 86_400 * SECOND / 20_000;
    assert_eq!(used, Reading::Tat(BEGIN + 10_000 * interval));
}

#[test]
fn a_cold_key_takes_nothing_in_advance() {
    let fake = Fake::at(BEGIN);
    let leases = Leases::new(Arc::new(fake.clone()));
    let item = item(
        meter(Algorithm::FixedWindow, 100, 86_400),
        1,
        Some(lease(50, SECOND)),
    );
    for n in 0..20 {
        assert!(admits(
            &leases,
            question([item.clone()]),
            BEGIN + n * 2 * SECOND
        ));
        assert_eq!(leases.table().in_hand(), 0);
    }
    assert_eq!(fake.with(|state| state.asked), 20);
}

#[test]
fn what_goes_back_to_the_window_before_is_told_as_well() {
    let fake = Fake::at(BEGIN);
    let leases = Leases::new(Arc::new(fake.clone()));
    let meter = meter(Algorithm::SlidingWindow, 10, 1);
    let item = item(meter, 1, Some(lease(2, 2 * SECOND)));
    let ask = |now| answer(&leases, question([item.clone()]), clock(now)).unwrap();
    let mark = ask(BEGIN).said[0].mark;
    let next = (BEGIN / SECOND + 1) * SECOND;
    fake.with(|state| state.now = next);
    let before = |reply: &Reply| match reply.said[0].reading {
        Reading::Counts { last, .. } => last,
        reading => panic!("{reading:?}"),
    };
    assert_eq!(before(&ask(next)), 1);
    assert!(leases.table().in_hand() > 0);
    let change = Change {
        key: item.key.clone(),
        meter,
        tokens: 1,
        form: Form::Own,
        kind: ChangeKind::GiveBack { mark },
    };
    leases.change(vec![change], clock(next));
    let asked = fake.with(|state| state.asked);
    assert_eq!(before(&ask(next)), 0);
    assert_eq!(fake.with(|state| state.asked), asked, "it was in hand");
}

#[test]
fn what_is_told_counts_what_was_used() {
    let fake = Fake::at(BEGIN);
    let leases = Leases::new(Arc::new(fake.clone()));
    for algorithm in [
        Algorithm::TokenBucket,
        Algorithm::FixedWindow,
        Algorithm::SlidingWindow,
    ] {
        fake.with(|state| state.buckets.clear());
        let meter = meter(algorithm, 100, 86_400);
        let item = Item {
            key: format!("{algorithm:?}"),
            ..item(meter, 3, Some(lease(40, SECOND)))
        };
        for n in 1..=30 {
            let reply = answer(&leases, question([item.clone()]), clock(BEGIN)).unwrap();
            let snapshot = crate::engine::meter::Snapshot::new(&meter, reply.said[0].reading);
            let remaining = meter.standing(&snapshot, reply.now).remaining;
            assert_eq!(remaining, 100 - 3 * n, "{algorithm:?}");
        }
    }
}

#[test]
fn all_or_nothing_stays() {
    let fake = Fake::at(BEGIN);
    let leases = Leases::new(Arc::new(fake.clone()));
    let leased = item(
        meter(Algorithm::TokenBucket, 1_000, 86_400),
        1,
        Some(lease(50, 60 * SECOND)),
    );
    for _ in 0..10 {
        assert!(admits(&leases, question([leased.clone()]), BEGIN));
    }
    let held = leases.table().in_hand();
    assert!(held > 0);
    let small = Item {
        key: "small".to_owned(),
        ..item(meter(Algorithm::TokenBucket, 2, 86_400), 1, None)
    };
    for n in 0..5 {
        let both = question([leased.clone(), small.clone()]);
        assert_eq!(admits(&leases, both, BEGIN), n < 2);
    }
    assert_eq!(leases.table().in_hand(), held - 2);
    // Nobody waits any more, no answer comes, none is asked for.
    let both = question([leased.clone(), small.clone()]);
    drop(leases.ask(both.clone(), clock(BEGIN)));
    assert_eq!(leases.table().in_hand(), held - 2);
    fake.with(|state| state.away = true);
    assert!(answer(&leases, both, clock(BEGIN)).is_err());
    assert_eq!(leases.table().in_hand(), held - 2);
    // What is in hand is used while the store is away.
    for _ in 0..held - 2 {
        assert!(admits(&leases, question([leased.clone()]), BEGIN));
    }
    assert!(answer(&leases, question([leased]), clock(BEGIN)).is_err());
}

#[test]
fn one_asks_for_more_at_a_time() {
    let fake = Fake::at(BEGIN);
    let leases = Leases::new(Arc::new(fake.clone()));
    let item = item(
        meter(Algorithm::TokenBucket, 1_000, 86_400),
        1,
        Some(lease(100, 60 * SECOND)),
    );
    let mut waiting: Vec<_> = (0..20)
        .map(|_| {
            leases
                .ask(question([item.clone()]), clock(BEGIN))
                .expect("it is asked")
        })
        .collect();
    for asking in &mut waiting {
        assert!(passes(&poll(asking).unwrap().unwrap()));
    }
    // The second was the first that expected another.
    assert_eq!(leases.table().in_hand(), 1);
    assert_eq!(fake.with(|state| state.asked), 20);
}

#[test]
fn a_refund_comes_back_to_the_lease_while_it_lasts() {
    let fake = Fake::at(BEGIN);
    let leases = Leases::new(Arc::new(fake.clone()));
    let meter = meter(Algorithm::TokenBucket, 1_000, 86_400);
    let item = item(meter, 1, Some(lease(50, SECOND)));
    let mut mark = 0;
    for _ in 0..9 {
        let reply = answer(&leases, question([item.clone()]), clock(BEGIN)).unwrap();
        mark = reply.said[0].mark;
    }
    let back = || {
        vec![Change {
            key: KEY.to_owned(),
            meter,
            tokens: 1,
            form: Form::Own,
            kind: ChangeKind::GiveBack { mark },
        }]
    };
    let held = leases.table().in_hand();
    leases.change(back(), clock(BEGIN));
    assert_eq!(leases.table().in_hand(), held + 1);
    assert_eq!(fake.with(|state| state.changed), 0);
    leases.tend(clock(BEGIN + SECOND));
    assert_eq!(leases.table().in_hand(), 0);
    leases.change(back(), clock(BEGIN + SECOND));
    assert_eq!(fake.with(|state| state.changed), 2);
    // Nine passed, two were refunded.
    let interval = 86_400 * SECOND / 1_000;
    let used = fake.with(|state| state.buckets[KEY]);
    assert_eq!(used, Reading::Tat(BEGIN + 7 * interval));
}

#[test]
fn a_changed_limit_gives_back_what_was_held() {
    let fake = Fake::at(BEGIN);
    let leases = Leases::new(Arc::new(fake.clone()));
    let before = item(
        meter(Algorithm::FixedWindow, 1_000, 86_400),
        1,
        Some(lease(50, SECOND)),
    );
    for _ in 0..9 {
        assert!(admits(&leases, question([before.clone()]), BEGIN));
    }
    assert!(leases.table().in_hand() > 0);
    let after = item(meter(Algorithm::FixedWindow, 10, 86_400), 1, before.lease);
    assert!(admits(&leases, question([after.clone()]), BEGIN));
    assert!(!admits(&leases, question([after]), BEGIN));
}

/// A step of a schedule, by one of the nodes.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The answer comes after so many further steps; with `lost`, nobody waits for it then.
    Ask {
        node: usize,
        steps: usize,
        lost: bool,
    },
    Refund(usize),
    Tend(usize),
    Later(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let ask = (0usize..4, 0usize..4, prop::bool::weighted(0.1));
    prop_oneof![
        12 => ask.prop_map(|(node, steps, lost)| Step::Ask { node, steps, lost }),
        2 => any::<usize>().prop_map(Step::Refund),
        1 => (0usize..4).prop_map(Step::Tend),
        2 => (0u64..50).prop_map(|t| Step::Later(t * MILLI)),
        2 => (0u64..3_000_000_000).prop_map(Step::Later),
    ]
}

#[derive(Clone, Debug)]
struct Case {
    nodes: usize,
    algorithm: Algorithm,
    capacity: u64,
    seconds: u64,
    tokens: u64,
    lease: Lease,
    steps: Vec<Step>,
}

fn case() -> impl Strategy<Value = Case> {
    let algorithm = prop_oneof![
        Just(Algorithm::TokenBucket),
        Just(Algorithm::FixedWindow),
        Just(Algorithm::SlidingWindow),
    ];
    let numbers = (3u64..40, 1u64..8, 1u64..4);
    let age = prop_oneof![Just(10 * MILLI), Just(300 * MILLI), Just(4 * SECOND)];
    let steps = prop::collection::vec(step(), 1..250);
    (1usize..4, algorithm, numbers, 3u64..20, age, steps).prop_map(
        |(nodes, algorithm, (capacity, seconds, tokens), size, max_age, steps)| Case {
            nodes,
            algorithm,
            capacity,
            seconds,
            tokens,
            lease: lease(size.min(capacity), max_age),
            steps,
        },
    )
}

struct Pass {
    at: u64,
    node: usize,
    mark: u64,
}

struct Run<'a> {
    case: &'a Case,
    fake: Fake,
    nodes: Vec<Leases>,
    meter: Meter,
    now: u64,
    /// What passed and was not refunded.
    passed: Vec<Pass>,
    /// When tokens came back into a lease.
    refunds: Vec<u64>,
}

impl Run<'_> {
    /// The clocks of nodes are far from each other, and from that of the store.
    fn clock(&self, node: usize) -> Now {
        let ahead = [0, 7_000, 90, 31_536_000][node] * SECOND;
        Now {
            mono: self.now - BEGIN + ahead,
            unix: self.now + ahead,
        }
    }

    fn later(&mut self, time: u64) {
        self.now += time;
        self.fake.with(|state| state.now = self.now);
    }

    fn heard(&mut self, node: usize, reply: &Reply) -> Result<(), TestCaseError> {
        if !passes(reply) {
            return Ok(());
        }
        self.passed.push(Pass {
            at: self.now,
            node,
            mark: reply.said[0].mark,
        });
        self.window()
    }

    /// Tokens that passed in the window that ends there.
    fn counted(&self, end: u64) -> u64 {
        let length = self.case.seconds * SECOND;
        let inside = |pass: &&Pass| (pass.at / length + 1) * length == end;
        let count = self.passed.iter().filter(inside).count();
        u64::try_from(count).unwrap() * self.case.tokens
    }

    /// Of windows no more pass than without leases.
    fn window(&self) -> Result<(), TestCaseError> {
        let length = self.case.seconds * SECOND;
        let end = (self.now / length + 1) * length;
        let weight = match self.case.algorithm {
            Algorithm::TokenBucket => return Ok(()),
            Algorithm::FixedWindow => 0,
            Algorithm::SlidingWindow => {
                let last = u128::from(self.counted(end - length));
                (last * u128::from(end - self.now)).div_ceil(u128::from(length))
            }
        };
        let used = u128::from(self.counted(end)) + weight;
        prop_assert!(used <= self.case.capacity.into(), "{} passed", used);
        Ok(())
    }

    /// Of a token bucket the bounds hold, for all spans of time; but what is refunded in a span of requests
    /// before it may pass in it as well, with leases and without.
    fn bucket(&self) -> Result<(), TestCaseError> {
        let Meter::Bucket { limit, .. } = self.meter else {
            return Ok(());
        };
        let Case {
            nodes,
            capacity,
            tokens,
            lease,
            ..
        } = *self.case;
        let returned = |node: &Leases| node.table().counts().tokens()[1].1;
        let nodes_hold = u64::try_from(nodes).unwrap() * lease.size;
        let tight = self.nodes.iter().all(|node| returned(node) == 0);
        for (first, from) in self.passed.iter().enumerate() {
            for (count, until) in (1u64..).zip(&self.passed[first..]) {
                let time = until.at - from.at;
                let used = count * tokens;
                let late = capacity + (time + lease.max_age) / limit.interval;
                let held = capacity + time / limit.interval + nodes_hold;
                let most = if tight {
                    late.min(held)
                } else {
                    held + nodes_hold
                };
                let back = self.refunds.iter();
                let back = back.filter(|at| (from.at..=until.at).contains(*at));
                let most = most + u64::try_from(back.count()).unwrap() * tokens;
                prop_assert!(used <= most, "{used} in {time}, not {most} ({tight})");
            }
        }
        Ok(())
    }
}

fn run(case: &Case) -> Result<(), TestCaseError> {
    let fake = Fake::at(BEGIN);
    let node = |_| Leases::new(Arc::new(fake.clone()));
    let mut run = Run {
        case,
        nodes: (0..case.nodes).map(node).collect(),
        meter: meter(case.algorithm, case.capacity, case.seconds),
        fake,
        now: BEGIN,
        passed: Vec::new(),
        refunds: Vec::new(),
    };
    let item = item(run.meter, case.tokens, Some(case.lease));
    let mut waiting: Vec<(usize, usize, bool, Asking)> = Vec::new();
    for (number, step) in case.steps.iter().enumerate() {
        match *step {
            Step::Ask { node, steps, lost } => {
                let node = node % case.nodes;
                let decisions = || run.nodes[node].table().counts().decisions();
                let before = decisions();
                let asking = run.nodes[node].ask(question([item.clone()]), run.clock(node));
                let mut asking = asking.unwrap();
                if decisions() > before {
                    // It was decided here, and at once.
                    let reply = poll(&mut asking).unwrap().unwrap();
                    run.heard(node, &reply)?;
                } else {
                    waiting.push((number + steps, node, lost, asking));
                }
            }
            Step::Refund(which) if !run.passed.is_empty() => {
                let which = which % run.passed.len();
                let Pass { node, mark, .. } = run.passed[which];
                let change = Change {
                    key: KEY.to_owned(),
                    meter: run.meter,
                    tokens: case.tokens,
                    form: Form::Own,
                    kind: ChangeKind::GiveBack { mark },
                };
                let clock = run.clock(node);
                if case.algorithm == Algorithm::TokenBucket {
                    // One that goes to the store is none of a lease.
                    if run.nodes[node].table().refund(&change, mark, clock) {
                        run.refunds.push(run.now);
                        run.passed.remove(which);
                    }
                } else {
                    run.passed.remove(which);
                    run.nodes[node].change(vec![change], clock);
                }
            }
            Step::Refund(_) => {}
            Step::Tend(node) => {
                let node = node % case.nodes;
                run.nodes[node].tend(run.clock(node));
            }
            Step::Later(time) => run.later(time),
        }
        let mut still = Vec::new();
        for (due, node, lost, mut asking) in waiting {
            if due > number {
                still.push((due, node, lost, asking));
            } else if !lost {
                let reply = poll(&mut asking).unwrap().unwrap();
                run.heard(node, &reply)?;
            }
        }
        waiting = still;
        for node in &run.nodes {
            prop_assert!(node.table().in_hand() <= case.lease.size);
        }
    }
    drop(waiting);
    run.bucket()?;
    // In the end all that is not used is back.
    run.later(case.lease.max_age);
    for (index, node) in run.nodes.iter().enumerate() {
        node.tend(run.clock(index));
        prop_assert_eq!(node.table().in_hand(), 0);
    }
    let reading = run.fake.with(|state| state.reading(KEY, &run.meter));
    if let Reading::Counts { end, count, .. } = reading {
        prop_assert_eq!(count, run.counted(end));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_more_passes_than_is_stated(case in case()) {
        run(&case)?;
    }
}
