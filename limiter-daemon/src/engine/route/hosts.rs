//! Values by host pattern; the most specific pattern wins: exact, then the longest wildcard, then any
//! host.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::policy::plan::Hostname;

/// Longer hosts are no names of the DNS (RFC 1035 section 2.3.4) and only match "any host", so that
/// what a lookup costs does not grow with what a client sends.
const MAX_HOST: usize = 255;

/// A value for each pattern.
#[derive(Debug)]
pub struct Hosts<T> {
    exact: HashMap<String, T>,
    /// By the suffix, with its leading dot.
    wildcard: HashMap<String, T>,
    any: Option<T>,
}

impl<T> Default for Hosts<T> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            any: None,
        }
    }
}

impl<T> Hosts<T> {
    /// The value of the most specific pattern that `host` matches: a host as [`hostname`] gives it.
    #[must_use]
    pub fn get(&self, host: &str) -> Option<&T> {
        if host.len() <= MAX_HOST {
            if let Some(value) = self.exact.get(host) {
                return Some(value);
            }
            if !self.wildcard.is_empty() {
                // A wildcard stands for at least one label.
                let mut dots = host.match_indices('.').filter(|(at, _)| *at > 0);
                if let Some(value) = dots.find_map(|(at, _)| self.wildcard.get(&host[at..])) {
                    return Some(value);
                }
            }
        }
        self.any.as_ref()
    }

    /// The value of `pattern`, made if there is none.
    pub fn entry(&mut self, pattern: &Hostname, make: impl FnOnce() -> T) -> &mut T {
        match pattern {
            Hostname::Any => self.any.get_or_insert_with(make),
            Hostname::Exact(host) => self.exact.entry(host.clone()).or_insert_with(make),
            Hostname::Wildcard(suffix) => self.wildcard.entry(suffix.clone()).or_insert_with(make),
        }
    }

    /// Every value, in no order.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let named = self.exact.values_mut().chain(self.wildcard.values_mut());
        named.chain(&mut self.any)
    }
}

/// The host of a `Host` header or an authority: without the port, in lower case, without the dot of
/// an absolute name.
#[must_use]
pub fn hostname(authority: &str) -> Cow<'_, str> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_end_costs_one_look() {
        let mut hosts = Hosts::default();
        hosts.entry(&Hostname::Wildcard(".a".into()), || 1);
        hosts.entry(&Hostname::Any, || 2);
        assert_eq!(hosts.get("x.a"), Some(&1));
        assert_eq!(hosts.get(".a"), Some(&2));
        assert_eq!(hosts.get(&format!("{}.a", ".".repeat(1 << 20))), Some(&2));
    }

    #[test]
    fn ports_and_case_are_no_part_of_a_host() {
        for (authority, host) in [
            ("API.Example.COM.:8080", "api.example.com"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("a", "a"),
            ("", ""),
        ] {
            assert_eq!(hostname(authority), host);
        }
    }
}
