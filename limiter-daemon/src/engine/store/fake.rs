//! A ledger for tests: plain buckets, and a clock that is told.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use super::ledger::{
    Asking, Change, ChangeKind, Conforms, Item, Ledger, Question, Reply, Role, Said, Unanswered,
};
use crate::engine::charge::Few;
use crate::engine::meter::{Meter, Reading, Snapshot, Verdict, worth};
use crate::engine::time::Now;

/// Answers when it is polled, by its own clock.
#[derive(Clone, Debug, Default)]
pub(super) struct Fake(Arc<Mutex<State>>);

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) now: u64,
    pub(super) buckets: HashMap<String, Reading>,
    /// Questions that were answered.
    pub(super) asked: u64,
    /// Changes that were made, all of one call as one.
    pub(super) changed: u64,
    /// It does not answer.
    pub(super) away: bool,
}

/// The answer of what needs no waiting.
pub(super) fn poll(asking: &mut Asking) -> Option<Result<Reply, Unanswered>> {
    let mut context = Context::from_waker(Waker::noop());
    match Pin::new(asking).poll(&mut context) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

impl Fake {
    pub(super) fn at(now: u64) -> Self {
        let fake = Self::default();
        fake.with(|state| state.now = now);
        fake
    }

    pub(super) fn with<T>(&self, see: impl FnOnce(&mut State) -> T) -> T {
        see(&mut self.0.lock().unwrap())
    }
}

impl Ledger for Fake {
    fn ask(&self, question: Question, now: Now) -> Option<Asking> {
        let fake = self.clone();
        Some(Box::pin(async move {
            fake.with(|state| {
                if state.away {
                    return Err(Unanswered { now });
                }
                Ok(state.answer(&question))
            })
        }))
    }

    fn change(&self, changes: Vec<Change>, _now: Now) {
        self.with(|state| {
            state.changed += 1;
            changes.iter().for_each(|change| state.change(change));
        });
    }
}

impl State {
    fn clock(&self) -> Now {
        Now {
            mono: self.now,
            unix: self.now,
        }
    }

    /// A bucket as it is now.
    pub(super) fn reading(&self, key: &str, meter: &Meter) -> Reading {
        let found = self.buckets.get(key).copied();
        let (Meter::Fixed(window) | Meter::Sliding(window)) = meter else {
            return found.unwrap_or(Reading::Tat(0));
        };
        let length = window.length();
        let now = (self.now / length + 1) * length;
        let (count, last) = match found {
            Some(Reading::Counts { end, count, last }) if end == now => (count, last),
            Some(Reading::Counts { end, count, .. }) if end + length == now => (0, count),
            _ => (0, 0),
        };
        Reading::Counts {
            end: now,
            count,
            last,
        }
    }

    fn conforms(&self, item: &Item) -> bool {
        let reading = self.reading(&item.key, &item.meter);
        let snapshot = Snapshot::new(&item.meter, reading);
        let verdict = item.meter.peek(&snapshot, item.tokens, self.clock());
        matches!(verdict, Verdict::Admit { .. })
    }

    fn take(&mut self, item: &Item) -> bool {
        if !self.conforms(item) {
            return false;
        }
        self.charge(&item.key, &item.meter, item.tokens);
        true
    }

    fn charge(&mut self, key: &str, meter: &Meter, tokens: u64) {
        let reading = match (meter, self.reading(key, meter)) {
            (Meter::Bucket { limit, deepest }, Reading::Tat(tat)) => {
                let most = self.now + deepest;
                Reading::Tat((tat.max(self.now) + worth(limit, tokens)).min(most))
            }
            (_, Reading::Counts { end, count, last }) => Reading::Counts {
                end,
                count: count + tokens,
                last,
            },
            (_, other) => other,
        };
        self.buckets.insert(key.to_owned(), reading);
    }

    fn answer(&mut self, question: &Question) -> Reply {
        self.asked += 1;
        let enforced = |item: &&Item| item.role == Role::Enforced;
        let over = question.items.iter().filter(enforced);
        let denials = question.denials + over.filter(|item| !self.conforms(item)).count();
        let mut said = Few::new();
        for item in &question.items {
            let asks = item.role == Role::Enforced || denials == 0;
            let conforms = match (asks, denials) {
                (false, _) => Conforms::NotAsked,
                (true, 0) if self.take(item) => Conforms::Yes,
                (true, _) if denials > 0 && self.conforms(item) => Conforms::Yes,
                (true, _) => Conforms::No,
            };
            let mut granted = 0;
            while denials == 0 && granted < item.again && self.take(item) {
                granted += 1;
            }
            let reading = self.reading(&item.key, &item.meter);
            said.push(Said::new(conforms, reading).granted(item, granted));
        }
        let now = self.clock();
        Reply {
            now,
            said,
            clocks: Few::new(),
        }
    }

    fn change(&mut self, change: &Change) {
        let Change {
            key,
            meter,
            tokens,
            kind,
            ..
        } = change;
        let ChangeKind::GiveBack { mark } = *kind else {
            self.charge(key, meter, *tokens);
            return;
        };
        let reading = match (meter, self.reading(key, meter)) {
            (Meter::Bucket { limit, .. }, Reading::Tat(tat)) => {
                let owed = mark.saturating_sub(self.now);
                Reading::Tat(tat.saturating_sub(worth(limit, *tokens).min(owed)))
            }
            (
                Meter::Fixed(window) | Meter::Sliding(window),
                Reading::Counts { end, count, last },
            ) => {
                let of = |end: u64| if mark == end { *tokens } else { 0 };
                Reading::Counts {
                    end,
                    count: count.saturating_sub(of(end)),
                    last: last.saturating_sub(of(end - window.length())),
                }
            }
            (_, other) => other,
        };
        self.buckets.insert(key.clone(), reading);
    }
}
