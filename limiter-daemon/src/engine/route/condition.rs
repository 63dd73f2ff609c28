//! What a request must be like to match.

use http::{HeaderMap, HeaderValue};
use percent_encoding::percent_decode_str;

use crate::engine::request::RequestView;
use crate::policy::plan::{HeaderMatch, PathMatch, QueryMatch, RouteMatch, ValueMatch};

impl RouteMatch {
    /// Everything but the path.
    pub(super) fn matches_beside_path(&self, request: &RequestView<'_>) -> bool {
        self.method
            .as_ref()
            .is_none_or(|wanted| wanted == request.method)
            && self.headers.iter().all(|h| h.matches(request.headers))
            && self.query.iter().all(|q| q.matches(request.query))
    }
}

impl PathMatch {
    /// Whether `path`, without the query, matches.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(wanted) => wanted == path,
            Self::Prefix(prefix) => path
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            Self::StartsWith(text) => path.starts_with(text.as_str()),
            Self::Regex(regex) => regex.is_match(path),
        }
    }
}

impl HeaderMatch {
    /// Of several lines of one header, any may match.
    fn matches(&self, headers: &HeaderMap) -> bool {
        let any = headers
            .get_all(&self.name)
            .iter()
            .any(|value| match &self.value {
                ValueMatch::Present => true,
                ValueMatch::Exact(wanted) => wanted == value,
                ValueMatch::Regex(regex) => value.to_str().is_ok_and(|value| regex.is_match(value)),
            });
        any != self.invert
    }
}

impl QueryMatch {
    fn matches(&self, query: Option<&str>) -> bool {
        let Some(value) = query.and_then(|query| parameter(query, &self.name)) else {
            return false;
        };
        match &self.value {
            ValueMatch::Present => true,
            ValueMatch::Exact(wanted) => percent_decode_str(value).eq(bytes(wanted)),
            ValueMatch::Regex(regex) => percent_decode_str(value)
                .decode_utf8()
                .is_ok_and(|value| regex.is_match(&value)),
        }
    }
}

fn bytes(value: &HeaderValue) -> impl Iterator<Item = u8> {
    value.as_bytes().iter().copied()
}

/// The first value of `name` in `query`, as it was sent.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        percent_decode_str(key).eq(name.bytes()).then_some(value)
    })
}
