//! The rules of one host, found by their paths: exact ones and prefixes by hash, so that a lookup
//! costs as much with ten thousand rules as with ten. Regular expressions are tried one by one. Rules
//! that are tried as they stand are found apart.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use super::ordered::Ordered;
use super::{Matched, Rule};
use crate::engine::request::RequestView;
use crate::policy::plan::{PathMatch, RouteKind, RouteMatch};

/// The rules that serve one host pattern.
#[derive(Debug, Default)]
pub(super) struct Paths {
    /// Of routes whose rules are tried as they stand.
    in_order: Ordered,
    exact: HashMap<String, Vec<Entry>>,
    /// Regular expressions and beginnings, by descending length of what is written.
    regex: Vec<Entry>,
    prefix: HashMap<String, Vec<Entry>>,
    /// Length of the longest prefix: no longer part of a path needs to be looked up.
    longest: usize,
}

/// A match of a rule.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) condition: RouteMatch,
    pub(super) kind: RouteKind,
    pub(super) rule: Arc<Rule>,
}

impl Entry {
    pub(super) fn matches(&self, request: &RequestView<'_>) -> bool {
        (self.kind == RouteKind::Http || is_grpc(request))
            && self.condition.matches_beside_path(request)
    }

    /// Bytes of a path that it matches as a beginning, if it does.
    fn beginning(&self) -> Option<usize> {
        match &self.condition.path {
            PathMatch::Prefix(text) | PathMatch::StartsWith(text) => Some(text.len()),
            PathMatch::Exact(_) | PathMatch::Regex(_) => None,
        }
    }

    /// Of matches with one path: a method, then the most headers, then the most parameters.
    fn precedence(&self) -> (bool, usize, usize) {
        let condition = &self.condition;
        (
            condition.method.is_some(),
            condition.headers.len(),
            condition.query.len(),
        )
    }
}

impl Paths {
    /// Adds an entry that is tried after those that were added this way, and before all others.
    pub(super) fn push_in_order(&mut self, entry: Entry) {
        self.in_order.push(entry);
    }

    /// Adds `entry` after those that are there. [`Self::sort`] must follow.
    pub(super) fn push(&mut self, entry: Entry) {
        match &entry.condition.path {
            PathMatch::Exact(path) => self.exact.entry(path.clone()).or_default().push(entry),
            PathMatch::Regex(_) | PathMatch::StartsWith(_) => self.regex.push(entry),
            PathMatch::Prefix(prefix) => {
                self.longest = self.longest.max(prefix.len());
                self.prefix.entry(prefix.clone()).or_default().push(entry);
            }
        }
    }

    /// Puts the entries in the order of precedence. Sorting is stable: the order of the plan breaks
    /// ties.
    pub(super) fn sort(&mut self) {
        self.in_order.index();
        for entries in self.exact.values_mut().chain(self.prefix.values_mut()) {
            entries.sort_by_key(|entry| Reverse(entry.precedence()));
        }
        self.regex.sort_by_key(|entry| {
            let length = match &entry.condition.path {
                PathMatch::Regex(regex) => regex.as_str().len(),
                PathMatch::StartsWith(text) => text.len(),
                PathMatch::Exact(_) | PathMatch::Prefix(_) => 0,
            };
            Reverse((length, entry.precedence()))
        });
    }

    pub(super) fn find(&self, request: &RequestView<'_>) -> Option<Matched<'_>> {
        let path = request.path;
        if let Some(entry) = self.in_order.find(request) {
            // What is no beginning matches the path as a whole, which is rewritten then (Envoy).
            let matched = entry.beginning().unwrap_or(path.len());
            return Some(Matched::new(&entry.rule, Some(matched)));
        }
        let first = |entries: &'_ [Entry]| entries.iter().position(|e| e.matches(request));
        if let Some(entries) = self.exact.get(path)
            && let Some(at) = first(entries)
        {
            return Some(Matched::new(&entries[at].rule, None));
        }
        let by_regex = self
            .regex
            .iter()
            .find(|entry| entry.condition.path.matches(path) && entry.matches(request));
        if let Some(entry) = by_regex {
            return Some(Matched::new(&entry.rule, entry.beginning()));
        }
        self.prefixes(path).find_map(|prefix| {
            let entries = self.prefix.get(prefix)?;
            let at = first(entries)?;
            Some(Matched::new(&entries[at].rule, Some(prefix.len())))
        })
    }

    /// The prefixes that `path` has in whole segments, longest first, as far as one may be here.
    fn prefixes<'a>(&self, path: &'a str) -> impl Iterator<Item = &'a str> {
        let bytes = path.as_bytes();
        let ends_segment = move |at: &usize| bytes.get(*at).is_none_or(|byte| *byte == b'/');
        (0..=path.len().min(self.longest))
            .rev()
            .filter(ends_segment)
            .filter_map(|end| path.get(..end))
    }
}

pub(in crate::engine) fn is_grpc(request: &RequestView<'_>) -> bool {
    request
        .headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}
