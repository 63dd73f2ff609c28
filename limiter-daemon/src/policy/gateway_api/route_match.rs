//! `matches` of an HTTPRoute.

use http::{HeaderName, HeaderValue, Method};
use regex::{Regex, RegexBuilder};
use serde::Deserialize;

use crate::policy::decode::At;
use crate::policy::findings::Scope;
use crate::policy::plan::{HeaderMatch, PathMatch, QueryMatch, RouteMatch, ValueMatch};

const MAX_HEADERS: usize = 16;
const MAX_QUERY: usize = 16;
const MAX_PATH: usize = 1024;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawMatch {
    path: Option<At<RawPath>>,
    method: Option<RawMethod>,
    headers: Option<At<Vec<RawHeader>>>,
    query_params: Option<At<Vec<RawHeader>>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RawPath {
    #[serde(rename = "type")]
    pub(crate) kind: Option<PathKind>,
    pub(crate) value: Option<At<String>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) enum PathKind {
    Exact,
    PathPrefix,
    RegularExpression,
}

/// A header, or a parameter of the query.
#[derive(Debug, Deserialize)]
pub(super) struct RawHeader {
    #[serde(rename = "type")]
    kind: Option<HeaderKind>,
    name: At<String>,
    value: At<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum HeaderKind {
    Exact,
    RegularExpression,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum RawMethod {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
}

impl RawMethod {
    const fn method(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Head => Method::HEAD,
            Self::Post => Method::POST,
            Self::Put => Method::PUT,
            Self::Delete => Method::DELETE,
            Self::Connect => Method::CONNECT,
            Self::Options => Method::OPTIONS,
            Self::Trace => Method::TRACE,
            Self::Patch => Method::PATCH,
        }
    }
}

/// What a rule without matches matches: every path.
pub(crate) const fn every_request() -> RouteMatch {
    RouteMatch {
        path: PathMatch::Prefix(String::new()),
        method: None,
        headers: Vec::new(),
        query: Vec::new(),
    }
}

/// Checks a match; `None` after an error.
pub(crate) fn lower(raw: RawMatch, scope: &mut Scope<'_>) -> Option<RouteMatch> {
    let path = match raw.path {
        Some(path) => lower_path(path.value, scope),
        None => Some(every_request().path),
    };
    let headers = lower_headers(raw.headers, scope);
    let query = lower_query(raw.query_params, scope);
    Some(RouteMatch {
        path: path?,
        method: raw.method.map(RawMethod::method),
        headers,
        query,
    })
}

/// Headers that must match, each name once.
pub(super) fn lower_headers(
    raw: Option<At<Vec<RawHeader>>>,
    scope: &mut Scope<'_>,
) -> Vec<HeaderMatch> {
    let mut headers: Vec<HeaderMatch> = Vec::new();
    let Some(list) = raw else {
        return headers;
    };
    scope.at_most(&list.mark, list.len(), MAX_HEADERS);
    for header in list.value {
        let (Some(name), Some(value)) = (
            header_name(&header.name, scope),
            header_value(&header, scope),
        ) else {
            continue;
        };
        if headers.iter().any(|other| other.name == name) {
            let message = format!("the header `{name}` is given twice in one match");
            scope.error(&header.name.mark, message, "keep one of them");
        }
        headers.push(HeaderMatch {
            name,
            value,
            invert: false,
        });
    }
    headers
}

fn lower_query(raw: Option<At<Vec<RawHeader>>>, scope: &mut Scope<'_>) -> Vec<QueryMatch> {
    let mut query: Vec<QueryMatch> = Vec::new();
    let Some(list) = raw else {
        return query;
    };
    scope.at_most(&list.mark, list.len(), MAX_QUERY);
    for parameter in list.value {
        let name = parameter.name.value.clone();
        if name.is_empty() || query.iter().any(|other| other.name == name) {
            let message = format!("the parameter `{name}` is empty, or given twice in one match");
            scope.error(&parameter.name.mark, message, "keep one of them");
        }
        if let Some(value) = header_value(&parameter, scope) {
            query.push(QueryMatch { name, value });
        }
    }
    query
}

/// Checks a path; `None` after an error.
pub(crate) fn lower_path(raw: RawPath, scope: &mut Scope<'_>) -> Option<PathMatch> {
    let kind = raw.kind.unwrap_or(PathKind::PathPrefix);
    let Some(value) = raw.value else {
        return Some(match kind {
            PathKind::Exact => PathMatch::Exact("/".to_owned()),
            PathKind::PathPrefix => PathMatch::Prefix(String::new()),
            PathKind::RegularExpression => PathMatch::Regex(regex_of(None, scope)?),
        });
    };
    if value.len() > MAX_PATH {
        scope.error(
            &value.mark,
            "the path is too long",
            format!("at most {MAX_PATH} bytes are allowed"),
        );
        return None;
    }
    match kind {
        PathKind::RegularExpression => regex_of(Some(&value), scope).map(PathMatch::Regex),
        PathKind::Exact => check_path(&value, scope).then(|| PathMatch::Exact(value.value)),
        PathKind::PathPrefix => check_path(&value, scope)
            .then(|| PathMatch::Prefix(value.strip_suffix('/').unwrap_or(&value).to_owned())),
    }
}

/// Paths are compared after normalisation, so one that is not normal would match nothing.
fn check_path(path: &At<String>, scope: &mut Scope<'_>) -> bool {
    if !path.starts_with('/') {
        let message = format!("the path `{}` does not begin with `/`", path.value);
        scope.error(&path.mark, message, format!("write `/{}`", path.value));
        return false;
    }
    let inside = ["//", "/./", "/../", "%2f", "%2F", "#", "?"]
        .into_iter()
        .find(|part| path.contains(part));
    let at_end = ["/.", "/.."].into_iter().find(|part| path.ends_with(part));
    if let Some(part) = inside.or(at_end) {
        let message = format!(
            "the path `{}` contains `{part}` and would never match",
            path.value
        );
        scope.error(
            &path.mark,
            message,
            "write a normalised path without a query",
        );
        return false;
    }
    if path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        scope.error(
            &path.mark,
            "a path has no spaces or control characters",
            "write it percent-encoded",
        );
        return false;
    }
    true
}

fn header_value(header: &RawHeader, scope: &mut Scope<'_>) -> Option<ValueMatch> {
    match header.kind.unwrap_or(HeaderKind::Exact) {
        HeaderKind::Exact => exact_value(&header.value, scope).map(ValueMatch::Exact),
        HeaderKind::RegularExpression => {
            regex_of(Some(&header.value), scope).map(ValueMatch::Regex)
        }
    }
}

/// A header's name; an error if it is none.
pub(crate) fn header_name(name: &At<String>, scope: &mut Scope<'_>) -> Option<HeaderName> {
    let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
    if parsed.is_none() {
        let message = format!("`{}` is not the name of a header", name.value);
        scope.error(&name.mark, message, "write letters, digits and `-`");
    }
    parsed
}

/// A header's value; an error if no header can have it.
pub(crate) fn exact_value(value: &At<String>, scope: &mut Scope<'_>) -> Option<HeaderValue> {
    let trimmed = value.trim_matches([' ', '\t']) == value.value;
    let parsed = HeaderValue::from_str(value)
        .ok()
        .filter(|_| trimmed && !value.is_empty());
    if parsed.is_none() {
        let message = format!("no header has the value `{}`", value.value);
        scope.error(
            &value.mark,
            message,
            "write visible characters, without spaces around them",
        );
    }
    parsed
}

/// Bytes that an expression may take when compiled.
pub(crate) const MAX_REGEX: usize = 1 << 20;

/// The expression as a match of the whole text; an absent one matches everything.
fn regex_of(pattern: Option<&At<String>>, scope: &mut Scope<'_>) -> Option<Regex> {
    let compile = |text: &str| RegexBuilder::new(text).size_limit(MAX_REGEX).build();
    match pattern {
        Some(pattern) => whole(pattern, scope, compile),
        None => compile(".*").ok(),
    }
}

/// An expression that must match the whole text, compiled by `compile`; or an error at it.
pub(crate) fn whole<R>(
    pattern: &At<String>,
    scope: &mut Scope<'_>,
    compile: impl Fn(&str) -> Result<R, regex::Error>,
) -> Option<R> {
    // Alone first: `a)(b` is wrong, but not between brackets.
    match compile(pattern).and_then(|_| compile(&format!("^(?:{})$", pattern.value))) {
        Ok(regex) => Some(regex),
        Err(error) => {
            scope.error(
                &pattern.mark,
                format!("not a regular expression: {}", reason(&error)),
                "write RE2 syntax",
            );
            None
        }
    }
}

/// The last line of what the parser says, which is the reason; before it stands a drawing.
fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default().trim();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}
