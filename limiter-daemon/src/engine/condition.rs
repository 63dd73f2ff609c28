//! Whether a request is one that a rule is for, and which of the rule's buckets it draws from.
//!
//! All conditions of a rule must hold. Nothing is allocated here, but for a regular expression on a
//! header of several lines.

use std::borrow::Cow;
use std::fmt;
use std::hash::Hasher;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use percent_encoding::percent_decode;
use smallvec::SmallVec;

use super::explain;
use super::nets::{self, Nets};
use super::request::{RequestView, decodes_to};
use crate::policy::plan::{Condition, PathMatch, SourcePrefixes, ValueTest};

/// Bytes of a value that are shown at most.
const SHOWN: usize = 128;

/// A condition, ready to ask.
#[derive(Debug)]
pub(super) enum Matcher {
    Header {
        name: HeaderName,
        test: ValueTest,
    },
    Query {
        name: String,
        test: ValueTest,
    },
    Method(Vec<(Method, bool)>),
    Path {
        path: PathMatch,
        invert: bool,
    },
    Source {
        /// `None`: every address.
        nets: Option<Nets>,
        invert: bool,
        each: Option<SourcePrefixes>,
    },
}

impl Matcher {
    pub(super) fn compile(condition: &Condition) -> Self {
        match condition {
            Condition::Header { name, test } => Self::Header {
                name: name.clone(),
                test: test.clone(),
            },
            Condition::Query { name, test } => Self::Query {
                name: name.clone(),
                test: test.clone(),
            },
            Condition::Method(methods) => Self::Method(methods.clone()),
            Condition::Path { path, invert } => Self::Path {
                path: path.clone(),
                invert: *invert,
            },
            Condition::Source { nets, invert, each } => Self::Source {
                nets: (!nets.is_empty()).then(|| Nets::new(nets)),
                invert: *invert,
                each: *each,
            },
        }
    }

    /// The header and its one value that a request must have for this to hold.
    pub(super) const fn pivot(&self) -> Option<(&HeaderName, &HeaderValue)> {
        match self {
            Self::Header {
                name,
                test: ValueTest::Is(value),
            } => Some((name, value)),
            _ => None,
        }
    }

    pub(super) fn holds(&self, request: &RequestView<'_>) -> bool {
        match self {
            Self::Header { name, test } => header_passes(request.headers, name, test),
            Self::Query { name, test } => query_passes(request, name, test),
            Self::Method(methods) => methods
                .iter()
                .any(|(method, invert)| (method == request.method) != *invert),
            Self::Path { path, invert } => path.matches(request.path) != *invert,
            Self::Source { nets, invert, .. } => {
                nets.as_ref().is_none_or(|n| n.contains(request.client)) != *invert
            }
        }
    }

    /// Writes the value that has a bucket of its own, if there is such, with its end marked.
    pub(super) fn feed(&self, request: &RequestView<'_>, hasher: &mut impl Hasher) {
        if self.is_distinct() {
            self.feed_value(request, hasher);
        }
    }

    /// Whether each value has a bucket of its own.
    pub(super) const fn is_distinct(&self) -> bool {
        match self {
            Self::Header { test, .. } | Self::Query { test, .. } => {
                matches!(test, ValueTest::Each | ValueTest::EachSingle)
            }
            Self::Source { each, .. } => each.is_some(),
            Self::Method(_) | Self::Path { .. } => false,
        }
    }

    /// What of a request has one value in all requests of a bucket: because each value has a bucket of
    /// its own, or because the condition wants this one. The same text on every node.
    pub(super) fn pin(&self) -> Option<String> {
        match self {
            Self::Header {
                name,
                test: ValueTest::Each | ValueTest::EachSingle | ValueTest::Is(_),
            } => Some(format!("header {name}")),
            Self::Query {
                name,
                test: ValueTest::Each | ValueTest::EachSingle | ValueTest::Is(_),
            } => Some(format!("query {name}")),
            Self::Source {
                each: Some(SourcePrefixes { v4, v6 }),
                ..
            } => Some(format!("source /{v4} /{v6}")),
            _ => None,
        }
    }

    /// Writes the value of what the condition is about, with its end marked; nothing for methods,
    /// paths and sources as a whole.
    pub(super) fn feed_value(&self, request: &RequestView<'_>, hasher: &mut impl Hasher) {
        match self {
            Self::Header { name, .. } => {
                // As the joined value, whatever lines it came in.
                let mut separator: &[u8] = b"";
                for line in request.headers.get_all(name) {
                    hasher.write(separator);
                    hasher.write(line.as_bytes());
                    separator = b",";
                }
                hasher.write_u8(0);
            }
            Self::Query { name, .. } => {
                if let Some(value) = request.parameter(name) {
                    percent_decode(value).for_each(|byte| hasher.write_u8(byte));
                }
                hasher.write_u8(0);
            }
            Self::Source {
                each: Some(prefixes),
                ..
            } => {
                // By hand: nodes must agree, whatever compiler they were built with.
                match nets::network(request.client, *prefixes).network() {
                    IpAddr::V4(address) => {
                        hasher.write_u8(4);
                        hasher.write(&address.octets());
                    }
                    IpAddr::V6(address) => {
                        hasher.write_u8(6);
                        hasher.write(&address.octets());
                    }
                }
            }
            Self::Source { each: None, .. } | Self::Method(_) | Self::Path { .. } => {}
        }
    }

    /// The name of what has a bucket for each value; `None` for other conditions.
    pub(super) fn entry_name(&self) -> Option<&str> {
        match self {
            Self::Header {
                name,
                test: ValueTest::Each | ValueTest::EachSingle,
            } => Some(name.as_str()),
            Self::Query {
                name,
                test: ValueTest::Each | ValueTest::EachSingle,
            } => Some(name),
            Self::Source { each: Some(_), .. } => Some("source"),
            _ => None,
        }
    }

    /// `name=value` of what has a bucket of its own; `None` for other conditions.
    pub(super) fn entry(&self, request: &RequestView<'_>) -> Option<String> {
        match self {
            Self::Header {
                name,
                test: ValueTest::Each | ValueTest::EachSingle,
            } => {
                if explain::secret(name) {
                    return Some(format!("{name}=(redacted)"));
                }
                let value = joined(request.headers, name)?;
                Some(format!("{name}={}", shown(&value)))
            }
            Self::Query {
                name,
                test: ValueTest::Each | ValueTest::EachSingle,
            } => {
                let value = Cow::from(percent_decode(request.parameter(name)?));
                Some(format!("{name}={}", shown(&value)))
            }
            Self::Source {
                each: Some(prefixes),
                ..
            } => Some(format!(
                "source={}",
                nets::network(request.client, *prefixes)
            )),
            _ => None,
        }
    }
}

fn shown(value: &[u8]) -> impl fmt::Display {
    value[..value.len().min(SHOWN)].escape_ascii()
}

fn header_passes(headers: &HeaderMap, name: &HeaderName, test: &ValueTest) -> bool {
    match test {
        ValueTest::Is(wanted) => has_value(headers, name, wanted),
        ValueTest::IsNot(wanted) => !has_value(headers, name, wanted),
        ValueTest::Matches(regex) => joined(headers, name).is_some_and(|v| regex.is_match(&v)),
        ValueTest::MatchesNot(regex) => !joined(headers, name).is_some_and(|v| regex.is_match(&v)),
        ValueTest::Each => headers.contains_key(name),
        ValueTest::EachSingle => {
            let mut lines = headers.get_all(name).iter();
            let first = lines.next().is_some_and(|line| !line.is_empty());
            first && lines.next().is_none()
        }
        ValueTest::Absent => !headers.contains_key(name),
    }
}

/// Whether the header has this value. Several lines of one header are one value, joined by commas
/// (RFC 9110 section 5.3): repeating a header does not get around a rule on it.
fn has_value(headers: &HeaderMap, name: &HeaderName, wanted: &HeaderValue) -> bool {
    let mut lines = headers.get_all(name).iter();
    let Some(first) = lines.next() else {
        return false;
    };
    let Some(mut rest) = wanted.as_bytes().strip_prefix(first.as_bytes()) else {
        return false;
    };
    for line in lines {
        let Some(after) = rest
            .strip_prefix(b",")
            .and_then(|r| r.strip_prefix(line.as_bytes()))
        else {
            return false;
        };
        rest = after;
    }
    rest.is_empty()
}

/// A header's one value; `None` where there is none.
pub(super) fn joined<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?.as_bytes();
    let Some(second) = lines.next() else {
        return Some(Cow::Borrowed(first));
    };
    let mut value = [first, second.as_bytes()].join(&b',');
    for line in lines {
        value.push(b',');
        value.extend_from_slice(line.as_bytes());
    }
    Some(Cow::Owned(value))
}

fn query_passes(request: &RequestView<'_>, name: &str, test: &ValueTest) -> bool {
    let value = request.parameter(name);
    match test {
        ValueTest::Is(wanted) => value.is_some_and(|value| decodes_to(value, wanted.as_bytes())),
        ValueTest::IsNot(wanted) => !value.is_some_and(|v| decodes_to(v, wanted.as_bytes())),
        ValueTest::Matches(regex) => value.is_some_and(|value| regex.is_match(&decoded(value))),
        ValueTest::MatchesNot(regex) => !value.is_some_and(|v| regex.is_match(&decoded(v))),
        ValueTest::Each => value.is_some(),
        ValueTest::EachSingle => value.is_some_and(|value| !value.is_empty()),
        ValueTest::Absent => value.is_none(),
    }
}

/// The decoded value; on the stack, as long as it is short.
fn decoded(sent: &[u8]) -> SmallVec<[u8; 128]> {
    percent_decode(sent).collect()
}

#[cfg(test)]
mod tests;
