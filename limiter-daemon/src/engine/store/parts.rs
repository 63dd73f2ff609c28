//! A question about buckets that do not lie in one place.
//!
//! A script sees one slot of a cluster, and one server. So a question is taken apart by where its
//! items are (in the ledger for limits of a second or in the main one, and there by slot), all parts
//! are asked at once, and what they say is brought together:
//!
//! - Every part takes its tokens, or none, as a question of its own. If one denies, the others give
//!   back what they took, as they would not have been charged either. Until that has arrived, other
//!   requests may be denied a token that nobody gets; never the other way.
//! - If one does not answer in time, the question is not answered, and the others give back. What the
//!   late one still takes stays taken.
//! - Who only watches is asked with its part, and gives back where the whole says no.
//! - Quotas deny together. Where they are in several parts, each is asked as one that only watches, and
//!   the whole sees whether all are over.
//!
//! Rejected: two rounds, asking first and taking then. It takes twice the time, and between the two
//! others take what was seen.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use super::ledger::{
    Asking, Change, ChangeKind, Conforms, Item, Ledger, Question, Reply, Role, Said, Unanswered,
};
use super::slot::slot;
use crate::engine::charge::Few;
use crate::engine::meter::{Meter, Snapshot, Verdict};
use crate::engine::time::Now;

const SECOND: u64 = 1_000_000_000;

/// A ledger of which a question sees one part.
#[derive(Clone, Debug)]
pub struct Place {
    pub ledger: Arc<dyn Ledger>,
    /// It is a cluster: a question sees one slot of it.
    pub slots: bool,
}

/// Several places, as one ledger.
#[derive(Debug)]
pub struct Parts {
    main: Place,
    per_second: Option<Place>,
}

/// What a question may be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    per_second: bool,
    slot: u16,
}

/// The items of a question that are in one part, by index.
type Members = Few<usize>;

impl Parts {
    /// Limits that are forgotten within a second are counted in `per_second`, if there is one.
    #[must_use]
    pub const fn new(main: Place, per_second: Option<Place>) -> Self {
        Self { main, per_second }
    }

    fn part(&self, key: &str, meter: &Meter) -> Part {
        let per_second = self.per_second.is_some() && is_per_second(meter);
        let slots = self.place(per_second).slots;
        Part {
            per_second,
            slot: if slots { slot(key) } else { 0 },
        }
    }

    fn place(&self, per_second: bool) -> &Place {
        match &self.per_second {
            Some(place) if per_second => place,
            _ => &self.main,
        }
    }
}

/// Whether nothing of it is remembered for longer than a second (but for debts).
fn is_per_second(meter: &Meter) -> bool {
    match meter {
        // An interval is rounded up, by less than a nanosecond a token.
        Meter::Bucket { limit, .. } => {
            limit.tolerance.saturating_sub(SECOND) < limit.capacity.max(1)
        }
        Meter::Fixed(window) | Meter::Sliding(window) => window.length() <= SECOND,
    }
}

impl Ledger for Parts {
    fn ask(&self, question: Question, now: Now) -> Option<Asking> {
        let parts = by_part(question.items.iter(), |item| {
            self.part(&item.key, &item.meter)
        });
        if let [(part, _)] = &*parts {
            return self.place(part.per_second).ledger.ask(question, now);
        }
        let mut asked = Vec::with_capacity(parts.len());
        let mut ledgers = Vec::with_capacity(parts.len());
        for (part, members) in &parts {
            let ledger = &self.place(part.per_second).ledger;
            // Nothing is sent yet: if one is not to be asked, none is.
            asked.push(ledger.ask(excerpt(&question, members), now)?);
            ledgers.push(Arc::clone(ledger));
        }
        let parts: Vec<Members> = parts.into_iter().map(|(_, members)| members).collect();
        Some(Box::pin(async move {
            let replies = all(asked).await;
            let Whole { reply, back } = whole(&question, &parts, &replies);
            for (ledger, changes) in ledgers.iter().zip(back) {
                if !changes.is_empty() {
                    ledger.change(changes, now);
                }
            }
            reply
        }))
    }

    fn change(&self, changes: Vec<Change>, now: Now) {
        let parts = by_part(changes.iter(), |change| {
            self.part(&change.key, &change.meter)
        });
        let mut changes: Vec<_> = changes.into_iter().map(Some).collect();
        for (part, members) in parts {
            let own = members.iter().filter_map(|index| changes[*index].take());
            let ledger = &self.place(part.per_second).ledger;
            ledger.change(own.collect(), now);
        }
    }

    fn join(&self) {
        self.main.ledger.join();
        if let Some(place) = &self.per_second {
            place.ledger.join();
        }
    }
}

/// Which of `all` are in which part, in the order of their first ones.
fn by_part<T>(all: impl Iterator<Item = T>, part: impl Fn(T) -> Part) -> Few<(Part, Members)> {
    let mut parts: Few<(Part, Members)> = Few::new();
    for (index, one) in all.enumerate() {
        let part = part(one);
        match parts.iter_mut().find(|(other, _)| *other == part) {
            Some((_, members)) => members.push(index),
            None => parts.push((part, Few::from_iter([index]))),
        }
    }
    parts
}

/// What one part is asked.
fn excerpt(question: &Question, members: &[usize]) -> Question {
    let items = &question.items;
    let spread = quotas_are_spread(items, members);
    let item = |index: &usize| {
        let mut item = items[*index].clone();
        match item.role {
            // Whether its limit denies is not seen there. Where only that does, it keeps its tokens.
            Role::Candidate if !members.contains(&owner(items, *index)) => {
                item.role = Role::Shadow;
            }
            Role::Quota if spread => item.role = Role::Shadow,
            _ => {}
        }
        item
    };
    Question {
        denials: question.denials,
        items: members.iter().map(item).collect(),
    }
}

/// Whether there are quotas among `members`, and others elsewhere.
fn quotas_are_spread(items: &[Item], members: &[usize]) -> bool {
    let quotas = items.iter().filter(|item| item.role == Role::Quota).count();
    let here = members
        .iter()
        .filter(|index| items[**index].role == Role::Quota)
        .count();
    here > 0 && here < quotas
}

/// The limit that a candidate is one of; of others themselves.
fn owner(items: &[Item], index: usize) -> usize {
    let mut before = items[..=index].iter();
    before
        .rposition(|item| item.role != Role::Candidate)
        .unwrap_or(index)
}

/// What all say, when all have.
async fn all(asked: Vec<Asking>) -> Vec<Result<Reply, Unanswered>> {
    let mut under_way: Vec<_> = asked.into_iter().map(|asking| (asking, None)).collect();
    poll_fn(|context| {
        for (asking, said) in &mut under_way {
            if said.is_none()
                && let Poll::Ready(reply) = asking.as_mut().poll(context)
            {
                *said = Some(reply);
            }
        }
        if under_way.iter().all(|(_, said)| said.is_some()) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    under_way.into_iter().filter_map(|(_, said)| said).collect()
}

/// What the parts come to, and what each is to give back.
struct Whole {
    reply: Result<Reply, Unanswered>,
    back: Vec<Vec<Change>>,
}

fn whole(question: &Question, parts: &[Members], replies: &[Result<Reply, Unanswered>]) -> Whole {
    let items = &question.items;
    let mut said: Few<Option<(Said, Now)>> = items.iter().map(|_| None).collect();
    for (members, reply) in parts.iter().zip(replies) {
        if let Ok(reply) = reply {
            for (at, (member, one)) in members.iter().zip(&reply.said).enumerate() {
                said[*member] = Some((*one, reply.now_of(at)));
            }
        }
    }
    let denies = |index: &usize| {
        items[*index].role == Role::Enforced
            && said[*index].is_some_and(|(said, _)| said.conforms == Conforms::No)
    };
    let deniers: Few<usize> = (0..items.len()).filter(denies).collect();
    let quotas_deny = quotas_deny(items, &said);
    let in_part: Vec<usize> = parts
        .iter()
        .map(|members| {
            let enforced = members.iter().filter(|index| denies(index)).count();
            let quota = |index: &usize| items[*index].role == Role::Quota;
            let here = quotas_deny && members.iter().any(quota);
            let quotas = here && !quotas_are_spread(items, members);
            question.denials + enforced + usize::from(quotas)
        })
        .collect();
    let lost = replies.iter().filter_map(|reply| reply.as_ref().err());
    let lost = lost.map(|lost| lost.now).max_by_key(|now| now.mono);
    // Then nothing was done in that part, and all is asked once more.
    let other_window = |(said, _): &(Said, Now)| said.conforms == Conforms::OtherWindow;
    let again = said.iter().flatten().any(other_window);
    let admitted = question.denials + deniers.len() == 0 && !quotas_deny;
    let stays = |index: usize| {
        let of_the_only_denier = || {
            items[index].role == Role::Candidate
                && question.denials == 0
                && !quotas_deny
                && *deniers == [owner(items, index)]
        };
        lost.is_none() && !again && (admitted || of_the_only_denier())
    };
    let mut back = Vec::with_capacity(parts.len());
    for (members, denials) in parts.iter().zip(in_part) {
        let spread = quotas_are_spread(items, members);
        let comes_back = |index: usize| {
            !stays(index)
                && match items[index].role {
                    // Where another denied, it was only looked at.
                    Role::Enforced => denials == 0,
                    Role::Quota => spread || denials == 0,
                    Role::Shadow | Role::Candidate => true,
                    // It is made whatever becomes of the request, but once.
                    Role::Refund => false,
                }
        };
        back.push(give_back(items, members, &mut said, comes_back));
    }
    for (index, item) in items.iter().enumerate() {
        let Some((said, now)) = said[index].as_mut().filter(|_| !stays(index)) else {
            continue;
        };
        match item.role {
            Role::Shadow | Role::Candidate => said.conforms = Conforms::NotAsked,
            // Where another denies it is only looked at, by itself.
            Role::Quota if matches!(said.conforms, Conforms::NotAsked | Conforms::No) => {
                said.conforms = looked_at(item, said, *now);
            }
            Role::Enforced | Role::Quota | Role::Refund => {}
        }
    }
    over_by_others(items, &mut said, question.denials > 0 || quotas_deny);
    let reply = match (lost, said.iter().copied().collect::<Option<Few<_>>>()) {
        (None, Some(said)) => Ok(Reply {
            now: said.first().map_or_else(Now::default, |(_, now)| *now),
            said: said.iter().map(|(said, _)| *said).collect(),
            clocks: said.iter().map(|(_, now)| *now).collect(),
        }),
        (lost, _) => Err(Unanswered {
            now: lost.unwrap_or_default(),
        }),
    };
    Whole { reply, back }
}

/// What the items of a part that took tokens, and are to give them back, give back. All that are asked
/// about these buckets see them without.
fn give_back(
    items: &[Item],
    members: &[usize],
    said: &mut [Option<(Said, Now)>],
    comes_back: impl Fn(usize) -> bool,
) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    for index in members {
        let item = &items[*index];
        let took = |said: &&mut (Said, Now)| said.0.conforms == Conforms::Yes && item.tokens > 0;
        let Some((said, _)) = said[*index].as_mut().filter(took) else {
            continue;
        };
        if comes_back(*index) {
            changes.push(Change {
                key: item.key.clone(),
                meter: item.meter,
                // With what was taken in advance.
                tokens: item.tokens.saturating_mul(1 + said.granted),
                form: item.form,
                kind: ChangeKind::GiveBack {
                    mark: Said::new(said.conforms, said.reading).mark,
                },
            });
            said.granted = 0;
        }
    }
    for index in members {
        if let Some((said, _)) = &mut said[*index] {
            let own = changes.iter().filter(|one| one.key == items[*index].key);
            for change in own {
                said.reading = said.reading.without(&change.meter, change.tokens);
            }
        }
    }
    changes
}

/// Items that share a bucket may be over only because of those before them, which is found when these
/// have taken. Where others deny nobody takes; so of such, the first is over, and only if `denied` is
/// not so and nobody is over by itself.
fn over_by_others(items: &[Item], said: &mut [Option<(Said, Now)>], denied: bool) {
    let over = |index: &usize| {
        items[*index].role == Role::Enforced
            && said[*index].is_some_and(|(said, _)| said.conforms == Conforms::No)
    };
    let all: Few<usize> = (0..items.len()).filter(over).collect();
    let by_itself = |index: &usize| {
        let one = &said[*index];
        one.is_some_and(|(said, now)| looked_at(&items[*index], &said, now) == Conforms::No)
    };
    let (alone, by_others): (Few<usize>, Few<usize>) = all.into_iter().partition(by_itself);
    let first = usize::from(!denied && alone.is_empty());
    for index in by_others.iter().skip(first) {
        if let Some((said, _)) = &mut said[*index] {
            said.conforms = Conforms::Yes;
        }
    }
}

/// Whether an item conforms by itself, as its bucket is.
fn looked_at(item: &Item, said: &Said, now: Now) -> Conforms {
    let snapshot = Snapshot::new(&item.meter, said.reading);
    match item.meter.peek(&snapshot, item.tokens, now) {
        Verdict::Admit { .. } => Conforms::Yes,
        Verdict::Deny { .. } => Conforms::No,
    }
}

/// Whether the quotas of a question deny it: there are some, and nothing is left of any. One that was
/// not asked, for its part denied, is looked at.
fn quotas_deny(items: &[Item], said: &[Option<(Said, Now)>]) -> bool {
    let mut quotas = items
        .iter()
        .zip(said)
        .filter(|(item, _)| item.role == Role::Quota)
        .map(|(item, said)| {
            said.is_some_and(|(said, now)| match said.conforms {
                Conforms::NotAsked => looked_at(item, &said, now) == Conforms::No,
                conforms => conforms == Conforms::No,
            })
        })
        .peekable();
    quotas.peek().is_some() && quotas.all(|over| over)
}

#[cfg(test)]
mod tests;
