//! Rules that are tried as they stand, found without trying them one by one.
//!
//! What could match a path is what it equals, what is written with one of its beginnings, and every
//! regular expression; of that the first in the order of the file is wanted. Beginnings are kept
//! sorted, each with its longest proper beginning among the others. All beginnings of a path that
//! are there are then on one way up: that from the greatest text that is not greater than the path.
//! So a lookup costs a binary search and what could match, whatever else there is. Rejected: a hash
//! of each beginning of the path, which costs more the longer the paths that clients send.

use std::collections::HashMap;

use super::paths::Entry;
use crate::engine::request::RequestView;
use crate::policy::plan::PathMatch;

/// The rules, and where each is found.
#[derive(Debug, Default)]
pub(super) struct Ordered {
    entries: Vec<Entry>,
    exact: HashMap<String, Vec<usize>>,
    regex: Vec<usize>,
    /// By text.
    beginnings: Vec<Beginning>,
}

/// What paths may begin with.
#[derive(Debug)]
struct Beginning {
    text: String,
    /// Index of the longest text before it that it begins with.
    parent: Option<usize>,
    /// Those that are written with it, in their order.
    entries: Vec<usize>,
}

impl Ordered {
    /// Adds an entry after those that are there. [`Self::index`] must follow.
    pub(super) fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// Makes all entries findable.
    pub(super) fn index(&mut self) {
        let mut beginnings: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, entry) in self.entries.iter().enumerate() {
            match &entry.condition.path {
                PathMatch::Exact(path) => self.exact.entry(path.clone()).or_default().push(index),
                PathMatch::Regex(_) => self.regex.push(index),
                PathMatch::Prefix(text) | PathMatch::StartsWith(text) => {
                    beginnings.entry(text).or_default().push(index);
                }
            }
        }
        let mut sorted: Vec<_> = beginnings.into_iter().collect();
        sorted.sort_unstable();
        let mut all: Vec<Beginning> = Vec::with_capacity(sorted.len());
        for (text, entries) in sorted {
            // What begins with a text follows it at once, so it is the last one or above that.
            let mut parent = all.len().checked_sub(1);
            while let Some(at) = parent.filter(|at| !text.starts_with(&all[*at].text)) {
                parent = all[at].parent;
            }
            all.push(Beginning {
                text: text.to_owned(),
                parent,
                entries,
            });
        }
        self.beginnings = all;
    }

    /// The first entry that `request` matches.
    pub(super) fn find(&self, request: &RequestView<'_>) -> Option<&Entry> {
        let mut first = self.entries.len();
        for list in self.candidates(request.path) {
            let nearer = list.iter().take_while(|index| **index < first);
            let mut entries = nearer.filter_map(|index| Some((*index, self.entries.get(*index)?)));
            let matches = |(_, entry): &(usize, &Entry)| {
                entry.condition.path.matches(request.path) && entry.matches(request)
            };
            if let Some((index, _)) = entries.find(matches) {
                first = index;
            }
        }
        self.entries.get(first)
    }

    /// Indices of entries of which one may match `path`, each list in their order; those that cost
    /// most to try come last.
    fn candidates(&self, path: &str) -> impl Iterator<Item = &[usize]> {
        let exact = self.exact.get(path).map(Vec::as_slice);
        exact
            .into_iter()
            .chain(self.beginnings_of(path))
            .chain([self.regex.as_slice()])
    }

    fn beginnings_of(&self, path: &str) -> impl Iterator<Item = &[usize]> {
        let after = self
            .beginnings
            .partition_point(|beginning| beginning.text.as_str() <= path);
        let mut next = after.checked_sub(1);
        std::iter::from_fn(move || {
            loop {
                let beginning = self.beginnings.get(next?)?;
                next = beginning.parent;
                if path.starts_with(&beginning.text) {
                    return Some(beginning.entries.as_slice());
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::route::{Route, Rule};
    use crate::engine::state::State;
    use crate::policy::plan::{RouteKind, RouteMatch, RouteRule};

    fn ordered(paths: impl IntoIterator<Item = PathMatch>) -> Ordered {
        let state = State::new(1);
        let route = Arc::new(Route {
            name: "d/r".into(),
            stats: state.route_stats("d/r"),
        });
        let rule = Rule::compile((&RouteRule::default(), 0), &route, "d/r", &state);
        let rule = Arc::new(rule);
        let mut ordered = Ordered::default();
        for path in paths {
            ordered.push(Entry {
                condition: RouteMatch {
                    path,
                    method: None,
                    headers: Vec::new(),
                    query: Vec::new(),
                },
                kind: RouteKind::Http,
                rule: Arc::clone(&rule),
            });
        }
        ordered.index();
        ordered
    }

    #[test]
    fn of_ten_thousand_routes_few_are_tried() {
        let begins = |number: usize| PathMatch::StartsWith(format!("/team/{number}/"));
        let equals = |number: usize| PathMatch::Exact(format!("/team/{number}/all"));
        let every = |number: usize| [equals(number), begins(number)];
        let last = [PathMatch::StartsWith("/".into())];
        let ordered = ordered((0..5_000).flat_map(every).chain(last));
        let tried = |path: &str| -> usize { ordered.candidates(path).map(<[usize]>::len).sum() };
        assert_eq!(tried("/team/4321/all"), 3);
        assert_eq!(tried("/team/4321/x"), 2);
        assert_eq!(tried("/team/5000/x"), 1);
        assert_eq!(tried(&format!("/{}", "x".repeat(60_000))), 1);
        assert_eq!(tried("*"), 0);
    }

    #[test]
    fn all_beginnings_of_a_path_are_found() {
        let texts = ["/a/b", "", "/a", "/ab", "/a/b/c", "/a/c", "/b", "/a\u{e9}"];
        let ordered = ordered(texts.map(|text| PathMatch::StartsWith(text.into())));
        for path in [
            "/a/b/c/d",
            "/a/b",
            "/a/bc",
            "/aa",
            "/a\u{e9}\u{e9}",
            "/c",
            "*",
        ] {
            let mut found: Vec<&str> = ordered
                .beginnings_of(path)
                .flatten()
                .map(|index| texts[*index])
                .collect();
            found.sort_unstable();
            let mut expected = texts.to_vec();
            expected.retain(|text| path.starts_with(text));
            expected.sort_unstable();
            assert_eq!(found, expected, "{path}");
        }
    }
}
