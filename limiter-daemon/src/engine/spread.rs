//! By which values the buckets of a policy may be spread over the nodes of a cluster.
//!
//! All rules of a policy that one request may meet are to be in one place. They are, if the place
//! follows from something that has one value in all requests of each of their buckets: what each rule
//! has a bucket for every value of, or wants to have one certain value. So of a policy with ten a
//! minute for each user and a thousand for the user `batch`, each user is in a place of its own; with
//! a limit for all users beside them, all are in one. And rules whose buckets are a route's own are
//! with those of that route only.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::condition::Matcher;
use super::rule::{Measure, Rule};

/// What of a request says where a bucket lies, in a fixed order.
pub type Pins = [String];

/// What of a request says where the buckets of a rule lie.
#[derive(Debug)]
pub struct Spread {
    /// One list for all rules that go by it.
    pins: Arc<Pins>,
    /// The rule's conditions on them, in the same order.
    conditions: Vec<usize>,
    /// Nothing else tells the rule's buckets apart.
    whole: bool,
    /// Each route has its own place.
    by_route: bool,
}

impl Default for Spread {
    fn default() -> Self {
        Self {
            pins: Arc::from([]),
            conditions: Vec::new(),
            whole: false,
            by_route: false,
        }
    }
}

impl Spread {
    #[must_use]
    pub const fn pins(&self) -> &Arc<Pins> {
        &self.pins
    }

    /// Indices of conditions.
    #[must_use]
    pub fn conditions(&self) -> &[usize] {
        &self.conditions
    }

    /// Whether nothing else tells the rule's buckets apart.
    #[must_use]
    pub const fn whole(&self) -> bool {
        self.whole
    }

    /// Whether each route has its own place.
    #[must_use]
    pub const fn by_route(&self) -> bool {
        self.by_route
    }

    fn of(conditions: &[Matcher], pins: &Arc<Pins>, by_route: bool) -> Self {
        let place = |pin: &String| {
            let mut all = conditions.iter();
            all.position(|one| one.pin().as_ref() == Some(pin))
        };
        Self {
            pins: Arc::clone(pins),
            conditions: pins.iter().filter_map(place).collect(),
            whole: conditions
                .iter()
                .filter(|one| one.is_distinct())
                .all(|one| one.pin().is_some_and(|pin| pins.contains(&pin))),
            by_route,
        }
    }
}

/// Has rules that one request may meet lie together, spread as far as that allows.
pub(super) fn together(rules: &mut [Rule]) {
    let counted = |rule: &&Rule| matches!(rule.measure, Measure::Metered(_));
    let pins = |rule: &Rule| -> BTreeSet<String> {
        rule.conditions().iter().filter_map(Matcher::pin).collect()
    };
    let common = rules
        .iter()
        .filter(counted)
        .map(pins)
        .reduce(|common, more| &common & &more);
    let common: Arc<Pins> = common.into_iter().flatten().collect();
    let mut all = rules.iter().filter(counted);
    let by_route = all.all(|rule| !rule.scope.name.route.is_empty());
    for rule in rules {
        rule.spread = Spread::of(rule.conditions(), &common, by_route);
    }
}

#[cfg(test)]
mod tests;
