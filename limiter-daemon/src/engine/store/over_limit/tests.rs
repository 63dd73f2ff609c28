//! What is remembered: never more denied than without it, never for longer.

use limiter_common::Limit;
use proptest::prelude::*;

use super::*;
use crate::engine::meter::Reading;
use crate::engine::store::fake::{Fake, poll};
use crate::engine::store::ledger::Form;
use crate::policy::plan::Algorithm;

const SECOND: u64 = 1_000_000_000;
const BEGIN: u64 = 1_700_000_123_456_789_000;

fn meter(algorithm: Algorithm, capacity: u64, seconds: u64) -> Meter {
    let limit = Limit::new(capacity, capacity, seconds * SECOND).unwrap();
    Meter::new(limit, algorithm, seconds, false)
}

fn item(key: &str, meter: Meter, tokens: u64) -> Item {
    Item {
        key: key.to_owned(),
        meter,
        tokens,
        role: Role::Enforced,
        lease: None,
        again: 0,
        form: Form::Own,
    }
}

const fn clock(now: u64) -> Now {
    Now {
        mono: now,
        unix: now,
    }
}

fn ask(ledger: &impl Ledger, items: &[Item], now: u64) -> Reply {
    let question = Question {
        denials: 0,
        items: items.iter().cloned().collect(),
    };
    let mut asking = ledger.ask(question, clock(now)).unwrap();
    poll(&mut asking).expect("an answer at once").unwrap()
}

fn denied(reply: &Reply) -> bool {
    reply.said.iter().any(|said| said.conforms == Conforms::No)
}

fn asked(fake: &Fake) -> u64 {
    fake.with(|state| state.asked)
}

/// A ledger that remembers, in front of one of which the time is `BEGIN`.
fn remembering(keys: usize) -> (OverLimit, Fake) {
    let fake = Fake::at(BEGIN);
    (OverLimit::new(Arc::new(fake.clone()), keys), fake)
}

#[test]
fn what_is_denied_is_not_asked_again_for_a_second() {
    let (ledger, fake) = remembering(64);
    let one = [item("a", meter(Algorithm::TokenBucket, 1, 3), 1)];
    assert!(!denied(&ask(&ledger, &one, BEGIN)));
    assert!(denied(&ask(&ledger, &one, BEGIN)));
    assert_eq!(asked(&fake), 2);
    let later = BEGIN + 900_000_000;
    let reply = ask(&ledger, &one, later);
    assert!(denied(&reply));
    assert_eq!(reply.now_of(0), clock(later));
    assert_eq!(reply.said[0].wait(&one[0], reply.now_of(0)), 2_100_000_000);
    assert_eq!(asked(&fake), 2);
    // Once a second it is asked nevertheless, and as soon as it would be admitted.
    let later = BEGIN + LONGEST;
    fake.with(|state| state.now = later);
    assert!(denied(&ask(&ledger, &one, later)));
    assert_eq!(asked(&fake), 3);
    let later = BEGIN + 3 * SECOND;
    fake.with(|state| state.now = later);
    assert!(!denied(&ask(&ledger, &one, later)));
}

#[test]
fn of_others_nothing_is_told() {
    let (ledger, fake) = remembering(64);
    let small = item("small", meter(Algorithm::FixedWindow, 1, 3_600), 1);
    let large = item("large", meter(Algorithm::FixedWindow, 5, 3_600), 1);
    let shadow = Item {
        role: Role::Shadow,
        ..item("shadow", meter(Algorithm::FixedWindow, 5, 3_600), 1)
    };
    let all = [large.clone(), small, shadow];
    assert!(!denied(&ask(&ledger, &all, BEGIN)));
    assert!(denied(&ask(&ledger, &all, BEGIN)));
    let reply = ask(&ledger, &all, BEGIN);
    let said: Vec<_> = reply.said.iter().map(|said| said.conforms).collect();
    use Conforms::{No, NotAsked};
    assert_eq!(said, [NotAsked, No, NotAsked]);
    assert_eq!(reply.said[0].reading, Reading::Unknown);
    assert_eq!(asked(&fake), 2);
    // With a candidate, or denied whatever is counted, it is asked.
    let mut candidate = all.to_vec();
    candidate.push(Item {
        role: Role::Candidate,
        ..large
    });
    assert!(denied(&ask(&ledger, &candidate, BEGIN)));
    assert_eq!(asked(&fake), 3);
    let blocked = Question {
        denials: 1,
        items: all.iter().cloned().collect(),
    };
    poll(&mut ledger.ask(blocked, clock(BEGIN)).unwrap())
        .unwrap()
        .unwrap();
    assert_eq!(asked(&fake), 4);
}

#[test]
fn a_refund_makes_it_forget() {
    let (ledger, fake) = remembering(64);
    let meter = meter(Algorithm::TokenBucket, 1, 3_600);
    let one = [item("a", meter, 1)];
    let mark = ask(&ledger, &one, BEGIN).said[0].mark;
    assert!(denied(&ask(&ledger, &one, BEGIN)));
    let change = Change {
        key: "a".to_owned(),
        meter,
        tokens: 1,
        form: Form::Own,
        kind: ChangeKind::GiveBack { mark },
    };
    ledger.change(vec![change], clock(BEGIN));
    assert!(!denied(&ask(&ledger, &one, BEGIN)));
    assert_eq!(asked(&fake), 3);
    assert_eq!(ledger.memory().counts()[3], ("forgotten", 1));
}

#[test]
fn another_limit_is_asked() {
    let (ledger, _fake) = remembering(64);
    let small = [item("a", meter(Algorithm::FixedWindow, 1, 3_600), 1)];
    assert!(!denied(&ask(&ledger, &small, BEGIN)));
    assert!(denied(&ask(&ledger, &small, BEGIN)));
    let large = [item("a", meter(Algorithm::FixedWindow, 4, 3_600), 1)];
    assert!(!denied(&ask(&ledger, &large, BEGIN)));
}

#[test]
fn less_may_be_there_when_more_is_not() {
    let (ledger, fake) = remembering(64);
    let of = |tokens| [item("a", meter(Algorithm::TokenBucket, 5, 3_600), tokens)];
    assert!(!denied(&ask(&ledger, &of(3), BEGIN)));
    assert!(denied(&ask(&ledger, &of(3), BEGIN)));
    assert!(!denied(&ask(&ledger, &of(2), BEGIN)));
    assert!(denied(&ask(&ledger, &of(4), BEGIN)));
    assert_eq!(asked(&fake), 3);
    assert!(denied(&ask(&ledger, &of(9), BEGIN)));
    assert_eq!(asked(&fake), 3);
}

#[test]
fn keys_have_a_bound() {
    let (ledger, fake) = remembering(64);
    let meter = meter(Algorithm::TokenBucket, 1, 3_600);
    let flood = |now| {
        for n in 0..1_000 {
            let one = [item(&format!("key {n}"), meter, 2)];
            assert!(denied(&ask(&ledger, &one, now)));
        }
    };
    flood(BEGIN);
    let [_, (_, remembered), (_, full), _] = ledger.memory().counts();
    assert!(remembered <= 64 && remembered + full == 1_000, "{full}");
    // The place of what is over is given away.
    fake.with(|state| state.now = BEGIN + 2 * SECOND);
    flood(BEGIN + 2 * SECOND);
    let [_, (_, again), ..] = ledger.memory().counts();
    assert!(again > remembered);
    let shards = ledger.memory().shards.iter();
    let held: usize = shards
        .map(|shard| shard.read().unwrap().entries.len())
        .sum();
    assert!(held <= 64);
}

#[derive(Clone, Copy, Debug)]
struct Step {
    later: u64,
    items: usize,
    tokens: u64,
    /// What passed so many requests ago is refunded.
    refund: Option<usize>,
}

fn step() -> impl Strategy<Value = Step> {
    let later = prop_oneof![Just(0), 0u64..2_000_000_000, 0u64..200_000_000];
    let refund = prop::option::weighted(0.2, 0usize..3);
    (later, 1usize..8, 0u64..4, refund).prop_map(|(later, items, tokens, refund)| Step {
        later,
        items,
        tokens,
        refund,
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// The same requests pass, and no wait is told that is too long.
    #[test]
    fn nothing_is_decided_otherwise(steps in prop::collection::vec(step(), 1..120)) {
        let (ledger, fake) = remembering(640);
        let plain = Fake::at(BEGIN);
        let meters = [
            meter(Algorithm::TokenBucket, 5, 4),
            meter(Algorithm::FixedWindow, 4, 3),
            meter(Algorithm::SlidingWindow, 6, 5),
        ];
        let mut now = BEGIN;
        let mut passed: Vec<Vec<Change>> = Vec::new();
        for step in steps {
            now += step.later;
            fake.with(|state| state.now = now);
            plain.with(|state| state.now = now);
            let met = (0..3).filter(|index| step.items >> index & 1 == 1);
            let items: Vec<_> = met
                .map(|index| item(&format!("{index}"), meters[index], step.tokens))
                .collect();
            let (one, two) = (ask(&ledger, &items, now), ask(&plain, &items, now));
            prop_assert_eq!(denied(&one), denied(&two));
            for ((one, two), item) in one.said.iter().zip(&two.said).zip(&items) {
                if one.conforms == Conforms::No {
                    prop_assert!(one.wait(item, clock(now)) <= two.wait(item, clock(now)));
                } else if one.conforms == Conforms::Yes {
                    prop_assert_eq!(one.reading, two.reading);
                }
            }
            if !denied(&two) {
                let back = items.iter().zip(&two.said).map(|(item, said)| Change {
                    key: item.key.clone(),
                    meter: item.meter,
                    tokens: item.tokens,
                    form: Form::Own,
                    kind: ChangeKind::GiveBack { mark: said.mark },
                });
                passed.push(back.collect());
            }
            if let Some(ago) = step.refund && ago < passed.len() {
                let back = passed.remove(passed.len() - 1 - ago);
                ledger.change(back.clone(), clock(now));
                plain.change(back, clock(now));
            }
        }
    }
}
