//! Leases: tokens of a shared bucket that a node takes in advance, so that a hot key costs a fraction
//! of a round trip a decision.
//!
//! A [`Ledger`] in front of another. Of an item with a [`Lease`](super::ledger::Lease) this node may hold up to `size`
//! tokens, for `max_age`. While they last, they are taken without a question. When they are used up, one
//! request asks for its own tokens and for more of them at once ([`Item::again`]); others that come
//! meanwhile ask as usual. What is left goes back when its time is over.
//!
//! **All or nothing stays.** What a request takes here is taken first, and comes back when another of
//! its limits denies, when there is no answer, and when nobody waits for it any more.
//!
//! **How much passes.** Tokens are charged before they are used, and used at most `max_age` after.
//!
//! - Windows: what is charged in one is used in it. As many pass as without leases.
//! - Token buckets: what passes in any time *t* was charged in the time *t* + `max_age` that ends with
//!   it: at most `burst + rate × (t + max_age)`. It was also charged in *t*, or in hand when that began:
//!   at most `burst + rate × t + nodes × size`. Both hold while leases are used up.
//! - Unused tokens that go back to a bucket can make it fuller than if they had never been taken, if
//!   the bucket would have been full meanwhile: by what was in hand then, at most `nodes × size`. So at
//!   most `burst + rate × t + 2 × nodes × size` in any case.
//! - A node may be denied what others hold: at most `(nodes − 1) × size` tokens, until they are used or
//!   their time is over.
//!
//! **What is told** of a leased bucket is its last reading, less what was used of the lease since:
//! what other nodes took meanwhile is seen at the next question.
//!
//! **Rarely asked keys take nothing in advance**: a node holds at most as many tokens as were asked of
//! it, by other requests, in the last one or two spans of `max_age` ([`table`]).

mod counts;
pub mod table;

use std::sync::Arc;

use super::ledger::{
    Asking, Change, ChangeKind, Conforms, Item, Ledger, Question, Reply, Role, Said,
};
use super::told::not_asked;
use crate::engine::charge::Few;
use crate::engine::time::Now;
pub use counts::Counts;
use table::{Drawn, Table, Take};

/// A ledger of which this node holds leases.
#[derive(Debug)]
pub struct Leases {
    inner: Arc<dyn Ledger>,
    table: Arc<Table>,
}

/// A question that is under way. What it took comes back when it is dropped.
#[derive(Debug)]
struct Pending {
    table: Arc<Table>,
    /// When it was asked.
    now: Now,
    parts: Few<Part>,
}

/// What becomes of one item.
#[derive(Debug)]
enum Part {
    /// Its tokens were in hand.
    Here(Item, Drawn),
    /// One with a lease, as it was asked.
    Leased(Item),
    Other(Role),
}

impl Leases {
    /// Holds leases on buckets of `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Ledger>) -> Self {
        Self {
            inner,
            table: Arc::default(),
        }
    }

    /// What is held.
    #[must_use]
    pub const fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Gives back what nobody asked for until its time was over; to be called about once a second.
    pub fn tend(&self, now: Now) {
        self.table.sweep(now);
        self.flush(now);
    }

    /// Gives back all.
    pub fn end(&self, now: Now) {
        self.table.empty();
        self.flush(now);
    }

    fn flush(&self, now: Now) {
        let owed = self.table.owed();
        if !owed.is_empty() {
            self.inner.change(owed, now);
        }
    }
}

impl Ledger for Leases {
    fn ask(&self, question: Question, now: Now) -> Option<Asking> {
        let leased =
            |item: &Item| item.lease.is_some() && item.role == Role::Enforced && item.tokens > 0;
        if question.denials > 0 || !question.items.iter().any(leased) {
            return self.inner.ask(question, now);
        }
        let mut pending = Pending {
            table: Arc::clone(&self.table),
            now,
            parts: Few::new(),
        };
        let mut rest = Question::default();
        for mut item in question.items {
            let part = match item.lease.filter(|_| leased(&item)) {
                None => Part::Other(item.role),
                Some(lease) => match self.table.take(&item, lease, now) {
                    Take::Here(drawn) => {
                        pending.parts.push(Part::Here(item, drawn));
                        continue;
                    }
                    Take::Ask { again } => {
                        item.again = again;
                        Part::Leased(item.clone())
                    }
                },
            };
            pending.parts.push(part);
            rest.items.push(item);
        }
        self.flush(now);
        if rest.items.is_empty() {
            let reply = pending.finish(None);
            return Some(Box::pin(std::future::ready(Ok(reply))));
        }
        let asking = self.inner.ask(rest, now)?;
        Some(Box::pin(async move {
            let reply = asking.await?;
            Ok(pending.finish(Some(reply)))
        }))
    }

    fn change(&self, mut changes: Vec<Change>, now: Now) {
        changes.retain(|change| match change.kind {
            ChangeKind::GiveBack { mark } => !self.table.refund(change, mark, now),
            ChangeKind::Charge => true,
        });
        if !changes.is_empty() {
            self.inner.change(changes, now);
        }
    }

    fn join(&self) {
        self.inner.join();
    }
}

impl Pending {
    /// What all items come to; `None`: nothing had to be asked.
    fn finish(mut self, reply: Option<Reply>) -> Reply {
        let parts = std::mem::take(&mut self.parts);
        let asked: Few<(Said, Now)> = reply
            .iter()
            .flat_map(|reply| {
                let said = reply.said.iter().enumerate();
                said.map(|(index, said)| (*said, reply.now_of(index)))
            })
            .collect();
        let denied = denies(&parts, &asked);
        let mut asked = asked.into_iter();
        let mut next = || asked.next().unwrap_or_else(|| (not_asked(), self.now));
        let (said, clocks): (Few<Said>, Few<Now>) = parts
            .into_iter()
            .map(|part| match part {
                Part::Here(item, drawn) => (self.here(&item, &drawn, denied), drawn.now),
                Part::Leased(item) => {
                    let (said, there) = next();
                    (self.table.told(&item, said, there, self.now), there)
                }
                Part::Other(_) => next(),
            })
            .unzip();
        Reply {
            now: clocks.first().copied().unwrap_or(self.now),
            said,
            clocks,
        }
    }

    /// What is said of an item whose tokens were in hand.
    fn here(&self, item: &Item, drawn: &Drawn, denied: bool) -> Said {
        let mut reading = drawn.reading;
        if denied {
            self.table.put_back(item, drawn);
            reading = reading.without(&item.meter, item.tokens);
        } else {
            self.table.counts().decided.add(1);
        }
        Said {
            mark: drawn.mark,
            ..Said::new(Conforms::Yes, reading)
        }
    }
}

/// Whether one that is enforced was asked and does not conform.
fn denies(parts: &[Part], asked: &[(Said, Now)]) -> bool {
    let roles = parts.iter().filter_map(|part| match part {
        Part::Here(..) => None,
        Part::Leased(item) => Some(item.role),
        Part::Other(role) => Some(*role),
    });
    roles
        .zip(asked)
        .any(|(role, (said, _))| role == Role::Enforced && said.conforms == Conforms::No)
}

impl Drop for Pending {
    fn drop(&mut self) {
        for part in self.parts.drain(..) {
            match part {
                Part::Here(item, drawn) => self.table.put_back(&item, &drawn),
                Part::Leased(item) if item.again > 0 => self.table.not_fetched(&item.key),
                Part::Leased(_) | Part::Other(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
