//! Questions over several places beside the same ones in one: by a plain ledger in memory.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Waker};

use limiter_common::Limit;
use proptest::prelude::*;

use super::*;
use crate::engine::meter::{Snapshot, Standing};
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
        let mut bucket = |item: &Item| {
            let bucket = all.entry(item.key.clone()).or_default();
            *bucket = bucket.due(&item.meter, now.unix);
            *bucket
        };
        let conforms =
            |bucket: Bucket, item: &Item| bucket.conforms(&item.meter, item.tokens, now.unix);
        let items = &question.items;
        let deniers: Vec<usize> = (0..items.len())
            .filter(|at| {
                let item = &items[*at];
                item.role == Role::Enforced && !conforms(bucket(item), item)
            })
            .collect();
        let denials = question.denials + deniers.len();
        let mut said = Few::new();
        for (at, item) in items.iter().enumerate() {
            let alone = question.denials == 0 && deniers == [owner(items, at)];
            let asked = match item.role {
                Role::Enforced => true,
                Role::Shadow => denials == 0,
                Role::Candidate => denials == 0 || alone,
            };
            let before = bucket(item);
            let conforms = match (asked, conforms(before, item)) {
                (false, _) => Conforms::NotAsked,
                (true, true) => Conforms::Yes,
                (true, false) => Conforms::No,
            };
            let mut after = before;
            if conforms == Conforms::Yes && (denials == 0 || item.role == Role::Candidate) {
                after = before.take(&item.meter, item.tokens);
                all.insert(item.key.clone(), after);
            }
            let reading = after.reading(&item.meter);
            said.push(Said { conforms, reading });
            bucket = |_: &Item| before;
            let _ = &mut bucket;
        }
        Reply {
            now,
            said,
            clocks: Few::new(),
        }
    }
}
