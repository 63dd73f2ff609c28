//! Matching: which node of a domain's tree a descriptor leads to.
//!
//! At each level, for the next entry: the node with its key and value; else the first one, in the
//! order of the files, with its key and a pattern that its value matches; else the one with its key
//! alone. There is no way back: a node without anything below it ends the search even where another
//! one would lead on. The node of the last entry decides, and has a limit or has none.

use std::collections::HashMap;

use crate::engine::explain::clean;
use crate::policy::plan::{self, EntryValue};

/// A level of the tree.
#[derive(Debug)]
pub(super) struct Level<L> {
    by_key: HashMap<String, Keyed<L>>,
}

/// The nodes of one key.
#[derive(Debug)]
struct Keyed<L> {
    exact: HashMap<String, Node<L>>,
    patterns: Vec<(Pattern, Node<L>)>,
    any: Option<Node<L>>,
}

/// A node: what holds at it, and what is below it.
#[derive(Debug)]
pub(super) struct Node<L> {
    pub(super) limit: Option<L>,
    below: Level<L>,
}

impl<L> Default for Level<L> {
    fn default() -> Self {
        Self {
            by_key: HashMap::new(),
        }
    }
}

impl<L> Level<L> {
    /// The level of these descriptors. `make` is told of each limit with the descriptors that lead to
    /// it.
    pub(super) fn new<'p>(
        descriptors: &'p [plan::Descriptor],
        path: &mut Vec<&'p plan::Descriptor>,
        make: &mut impl FnMut(&plan::DomainLimit, &[&'p plan::Descriptor]) -> L,
    ) -> Self {
        let mut level = Self::default();
        for descriptor in descriptors {
            path.push(descriptor);
            let node = Node {
                limit: descriptor.limit.as_ref().map(|limit| make(limit, path)),
                below: Self::new(&descriptor.descriptors, path, make),
            };
            path.pop();
            let keyed = level
                .by_key
                .entry(descriptor.key.clone())
                .or_insert_with(|| Keyed {
                    exact: HashMap::new(),
                    patterns: Vec::new(),
                    any: None,
                });
            match &descriptor.value {
                EntryValue::Any => keyed.any = Some(node),
                EntryValue::Is(value) => drop(keyed.exact.insert(value.clone(), node)),
                EntryValue::Like(pattern) => keyed.patterns.push((Pattern::new(pattern), node)),
            }
        }
        level
    }

    /// The limit that these entries lead to.
    pub(super) fn find(&self, entries: &[(&str, &str)]) -> Option<&L> {
        let (last, before) = entries.split_last()?;
        let mut level = self;
        for entry in before {
            level = &level.node(*entry)?.below;
        }
        level.node(*last)?.limit.as_ref()
    }

    /// How each of these entries is matched, in words; the last that is told is the one at which it
    /// is known.
    pub(super) fn trace(&self, entries: &[(&str, &str)]) -> Vec<String> {
        let mut steps = Vec::new();
        let mut level = self;
        for (index, (key, value)) in entries.iter().enumerate() {
            let entry = format!("{}={}", clean(key), clean(value));
            let Some(keyed) = level.by_key.get(*key) else {
                let why = match (level.by_key.is_empty(), index) {
                    (true, 0) => "the domain has no descriptors",
                    (true, _) => "there is nothing below that, and no way back",
                    (false, _) => "no descriptor here has this key",
                };
                steps.push(format!("{entry}: {why}"));
                return steps;
            };
            let found = keyed.find(value);
            let Some((by, node)) = found else {
                steps.push(format!(
                    "{entry}: no descriptor here has this value, a pattern for it, or no value"
                ));
                return steps;
            };
            steps.push(match by {
                By::Value => format!("{entry}: the descriptor with this value"),
                By::Pattern(text) => {
                    format!("{entry}: the first pattern that matches, `{}`", clean(text))
                }
                By::Key => format!("{entry}: the descriptor without a value"),
            });
            if index + 1 == entries.len() && node.limit.is_none() {
                steps.push("it has no `rate_limit`: nothing is limited".to_owned());
            }
            level = &node.below;
        }
        steps
    }

    fn node(&self, (key, value): (&str, &str)) -> Option<&Node<L>> {
        let (_, node) = self.by_key.get(key)?.find(value)?;
        Some(node)
    }
}

/// What a value was found by.
enum By<'a> {
    Value,
    Pattern(&'a str),
    Key,
}

impl<L> Keyed<L> {
    fn find(&self, value: &str) -> Option<(By<'_>, &Node<L>)> {
        if let Some(node) = self.exact.get(value) {
            return Some((By::Value, node));
        }
        let like = |(pattern, _): &&(Pattern, _)| pattern.matches(value);
        if let Some((pattern, node)) = self.patterns.iter().find(like) {
            return Some((By::Pattern(&pattern.text), node));
        }
        self.any.as_ref().map(|node| (By::Key, node))
    }
}

/// A text in which each `*` stands for any text.
#[derive(Debug)]
struct Pattern {
    text: String,
    first: String,
    between: Vec<String>,
    last: String,
}

impl Pattern {
    fn new(text: &str) -> Self {
        let mut parts = text.split('*').map(str::to_owned);
        let first = parts.next().unwrap_or_default();
        let mut between: Vec<_> = parts.collect();
        let last = between.pop().unwrap_or_default();
        Self {
            text: text.to_owned(),
            first,
            between,
            last,
        }
    }

    fn matches(&self, value: &str) -> bool {
        let Some(rest) = value.strip_prefix(self.first.as_str()) else {
            return false;
        };
        let Some(mut rest) = rest.strip_suffix(self.last.as_str()) else {
            return false;
        };
        // The first place that a part is found at leaves the most to those after it.
        self.between
            .iter()
            .all(|part| match rest.find(part.as_str()) {
                Some(at) => {
                    rest = &rest[at + part.len()..];
                    true
                }
                None => false,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn patterns() {
        for (pattern, yes, no) in [
            ("foo*", &["foo", "foobar"][..], &["fo", "xfoo", ""][..]),
            ("*", &["", "x"], &[]),
            ("*.css", &[".css", "a.css"], &["a.css2", "css"]),
            ("a*b*c", &["abc", "axxbyyc", "abbc"], &["ac", "acb", "abcx"]),
            ("a*a", &["aa", "aba"], &["a"]),
            ("**x", &["x", "yx"], &["y"]),
        ] {
            let matches = |value: &&&str| Pattern::new(pattern).matches(value);
            assert_eq!(yes.iter().find(|v| !matches(v)), None, "{pattern}");
            assert_eq!(no.iter().find(matches), None, "{pattern}");
        }
    }
}
