//! Routing: which rule of which HTTPRoute a request takes.
//!
//! Precedence after the Gateway API: the most specific hostname first (exact, then the longest
//! wildcard, then any host; there is no falling through to a less specific one, as with Envoy's
//! virtual hosts), then an exact path, a regular expression, the longest prefix, a method, the most
//! headers, and last the order of the plan (age of the route, name, order of its rules).

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderMap, Method};

use super::balance::WeightedChoice;
use super::decide::LimitSet;
use super::state::{RouteStats, State};
use crate::policy::plan::{HeaderMatch, Hostname, Listener, PathMatch, RouteMatch, ValueMatch};

/// The routes of one listener, by host.
#[derive(Debug, Default)]
pub struct RouteTable {
    exact: HashMap<String, Vec<Entry>>,
    /// By descending length of the suffix.
    wildcard: Vec<(String, Vec<Entry>)>,
    any: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    condition: RouteMatch,
    rule: Arc<Rule>,
}

/// A rule of a route, ready to serve.
#[derive(Debug)]
pub struct Rule {
    pub route: Arc<Route>,
    pub limits: Option<LimitSet>,
    /// Where its requests go.
    pub backends: WeightedChoice,
}

/// What the rules of an HTTPRoute share.
#[derive(Debug)]
pub struct Route {
    /// `namespace/name`.
    pub name: String,
    pub stats: Arc<RouteStats>,
}

impl RouteTable {
    #[must_use]
    pub fn compile(listener: &Listener, state: &State) -> Self {
        let mut table = Self::default();
        for plan in &listener.routes {
            let route = Arc::new(Route {
                name: plan.name.clone(),
                stats: state.route_stats(&plan.name),
            });
            for rule in &plan.rules {
                let backends = WeightedChoice::new(&rule.backends);
                let shared = Arc::new(Rule {
                    route: Arc::clone(&route),
                    limits: rule
                        .limits
                        .local
                        .first()
                        .map(|l| LimitSet::compile(l, &plan.name, state)),
                    backends,
                });
                for condition in &rule.matches {
                    for hostname in &plan.hostnames {
                        let rule = Arc::clone(&shared);
                        table.host(hostname).push(Entry {
                            condition: condition.clone(),
                            rule,
                        });
                    }
                }
            }
        }
        table.sort();
        table
    }

    fn host(&mut self, hostname: &Hostname) -> &mut Vec<Entry> {
        match hostname {
            Hostname::Any => &mut self.any,
            Hostname::Exact(host) => self.exact.entry(host.clone()).or_default(),
            Hostname::Wildcard(suffix) => {
                let at = self.wildcard.iter().position(|(s, _)| s == suffix);
                let at = at.unwrap_or_else(|| {
                    self.wildcard.push((suffix.clone(), Vec::new()));
                    self.wildcard.len() - 1
                });
                &mut self.wildcard[at].1
            }
        }
    }

    fn sort(&mut self) {
        self.wildcard
            .sort_by_key(|(suffix, _)| Reverse(suffix.len()));
        let wildcard = self.wildcard.iter_mut().map(|(_, entries)| entries);
        for entries in self
            .exact
            .values_mut()
            .chain(wildcard)
            .chain([&mut self.any])
        {
            entries.sort_by_key(|entry| Reverse(precedence(&entry.condition)));
        }
    }

    /// The rule that serves a request; `None`: no route matches (404).
    #[must_use]
    pub fn find(
        &self,
        host: &str,
        path: &str,
        method: &Method,
        headers: &HeaderMap,
    ) -> Option<&Arc<Rule>> {
        self.entries(&hostname(host))
            .iter()
            .find(|entry| entry.condition.matches(path, method, headers))
            .map(|entry| &entry.rule)
    }

    fn entries(&self, host: &str) -> &[Entry] {
        if let Some(entries) = self.exact.get(host) {
            return entries;
        }
        // A wildcard stands for at least one label.
        let under = |suffix: &str| host.len() > suffix.len() && host.ends_with(suffix);
        let wildcard = self.wildcard.iter().find(|(suffix, _)| under(suffix));
        wildcard.map_or(&self.any, |(_, entries)| entries)
    }
}

/// The host of a `Host` header or an authority: without the port, in lower case, without the dot of
/// an absolute name.
fn hostname(authority: &str) -> Cow<'_, str> {
    let host = match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => &authority[..colon],
        _ => authority,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

fn precedence(condition: &RouteMatch) -> (u8, usize, bool, usize) {
    let (kind, length) = match &condition.path {
        PathMatch::Exact(path) => (2, path.len()),
        PathMatch::Regex(regex) => (1, regex.as_str().len()),
        PathMatch::Prefix(prefix) => (0, prefix.len()),
    };
    (
        kind,
        length,
        condition.method.is_some(),
        condition.headers.len(),
    )
}

impl RouteMatch {
    fn matches(&self, path: &str, method: &Method, headers: &HeaderMap) -> bool {
        self.path.matches(path)
            && self.method.as_ref().is_none_or(|wanted| wanted == method)
            && self.headers.iter().all(|header| header.matches(headers))
    }
}

impl PathMatch {
    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(wanted) => wanted == path,
            Self::Prefix(prefix) => path
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            Self::Regex(regex) => regex.is_match(path),
        }
    }
}

impl HeaderMatch {
    /// Of several lines of one header, any may match.
    fn matches(&self, headers: &HeaderMap) -> bool {
        headers
            .get_all(&self.name)
            .iter()
            .any(|value| match &self.value {
                ValueMatch::Exact(wanted) => wanted == value,
                ValueMatch::Regex(regex) => value.to_str().is_ok_and(|value| regex.is_match(value)),
            })
    }
}

#[cfg(test)]
mod tests;
