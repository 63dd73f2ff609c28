//! Matching of sets: which rules a descriptor that is a set meets.
//!
//! A rule is met by a set that has all of its entries, whatever else it has. Of the rules that a set
//! meets, the first in the order of the files applies, and all that always do.

use std::collections::HashMap;

use smallvec::SmallVec;

use crate::engine::explain::clean;
use crate::policy::plan::SetRule;

/// Rules of which a set usually meets at most so many; more of them allocate.
const INLINE: usize = 4;

/// Entries of a set.
pub(super) type Entries<'a> = SmallVec<[(&'a str, &'a str); INLINE]>;

/// The rules of a domain, in their order, found by one of their entries.
#[derive(Debug)]
pub(super) struct Sets<L> {
    rules: Vec<Rule<L>>,
    by_key: HashMap<String, Keyed>,
    /// Those without entries.
    all: Vec<usize>,
}

/// Rules that are found by an entry of this key.
#[derive(Debug, Default)]
struct Keyed {
    by_value: HashMap<String, Vec<usize>>,
    any: Vec<usize>,
}

#[derive(Debug)]
struct Rule<L> {
    wants: Vec<(String, Option<String>)>,
    always: bool,
    limit: L,
}

/// A rule that a set meets.
#[derive(Debug)]
pub(super) struct Found<'r, 'e, L> {
    pub(super) limit: &'r L,
    /// What of the set the rule's entries are, in the rule's order.
    pub(super) entries: Entries<'e>,
}

impl<L> Sets<L> {
    /// `make` is told of each rule, and how many before it have the same entries.
    pub(super) fn new(rules: &[SetRule], mut make: impl FnMut(&SetRule, usize) -> L) -> Self {
        let mut sets = Self {
            rules: Vec::with_capacity(rules.len()),
            by_key: HashMap::new(),
            all: Vec::new(),
        };
        let mut seen: HashMap<&[(String, Option<String>)], usize> = HashMap::new();
        for (index, rule) in rules.iter().enumerate() {
            let same = seen.entry(rule.entries.as_slice()).or_default();
            sets.rules.push(Rule {
                wants: rule.entries.clone(),
                always: rule.limit.always,
                limit: make(rule, *same),
            });
            *same += 1;
            // A value leaves fewer rules to try than a key.
            let valued = rule.entries.iter().find(|(_, value)| value.is_some());
            match valued.or_else(|| rule.entries.first()) {
                None => sets.all.push(index),
                Some((key, value)) => {
                    let keyed = sets.by_key.entry(key.clone()).or_default();
                    match value {
                        Some(value) => keyed.by_value.entry(value.clone()).or_default(),
                        None => &mut keyed.any,
                    }
                    .push(index);
                }
            }
        }
        sets
    }

    /// The rules that apply to this set, in their order.
    pub(super) fn find<'r, 'e>(
        &'r self,
        set: &[(&'e str, &'e str)],
    ) -> SmallVec<[Found<'r, 'e, L>; INLINE]> {
        let mut first = true;
        let mut applied = SmallVec::new();
        for index in self.candidates(set) {
            let rule = &self.rules[index];
            if !first && !rule.always {
                continue;
            }
            if let Some(entries) = rule.of(set) {
                let limit = &rule.limit;
                applied.push(Found { limit, entries });
                first = false;
            }
        }
        applied
    }

    /// Rules that the set may meet, in their order.
    fn candidates(&self, set: &[(&str, &str)]) -> SmallVec<[usize; 8]> {
        let mut candidates = SmallVec::from_slice(&self.all);
        for (key, value) in set {
            if let Some(keyed) = self.by_key.get(*key) {
                candidates.extend_from_slice(&keyed.any);
                if let Some(found) = keyed.by_value.get(*value) {
                    candidates.extend_from_slice(found);
                }
            }
        }
        candidates.sort_unstable();
        candidates.dedup();
        candidates
    }

    /// Which rules the set meets, in words.
    pub(super) fn trace(&self, set: &[(&str, &str)]) -> Vec<String> {
        let mut steps = vec![format!(
            "a set of {} entries, for {} rules",
            set.len(),
            self.rules.len()
        )];
        let mut first = true;
        for index in self.candidates(set) {
            let rule = &self.rules[index];
            if rule.of(set).is_none() {
                continue;
            }
            let why = match (first, rule.always) {
                (true, _) => "the first that is met applies",
                (false, true) => "it is met, and always applies",
                (false, false) => "it is met, and does not apply: an earlier one does",
            };
            first = false;
            steps.push(format!("rule {} {}: {why}", index + 1, named(&rule.wants)));
        }
        if first {
            steps.push("none has all its entries in it".to_owned());
        }
        steps
    }
}

impl<L> Rule<L> {
    /// What its entries are in this set; `None`: it does not have all. Of several entries of a key
    /// that may have any value it is the first.
    fn of<'e>(&self, set: &[(&'e str, &'e str)]) -> Option<Entries<'e>> {
        let found = |(key, value): &(String, Option<String>)| {
            let is = |(own, this): &&(&'e str, &'e str)| {
                own == key && value.as_ref().is_none_or(|value| this == value)
            };
            set.iter().find(is).copied()
        };
        self.wants.iter().map(found).collect()
    }
}

/// `{key=value, key}`
fn named(wants: &[(String, Option<String>)]) -> String {
    let one = |(key, value): &(String, Option<String>)| match value {
        Some(value) => format!("{}={}", clean(key), clean(value)),
        None => clean(key),
    };
    let all: Vec<String> = wants.iter().map(one).collect();
    format!("{{{}}}", all.join(", "))
}
