//! Two policies against the same requests.

use std::collections::BTreeMap;

use super::entry::Entry;
use super::player::{Fate, Limited};
use super::report::{Comparison, OnlyOne};
use super::tally::Who;

/// What one policy limits and the other does not.
#[derive(Debug, Default)]
pub(super) struct Difference {
    both: u64,
    only: [Only; 2],
}

#[derive(Debug, Default)]
struct Only {
    requests: u64,
    /// By the rule that limited them; as many as the policy has.
    rules: BTreeMap<String, u64>,
    who: Who,
}

impl Difference {
    /// Counts a request, by what the first and the second policy make of it.
    pub(super) fn add(&mut self, entry: &Entry, first: &Fate, second: &Fate) {
        let [by_first, by_second] = &mut self.only;
        match (first, second) {
            (Fate::Limited(_), Fate::Limited(_)) => self.both += 1,
            (Fate::Limited(limited), _) => by_first.add(entry, limited),
            (_, Fate::Limited(limited)) => by_second.add(entry, limited),
            _ => {}
        }
    }

    /// With the `number` clients that differ most.
    pub(super) fn report(&self, number: usize) -> Comparison {
        let [first, second] = &self.only;
        Comparison {
            limited_by_both: self.both,
            only_policy: first.report(number),
            only_against: second.report(number),
        }
    }
}

impl Only {
    fn add(&mut self, entry: &Entry, limited: &Limited) {
        self.requests += 1;
        let name = limited.rule.name();
        match self.rules.get_mut(name) {
            Some(count) => *count += 1,
            None => {
                self.rules.insert(name.to_owned(), 1);
            }
        }
        self.who.add(entry, limited);
    }

    fn report(&self, number: usize) -> OnlyOne {
        OnlyOne {
            requests: self.requests,
            rules: self.rules.clone(),
            clients: self.who.clients(number),
        }
    }
}
