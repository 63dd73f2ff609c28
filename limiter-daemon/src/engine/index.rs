//! The rules of a policy, found without asking each of them.
//!
//! Of a policy with many rules, those that want a header to have one value (one rule for each
//! tenant, say) are filed under that value: a request looks up each such header once, instead of
//! asking every rule. The others are asked one by one. The order of the rules is kept.

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderName;
use smallvec::SmallVec;

use super::condition::{Matcher, joined};
use super::request::RequestView;
use super::rule::Rule;

/// Fewer rules than this are asked faster than looked up.
const WORTHWHILE: usize = 9;

/// Rules in the order of their policy.
#[derive(Debug)]
pub(super) struct RuleIndex {
    rules: Vec<Arc<Rule>>,
    /// Those that are asked one by one.
    others: Vec<u32>,
    by_header: Vec<(HeaderName, ByValue)>,
}

/// Numbers of the rules for each value, in order.
type ByValue = HashMap<Box<[u8]>, Vec<u32>>;

impl RuleIndex {
    pub(super) fn new(rules: Vec<Arc<Rule>>) -> Self {
        let mut index = Self {
            others: Vec::new(),
            by_header: Vec::new(),
            rules,
        };
        let numbered = (0u32..).zip(&index.rules);
        if index.rules.len() < WORTHWHILE {
            index.others.extend(numbered.map(|(number, _)| number));
            return index;
        }
        for (number, rule) in numbered {
            let Some((name, value)) = rule.conditions().iter().find_map(Matcher::pivot) else {
                index.others.push(number);
                continue;
            };
            let known = index.by_header.iter().position(|(other, _)| other == name);
            let at = known.unwrap_or_else(|| {
                index.by_header.push((name.clone(), HashMap::new()));
                index.by_header.len() - 1
            });
            let values = &mut index.by_header[at].1;
            values
                .entry(value.as_bytes().into())
                .or_default()
                .push(number);
        }
        index
    }

    pub(super) fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// Calls `meet` with every rule that is for the request, in their order.
    pub(super) fn each<'a>(
        &'a self,
        request: &RequestView<'_>,
        mut meet: impl FnMut(&'a Arc<Rule>),
    ) {
        let mut ask = |number: u32| {
            let rule = usize::try_from(number).ok().and_then(|n| self.rules.get(n));
            if let Some(rule) = rule.filter(|rule| rule.holds(request)) {
                meet(rule);
            }
        };
        let mut filed: SmallVec<[u32; 16]> = SmallVec::new();
        for (name, values) in &self.by_header {
            if let Some(value) = joined(request.headers, name) {
                filed.extend(values.get(value.as_ref()).into_iter().flatten().copied());
            }
        }
        filed.sort_unstable();
        let mut filed = filed.into_iter().peekable();
        for number in &self.others {
            while let Some(before) = filed.next_if(|filed| filed < number) {
                ask(before);
            }
            ask(*number);
        }
        filed.for_each(ask);
    }
}
