//! `matchers` of a route: of several any must match, of one all parts.

use http::Method;
use regex::{Regex, RegexBuilder};
use serde::Deserialize;

use crate::policy::decode::At;
use crate::policy::findings::Scope;
use crate::policy::gateway_api::route_match::{MAX_REGEX, exact_value, header_name, whole};
use crate::policy::plan::{HeaderMatch, PathMatch, QueryMatch, RouteMatch, ValueMatch};

const MAX_PARTS: usize = 64;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawMatcher {
    prefix: Option<At<String>>,
    exact: Option<At<String>>,
    regex: Option<At<String>>,
    connect_matcher: Option<crate::policy::decode::Unsupported>,
    case_sensitive: Option<At<bool>>,
    headers: Option<At<Vec<At<RawHeader>>>>,
    query_parameters: Option<At<Vec<At<RawParameter>>>>,
    methods: Option<At<Vec<At<String>>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawHeader {
    name: At<String>,
    value: Option<At<String>>,
    regex: Option<bool>,
    invert_match: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct RawParameter {
    name: At<String>,
    value: Option<At<String>>,
    regex: Option<bool>,
}

/// A matcher, checked by itself.
#[derive(Clone, Debug)]
pub(crate) struct Matcher {
    pub(crate) path: PathMatch,
    /// The path as it is written.
    pub(crate) written: String,
    /// Empty: every method.
    pub(crate) methods: Vec<Method>,
    pub(crate) headers: Vec<HeaderMatch>,
    pub(crate) query: Vec<QueryMatch>,
    /// `path` stands for a `prefix` or `exact` path without regard to case.
    pub(crate) any_case: bool,
    /// It is a `prefix`, in any case.
    pub(crate) is_prefix: bool,
    pub(crate) mark: crate::policy::findings::Mark,
}

impl Matcher {
    /// One match for each method.
    pub(crate) fn plan(&self) -> Vec<RouteMatch> {
        let of = |method: Option<&Method>| RouteMatch {
            path: self.path.clone(),
            method: method.cloned(),
            headers: self.headers.clone(),
            query: self.query.clone(),
        };
        if self.methods.is_empty() {
            return vec![of(None)];
        }
        self.methods.iter().map(|method| of(Some(method))).collect()
    }

    /// The beginning that it wants of paths, if that is all it wants of them.
    pub(crate) fn prefix(&self) -> Option<&str> {
        match &self.path {
            PathMatch::StartsWith(prefix) => Some(prefix),
            PathMatch::Exact(_) | PathMatch::Prefix(_) | PathMatch::Regex(_) => None,
        }
    }
}

/// Checks the matchers of a route; without any, it takes every request.
pub(super) fn lower(
    raw: Option<At<Vec<At<RawMatcher>>>>,
    mark: &crate::policy::findings::Mark,
    scope: &mut Scope<'_>,
) -> Vec<Matcher> {
    let Some(list) = raw.filter(|list| !list.is_empty()) else {
        return vec![Matcher {
            path: PathMatch::StartsWith("/".to_owned()),
            written: "/".to_owned(),
            methods: Vec::new(),
            headers: Vec::new(),
            query: Vec::new(),
            any_case: false,
            is_prefix: true,
            mark: mark.clone(),
        }];
    };
    scope.at_most(&list.mark, list.len(), MAX_PARTS);
    list.value
        .into_iter()
        .filter_map(|raw| one(raw, scope))
        .collect()
}

fn one(At { value: raw, mark }: At<RawMatcher>, scope: &mut Scope<'_>) -> Option<Matcher> {
    let _told_by_the_decoder = raw.connect_matcher;
    let ignore_case = raw.case_sensitive.is_some_and(|at| !at.value);
    let any_case = ignore_case && (raw.prefix.is_some() || raw.exact.is_some());
    let is_prefix = raw.prefix.is_some();
    let all = [&raw.prefix, &raw.exact, &raw.regex];
    let written = all.into_iter().flatten().next();
    let written = written.map_or_else(|| "/".to_owned(), |text| text.value.clone());
    let path = match (raw.prefix, raw.exact, raw.regex) {
        (Some(prefix), None, None) => {
            begins_with_slash(&prefix, scope)?;
            if ignore_case {
                PathMatch::Regex(without_case(&format!("{}.*", regex::escape(&prefix)))?)
            } else {
                PathMatch::StartsWith(prefix.value)
            }
        }
        (None, Some(exact), None) => {
            begins_with_slash(&exact, scope)?;
            if ignore_case {
                PathMatch::Regex(without_case(&regex::escape(&exact))?)
            } else {
                PathMatch::Exact(exact.value)
            }
        }
        (None, None, Some(pattern)) => PathMatch::Regex(regex_of(&pattern, scope)?),
        (None, None, None) => PathMatch::StartsWith("/".to_owned()),
        _ => {
            scope.error(
                &mark,
                "a path is matched in one way",
                "keep one of `prefix`, `exact` and `regex`",
            );
            return None;
        }
    };
    Some(Matcher {
        path,
        methods: methods(raw.methods, scope),
        headers: headers(raw.headers, scope),
        query: query(raw.query_parameters, scope),
        any_case,
        is_prefix,
        written,
        mark,
    })
}

fn begins_with_slash(path: &At<String>, scope: &mut Scope<'_>) -> Option<()> {
    if !path.starts_with('/') {
        let message = format!("the path `{}` does not begin with `/`", path.value);
        scope.error(&path.mark, message, format!("write `/{}`", path.value));
        return None;
    }
    Some(())
}

/// An expression for the whole of a path; the text in it is escaped, so that it cannot be wrong.
fn without_case(pattern: &str) -> Option<Regex> {
    RegexBuilder::new(&format!("^(?:{pattern})$"))
        .case_insensitive(true)
        .dot_matches_new_line(true)
        .size_limit(MAX_REGEX)
        .build()
        .ok()
}

fn regex_of(pattern: &At<String>, scope: &mut Scope<'_>) -> Option<Regex> {
    let compile = |text: &str| RegexBuilder::new(text).size_limit(MAX_REGEX).build();
    whole(pattern, scope, compile)
}

fn value(
    text: Option<At<String>>,
    regex: Option<bool>,
    scope: &mut Scope<'_>,
) -> Option<ValueMatch> {
    match text.filter(|text| !text.is_empty()) {
        None => Some(ValueMatch::Present),
        Some(text) if regex == Some(true) => regex_of(&text, scope).map(ValueMatch::Regex),
        Some(text) => exact_value(&text, scope).map(ValueMatch::Exact),
    }
}

fn headers(raw: Option<At<Vec<At<RawHeader>>>>, scope: &mut Scope<'_>) -> Vec<HeaderMatch> {
    let Some(list) = raw else {
        return Vec::new();
    };
    scope.at_most(&list.mark, list.len(), MAX_PARTS);
    let mut headers = Vec::new();
    for At { value: raw, .. } in list.value {
        if raw.name.starts_with(':') {
            scope.error(
                &raw.name.mark,
                format!("the pseudo header `{}` is not matched here", raw.name.value),
                "use `methods`, the path of the matcher, or the domains of the virtual host",
            );
            continue;
        }
        let name = header_name(&raw.name, scope);
        if let (Some(name), Some(value)) = (name, value(raw.value, raw.regex, scope)) {
            headers.push(HeaderMatch {
                name,
                value,
                invert: raw.invert_match.unwrap_or_default(),
            });
        }
    }
    headers
}

fn query(raw: Option<At<Vec<At<RawParameter>>>>, scope: &mut Scope<'_>) -> Vec<QueryMatch> {
    let Some(list) = raw else {
        return Vec::new();
    };
    scope.at_most(&list.mark, list.len(), MAX_PARTS);
    let mut query = Vec::new();
    for At { value: raw, .. } in list.value {
        if raw.name.is_empty() {
            scope.error(&raw.name.mark, "a parameter has a name", "write it");
            continue;
        }
        if let Some(value) = value(raw.value, raw.regex, scope) {
            let name = raw.name.value;
            query.push(QueryMatch { name, value });
        }
    }
    query
}

fn methods(raw: Option<At<Vec<At<String>>>>, scope: &mut Scope<'_>) -> Vec<Method> {
    let Some(list) = raw else {
        return Vec::new();
    };
    scope.at_most(&list.mark, list.len(), MAX_PARTS);
    let mut methods = Vec::new();
    for text in list.value {
        match Method::from_bytes(text.as_bytes()) {
            Ok(method) if methods.contains(&method) => {}
            Ok(method) => methods.push(method),
            Err(_error) => {
                let message = format!("`{}` is not a method", text.value);
                scope.error(&text.mark, message, "write one, as `GET`");
            }
        }
    }
    methods
}
