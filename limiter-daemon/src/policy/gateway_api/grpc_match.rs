//! `matches` of a GRPCRoute: a call's service and method are the path of its request.

use http::Method;
use regex::{Regex, RegexBuilder};
use serde::Deserialize;

use super::route_match::{self, MAX_REGEX, RawHeader};
use crate::policy::decode::At;
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::{PathMatch, RouteMatch};

#[derive(Debug, Deserialize)]
pub(crate) struct RawMatch {
    method: Option<At<RawMethod>>,
    headers: Option<At<Vec<RawHeader>>>,
}

#[derive(Debug, Deserialize)]
struct RawMethod {
    #[serde(rename = "type")]
    kind: Option<MethodKind>,
    service: Option<At<String>>,
    method: Option<At<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum MethodKind {
    Exact,
    RegularExpression,
}

/// Checks a match; `None` after an error.
pub(crate) fn lower(raw: RawMatch, scope: &mut Scope<'_>) -> Option<RouteMatch> {
    let path = match raw.method {
        Some(method) => path(method, scope),
        None => Some(PathMatch::Prefix(String::new())),
    };
    let headers = route_match::lower_headers(raw.headers, scope);
    Some(RouteMatch {
        path: path?,
        method: Some(Method::POST),
        headers,
        query: Vec::new(),
    })
}

fn path(raw: At<RawMethod>, scope: &mut Scope<'_>) -> Option<PathMatch> {
    let At { value: raw, mark } = raw;
    let given = |part: Option<At<String>>| part.filter(|text| !text.is_empty());
    let (service, method) = (given(raw.service), given(raw.method));
    let exact = raw.kind != Some(MethodKind::RegularExpression);
    if exact {
        for part in [&service, &method].into_iter().flatten() {
            check_name(part, scope)?;
        }
    } else {
        for part in [&service, &method].into_iter().flatten() {
            route_match::whole(part, scope, compile)?;
        }
    }
    match (service, method) {
        (None, None) => {
            scope.error(
                &mark,
                "neither a service nor a method",
                "give it `service` or `method`, or remove it",
            );
            None
        }
        (Some(service), Some(method)) if exact => Some(PathMatch::Exact(format!(
            "/{}/{}",
            service.value, method.value
        ))),
        (Some(service), None) if exact => Some(PathMatch::Prefix(format!("/{}", service.value))),
        (service, method) => {
            let part = |text: Option<At<String>>| match text {
                Some(text) if exact => regex::escape(&text),
                Some(text) => format!("(?:{})", text.value),
                None => "[^/]+".to_owned(),
            };
            expression(
                &format!("/{}/{}", part(service), part(method)),
                &mark,
                scope,
            )
        }
    }
}

fn compile(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text).size_limit(MAX_REGEX).build()
}

fn expression(text: &str, mark: &Mark, scope: &mut Scope<'_>) -> Option<PathMatch> {
    match compile(&format!("^{text}$")) {
        Ok(regex) => Some(PathMatch::Regex(regex)),
        Err(error) => {
            let message = format!("the expressions of service and method are too large: {error}");
            scope.error(mark, message, "write shorter ones");
            None
        }
    }
}

/// Names as Protocol Buffers has them: what is between slashes of the path.
fn check_name(text: &At<String>, scope: &mut Scope<'_>) -> Option<()> {
    let valid = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.');
    if !valid {
        scope.error(
            &text.mark,
            format!(
                "`{}` is not the name of a gRPC service or method",
                text.value
            ),
            "write one, as `shop.v1.Orders`, or `type: RegularExpression`",
        );
    }
    valid.then_some(())
}
