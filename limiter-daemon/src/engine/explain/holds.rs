//! Whether a condition holds for a request, and why not.

use std::borrow::Cow;
use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use super::words;
use crate::engine::condition::Matcher;
use crate::engine::request::RequestView;
use crate::policy::plan::{Condition, PathMatch, ValueTest};

/// Why a condition does not hold. Cheap to make; the words come when it is shown.
#[derive(Clone, Copy, Debug)]
pub enum Why<'a> {
    /// The value that is asked for is not there.
    Absent(Subject<'a>),
    /// It is there, and should not be.
    Present(Subject<'a>),
    /// It has another value.
    Differs(Subject<'a>, &'a ValueTest),
    /// It has just the value that it should not have.
    Same(Subject<'a>, &'a ValueTest),
    Method(&'a Condition),
    Path(&'a Condition),
    Source(&'a Condition),
    /// It does not hold as a whole.
    Whole(&'a Condition),
}

/// What a test looks at.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    Header(&'a HeaderName),
    Query(&'a str),
}

/// Whether `condition` holds for `request`, as it is decided.
///
/// # Errors
/// Why not.
pub fn holds<'a>(condition: &'a Condition, request: &RequestView<'_>) -> Result<(), Why<'a>> {
    if Matcher::compile(condition).holds(request) {
        return Ok(());
    }
    Err(look(condition, request)
        .err()
        .unwrap_or(Why::Whole(condition)))
}

/// Looks for the reason.
pub(super) fn look<'a>(condition: &'a Condition, request: &RequestView<'_>) -> Result<(), Why<'a>> {
    match condition {
        Condition::Header { name, test } => {
            let value = header_value(request.headers, name);
            let several = request.headers.get_all(name).iter().count() > 1;
            if several && matches!(test, ValueTest::EachSingle) {
                return Err(Why::Differs(Subject::Header(name), test));
            }
            tested(Subject::Header(name), test, value.as_deref())
        }
        Condition::Query { name, test } => {
            let value = query_value(request.query, name);
            tested(Subject::Query(name), test, value.as_deref())
        }
        Condition::Method(any) => any
            .iter()
            .any(|(method, invert)| (method == request.method) != *invert)
            .then_some(())
            .ok_or(Why::Method(condition)),
        Condition::Path { path, invert } => (path_matches(path, request.path) != *invert)
            .then_some(())
            .ok_or(Why::Path(condition)),
        Condition::Source { nets, invert, .. } => {
            let within = nets.is_empty() || nets.iter().any(|net| net.contains(&request.client));
            (within != *invert)
                .then_some(())
                .ok_or(Why::Source(condition))
        }
    }
}

fn tested<'a>(
    subject: Subject<'a>,
    test: &'a ValueTest,
    value: Option<&[u8]>,
) -> Result<(), Why<'a>> {
    let (same, wanted) = match test {
        ValueTest::Is(wanted) => (value.map(|value| value == wanted.as_bytes()), true),
        ValueTest::IsNot(wanted) => (value.map(|value| value == wanted.as_bytes()), false),
        ValueTest::Matches(regex) => (value.map(|value| regex.is_match(value)), true),
        ValueTest::MatchesNot(regex) => (value.map(|value| regex.is_match(value)), false),
        ValueTest::Each if value.is_some() => return Ok(()),
        ValueTest::Each => return Err(Why::Absent(subject)),
        ValueTest::EachSingle => (value.map(|value| !value.is_empty()), true),
        ValueTest::Absent if value.is_none() => return Ok(()),
        ValueTest::Absent => return Err(Why::Present(subject)),
    };
    match same {
        Some(same) if same == wanted => Ok(()),
        Some(true) => Err(Why::Same(subject, test)),
        Some(false) => Err(Why::Differs(subject, test)),
        None if wanted => Err(Why::Absent(subject)),
        None => Ok(()),
    }
}

/// The value of a header, its lines joined by commas (RFC 9110 section 5.3); `None`: absent.
pub(super) fn header_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    joined(
        headers
            .get_all(name)
            .iter()
            .map(|line| Cow::Borrowed(HeaderValue::as_bytes(line))),
    )
}

/// The value of a query parameter, percent-decoded, the first of several; `None`: absent.
pub(super) fn query_value<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, [u8]>> {
    query_values(query, name).next()
}

/// The values of a query parameter, percent-decoded, in their order.
pub(super) fn query_values<'a>(
    query: Option<&'a str>,
    name: &str,
) -> impl Iterator<Item = Cow<'a, [u8]>> {
    query
        .unwrap_or_default()
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(move |(key, _)| percent_decode_str(key).eq(name.bytes()))
        .map(|(_, value)| percent_decode_str(value).into())
}

fn joined<'a>(mut values: impl Iterator<Item = Cow<'a, [u8]>>) -> Option<Cow<'a, [u8]>> {
    let mut all = values.next()?;
    for value in values {
        let all = all.to_mut();
        all.push(b',');
        all.extend_from_slice(&value);
    }
    Some(all)
}

pub(super) fn path_matches(wanted: &PathMatch, path: &str) -> bool {
    match wanted {
        PathMatch::Exact(exact) => exact == path,
        PathMatch::Prefix(prefix) => path
            .strip_prefix(prefix.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        PathMatch::StartsWith(text) => path.starts_with(text.as_str()),
        PathMatch::Regex(regex) => regex.is_match(path),
    }
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header {name}"),
            Self::Query(name) => write!(f, "query parameter {}", words::clean(name)),
        }
    }
}

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |subject: &Subject<'_>, test: &ValueTest| words::value(*subject, test);
        match self {
            Self::Absent(subject) => write!(f, "{subject} is absent"),
            Self::Present(subject) => write!(f, "{subject} is present"),
            Self::Differs(subject, test) => {
                let verb = if matches!(test, ValueTest::Matches(_)) {
                    "does not match"
                } else {
                    "is not"
                };
                write!(f, "{subject} {verb} {}", value(subject, test))
            }
            Self::Same(subject, test) => {
                let verb = if matches!(test, ValueTest::MatchesNot(_)) {
                    "matches"
                } else {
                    "is"
                };
                write!(f, "{subject} {verb} {}", value(subject, test))
            }
            Self::Whole(condition) => write!(f, "not so: {}", words::condition(condition)),
            Self::Method(condition) | Self::Path(condition) | Self::Source(condition) => {
                f.write_str(&words::denial(condition))
            }
        }
    }
}
