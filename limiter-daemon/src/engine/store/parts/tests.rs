//! Questions over several places beside the same ones in one: by a plain ledger in memory.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Waker};

use limiter_common::Limit;
use proptest::prelude::*;

use super::*;
use crate::engine::meter::{self, Reading, Snapshot, Standing};
use crate::engine::store::ledger::Form;
use crate::policy::plan::Algorithm;

const BEGIN: u64 = 1_700_000_000 * SECOND;

/// Buckets by name, one question at a time; as the script counts.
#[derive(Debug, Default)]
struct Plain {
    buckets: Mutex<BTreeMap<String, Bucket>>,
    /// Seconds that its clock is ahead.
    ahead: u64,
    silence: Option<Silence>,
    questions: Mutex<usize>,
}

#[derive(Clone, Copy, Debug)]
enum Silence {
    /// It is known that it would not answer.
    Known,
    /// It takes what is asked, and nobody hears of it.
    Late,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bucket {
    /// The TAT, or the end of the window.
    at: u64,
    count: u64,
}

impl Bucket {
    /// As it is at `now`: time has given back what it does.
    fn due(self, meter: &Meter, now: u64) -> Self {
        match meter {
            Meter::Bucket { .. } => Self {
                at: self.at.max(now),
                count: 0,
            },
            Meter::Fixed(window) | Meter::Sliding(window) => {
                let end = (now / window.length() + 1) * window.length();
                let count = if self.at == end { self.count } else { 0 };
                Self { at: end, count }
            }
        }
    }

    fn take(self, meter: &Meter, tokens: u64) -> Self {
        match meter {
            Meter::Bucket { limit, .. } => Self {
                at: self.at + meter::worth(limit, tokens),
                ..self
            },
            Meter::Fixed(_) | Meter::Sliding(_) => Self {
                count: self.count + tokens,
                ..self
            },
        }
    }

    fn refunded(self, meter: &Meter, tokens: u64, now: u64) -> Self {
        match meter {
            Meter::Bucket { limit, .. } => {
                let worth = meter::worth(limit, tokens);
                Self {
                    at: self.at.saturating_sub(worth).max(now),
                    ..self
                }
            }
            Meter::Fixed(_) | Meter::Sliding(_) => Self {
                count: self.count.saturating_sub(tokens),
                ..self
            },
        }
    }

    fn conforms(self, meter: &Meter, tokens: u64, now: u64) -> bool {
        let after = self.take(meter, tokens.max(1));
        match meter {
            Meter::Bucket { limit, .. } => after.at <= now + limit.tolerance,
            Meter::Fixed(window) | Meter::Sliding(window) => after.count <= window.capacity(),
        }
    }

    fn reading(self, meter: &Meter) -> Reading {
        match meter {
            Meter::Bucket { .. } => Reading::Tat(self.at),
            Meter::Fixed(_) | Meter::Sliding(_) => Reading::Counts {
                end: self.at,
                count: self.count,
                last: 0,
            },
        }
    }
}

impl Plain {
    fn now(&self, now: Now) -> Now {
        let unix = now.unix + self.ahead * SECOND;
        Now { mono: unix, unix }
    }

    fn answer(&self, question: &Question, now: Now) -> Reply {
        *self.questions.lock().unwrap() += 1;
        let now = self.now(now);
        let mut all = self.buckets.lock().unwrap();
        let items = &question.items;
        // No two items have one key.
        let before: Vec<Bucket> = items
            .iter()
            .map(|item| {
                let bucket = all.get(&item.key).copied().unwrap_or_default();
                let bucket = bucket.due(&item.meter, now.unix);
                match item.role {
                    Role::Refund => bucket.refunded(&item.meter, item.tokens, now.unix),
                    _ => bucket,
                }
            })
            .collect();
        let conforms = |at: usize| {
            let item = &items[at];
            before[at].conforms(&item.meter, item.tokens, now.unix)
        };
        let denies = |at: &usize| items[*at].role == Role::Enforced && !conforms(*at);
        let deniers: Vec<usize> = (0..items.len()).filter(denies).collect();
        let mut quotas = (0..items.len()).filter(|at| items[*at].role == Role::Quota);
        let quotas_deny = quotas.clone().count() > 0 && !quotas.any(conforms);
        let denials = question.denials + deniers.len() + usize::from(quotas_deny);
        let mut said = Few::new();
        for (at, item) in items.iter().enumerate() {
            let alone = denials == 1 && deniers == [owner(items, at)];
            let asked = match item.role {
                Role::Enforced | Role::Quota | Role::Refund => true,
                Role::Shadow => denials == 0,
                Role::Candidate => denials == 0 || alone,
            };
            let conforms = match (asked, conforms(at)) {
                (false, _) => Conforms::NotAsked,
                (true, true) => Conforms::Yes,
                (true, false) => Conforms::No,
            };
            let mut after = before[at];
            if item.role == Role::Refund {
                all.insert(item.key.clone(), after);
                said.push(Said::new(Conforms::Yes, after.reading(&item.meter)));
                continue;
            }
            if conforms == Conforms::Yes && (denials == 0 || item.role == Role::Candidate) {
                after = after.take(&item.meter, item.tokens);
            }
            all.insert(item.key.clone(), after);
            let reading = after.reading(&item.meter);
            said.push(Said::new(conforms, reading));
        }
        Reply {
            now,
            said,
            clocks: Few::new(),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Fake(Arc<Plain>);

impl Fake {
    fn new(ahead: u64, silence: Option<Silence>) -> Self {
        Self(Arc::new(Plain {
            ahead,
            silence,
            ..Plain::default()
        }))
    }

    fn place(&self, slots: bool) -> Place {
        Place {
            ledger: Arc::new(self.clone()),
            slots,
        }
    }

    /// What is in use of every bucket, as long as it is.
    fn in_use(&self, items: &[Item], now: Now) -> BTreeMap<String, Standing> {
        let now = self.0.now(now);
        let all = self.0.buckets.lock().unwrap();
        let state = |item: &Item| {
            let bucket = all.get(&item.key)?.due(&item.meter, now.unix);
            let snapshot = Snapshot::new(&item.meter, bucket.reading(&item.meter));
            Some((item.key.clone(), item.meter.standing(&snapshot, now)))
        };
        items.iter().filter_map(state).collect()
    }
}

impl Ledger for Fake {
    fn ask(&self, question: Question, now: Now) -> Option<Asking> {
        let plain = Arc::clone(&self.0);
        if matches!(plain.silence, Some(Silence::Known)) {
            return None;
        }
        Some(Box::pin(async move {
            let reply = plain.answer(&question, now);
            match plain.silence {
                None => Ok(reply),
                Some(_) => Err(Unanswered { now }),
            }
        }))
    }

    fn change(&self, changes: Vec<Change>, now: Now) {
        let now = self.0.now(now).unix;
        let mut all = self.0.buckets.lock().unwrap();
        for change in changes {
            let ChangeKind::GiveBack { mark } = change.kind else {
                panic!("{change:?}");
            };
            let bucket = all.get_mut(&change.key).expect("a bucket that was asked");
            match &change.meter {
                Meter::Bucket { limit, .. } => {
                    let owed = mark.saturating_sub(now);
                    bucket.at -= meter::worth(limit, change.tokens).min(owed);
                }
                _ if bucket.at == mark => bucket.count -= change.tokens,
                _ => {}
            }
        }
    }
}

fn answered(
    ledger: &impl Ledger,
    question: Question,
    now: Now,
) -> Option<Result<Reply, Unanswered>> {
    let asking = pin!(ledger.ask(question, now)?);
    match asking.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(reply) => Some(reply),
        Poll::Pending => panic!("these ledgers answer at once"),
    }
}

fn meter(capacity: u64, seconds: u64, fixed: bool) -> Meter {
    let limit = Limit::new(capacity, capacity, seconds * SECOND).unwrap();
    let algorithm = if fixed {
        Algorithm::FixedWindow
    } else {
        Algorithm::TokenBucket
    };
    Meter::new(limit, algorithm, seconds, false)
}

fn item(key: &str, meter: Meter, role: Role) -> Item {
    Item {
        key: key.to_owned(),
        meter,
        tokens: 1,
        role,
        form: Form::Own,
        lease: None,
        again: 0,
    }
}

fn at(microseconds: u64) -> Now {
    let unix = BEGIN + microseconds * 1_000;
    Now { mono: unix, unix }
}

#[test]
fn what_is_forgotten_within_a_second_has_a_place_of_its_own() {
    for (meter, wanted) in [
        (meter(1, 1, false), true),
        (meter(3, 1, false), true),
        (meter(1_000_000_007, 1, false), true),
        (meter(5, 1, true), true),
        (meter(1, 2, false), false),
        (meter(100, 60, false), false),
        (meter(5, 60, true), false),
    ] {
        assert_eq!(is_per_second(&meter), wanted, "{meter:?}");
    }
    // Full again after two seconds.
    let slow = Limit::new(10, 5, SECOND).unwrap();
    assert!(!is_per_second(&Meter::new(
        slow,
        Algorithm::TokenBucket,
        1,
        false
    )));
    let (main, fast) = (Fake::default(), Fake::default());
    let parts = Parts::new(main.place(false), Some(fast.place(false)));
    let question = Question {
        denials: 0,
        items: Few::from_iter([
            item("a", meter(5, 60, false), Role::Enforced),
            item("b", meter(5, 1, false), Role::Enforced),
        ]),
    };
    answered(&parts, question, at(0)).unwrap().unwrap();
    let keys =
        |fake: &Fake| -> Vec<String> { fake.0.buckets.lock().unwrap().keys().cloned().collect() };
    assert_eq!(
        (keys(&main), keys(&fast)),
        (vec!["a".to_owned()], vec!["b".to_owned()])
    );
}

#[test]
fn what_is_in_one_part_is_one_question() {
    let fake = Fake::default();
    let parts = Parts::new(fake.place(true), None);
    let keys = ["{p}a", "{p}b", "{p}c"];
    let items = keys.map(|key| item(key, meter(5, 60, false), Role::Enforced));
    let question = Question {
        denials: 0,
        items: items.into_iter().collect(),
    };
    answered(&parts, question.clone(), at(0)).unwrap().unwrap();
    assert_eq!(*fake.0.questions.lock().unwrap(), 1);
    // Without slots everything is in one part.
    let parts = Parts::new(fake.place(false), None);
    let mut question = question;
    question.items[1].key = "{q}b".to_owned();
    answered(&parts, question, at(0)).unwrap().unwrap();
    assert_eq!(*fake.0.questions.lock().unwrap(), 2);
}

#[test]
fn one_part_that_is_lost_has_the_others_give_back() {
    let question = || Question {
        denials: 0,
        items: Few::from_iter([
            item("a", meter(5, 60, false), Role::Enforced),
            item("b", meter(5, 1, false), Role::Enforced),
            item("c", meter(5, 60, true), Role::Shadow),
        ]),
    };
    let left = |fake: &Fake, at_key: &str| {
        fake.in_use(&question().items, at(0))
            .get(at_key)
            .map(|standing| standing.remaining)
    };
    let (main, fast) = (Fake::default(), Fake::new(0, Some(Silence::Late)));
    let parts = Parts::new(main.place(false), Some(fast.place(false)));
    assert!(answered(&parts, question(), at(0)).unwrap().is_err());
    assert_eq!((left(&main, "a"), left(&main, "c")), (Some(5), Some(5)));
    // What the late one took stays taken.
    assert_eq!(left(&fast, "b"), Some(4));
    // If one is not to be asked, none is.
    let (main, fast) = (Fake::default(), Fake::new(0, Some(Silence::Known)));
    let parts = Parts::new(main.place(false), Some(fast.place(false)));
    assert!(answered(&parts, question(), at(0)).is_none());
    assert_eq!(*main.0.questions.lock().unwrap(), 0);
}

/// An item at random: by its number.
fn items() -> impl Strategy<Value = Vec<(Role, u64, bool, u64, u8)>> {
    let role = prop_oneof![
        4 => Just(Role::Enforced),
        1 => Just(Role::Shadow),
        2 => Just(Role::Candidate),
        2 => Just(Role::Quota),
        1 => Just(Role::Refund),
    ];
    let seconds = prop_oneof![Just(1u64), Just(60)];
    let one = (role, 1u64..4, any::<bool>(), seconds, 0u8..3);
    prop::collection::vec(one, 1..7)
}

proptest! {
    /// In several places, whose clocks disagree, as in one.
    #[test]
    fn several_places_decide_as_one_does(
        items in items(),
        steps in prop::collection::vec((0u64..3_000_000, 0u64..3, prop::bool::weighted(0.1)), 1..30),
    ) {
        let items: Vec<Item> = items
            .iter()
            .enumerate()
            .map(|(number, (role, capacity, fixed, seconds, tag))| {
                // A candidate comes after the limit that it is one of.
                let role = if number == 0 && *role == Role::Candidate { Role::Enforced } else { *role };
                item(&format!("{{{tag}}}{number}"), meter(*capacity, *seconds, *fixed), role)
            })
            .collect();
        let (one, main, fast) = (Fake::default(), Fake::default(), Fake::new(3_600, None));
        let parts = Parts::new(main.place(true), Some(fast.place(true)));
        let mut now = 0;
        for (later, tokens, blocked) in steps {
            now += later;
            let mut question = Question { denials: usize::from(blocked), items: items.iter().cloned().collect() };
            question.items.iter_mut().for_each(|item| item.tokens = tokens);
            let whole = answered(&one, question.clone(), at(now)).unwrap().unwrap();
            let split = answered(&parts, question.clone(), at(now)).unwrap().unwrap();
            for (index, item) in question.items.iter().enumerate() {
                let told = |reply: &Reply| {
                    let said = reply.said[index];
                    let snapshot = Snapshot::new(&item.meter, said.reading);
                    (said.conforms, item.meter.standing(&snapshot, reply.now_of(index)))
                };
                prop_assert_eq!(told(&whole), told(&split), "item {}", index);
            }
            let mut both = main.in_use(&items, at(now));
            both.extend(fast.in_use(&items, at(now)));
            prop_assert_eq!(one.in_use(&items, at(now)), both);
        }
    }
}
