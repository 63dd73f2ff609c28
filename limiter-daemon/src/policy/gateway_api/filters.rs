//! `filters` of a rule or of one of its backends.

use http::{HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;

use super::hostname;
use super::references::RawObjectRef;
use super::route::{self, Destination};
use super::route_match::header_name;
use crate::policy::decode::{At, Ignored, Unsupported};
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::{Filters, HeaderChanges, PathRewrite, Redirect, Rewrite, RouteKind};
use crate::policy::resource::Meta;

const MAX_FILTERS: usize = 16;
const MAX_HEADERS: usize = 64;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
pub(crate) struct RawFilter {
    #[serde(rename = "type")]
    kind: At<FilterKind>,
    request_header_modifier: Option<At<RawModifier>>,
    response_header_modifier: Option<At<RawModifier>>,
    request_mirror: Option<At<RawMirror>>,
    request_redirect: Option<At<RawRedirect>>,
    url_rewrite: Option<At<RawRewrite>>,
    cors: Option<Unsupported>,
    external_auth: Option<Unsupported>,
    extension_ref: Option<Ignored>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum FilterKind {
    RequestHeaderModifier,
    ResponseHeaderModifier,
    RequestMirror,
    RequestRedirect,
    #[serde(rename = "URLRewrite")]
    UrlRewrite,
    ExtensionRef,
    #[serde(rename = "CORS")]
    Cors,
    ExternalAuth,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RawModifier {
    set: Option<At<Vec<RawHeader>>>,
    add: Option<At<Vec<RawHeader>>>,
    remove: Option<At<Vec<At<String>>>>,
}

#[derive(Debug, Deserialize)]
struct RawHeader {
    name: At<String>,
    value: At<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMirror {
    backend_ref: At<RawMirrorRef>,
    percent: Option<At<u32>>,
    fraction: Option<At<RawFraction>>,
}

#[derive(Debug, Deserialize)]
struct RawMirrorRef {
    group: Option<At<String>>,
    kind: Option<At<String>>,
    name: At<String>,
    namespace: Option<At<String>>,
    port: Option<At<u16>>,
}

#[derive(Debug, Deserialize)]
struct RawFraction {
    numerator: u32,
    denominator: Option<At<u32>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawRedirect {
    scheme: Option<At<Scheme>>,
    hostname: Option<At<String>>,
    path: Option<At<RawPath>>,
    port: Option<At<u16>>,
    status_code: Option<At<u16>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Scheme {
    Http,
    Https,
}

#[derive(Debug, Deserialize)]
struct RawRewrite {
    hostname: Option<At<String>>,
    path: Option<At<RawPath>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPath {
    #[serde(rename = "type")]
    kind: PathKind,
    replace_full_path: Option<At<String>>,
    replace_prefix_match: Option<At<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum PathKind {
    ReplaceFullPath,
    ReplacePrefixMatch,
}

/// The filters, with the references of mirrors.
#[derive(Clone, Debug, Default)]
pub(crate) struct LoweredFilters {
    /// Without mirrors.
    pub(crate) plan: Filters,
    pub(crate) mirrors: Vec<Mirror>,
}

#[derive(Clone, Debug)]
pub(crate) struct Mirror {
    pub(crate) to: Destination,
    pub(crate) numerator: u32,
    pub(crate) denominator: u32,
}

/// Checks the filters of a rule.
pub(super) fn lower(
    raw: Option<At<Vec<At<RawFilter>>>>,
    route: RouteKind,
    meta: &Meta,
    scope: &mut Scope<'_>,
) -> LoweredFilters {
    let mut filters = LoweredFilters::default();
    let Some(list) = raw else {
        return filters;
    };
    scope.at_most(&list.mark, list.len(), MAX_FILTERS);
    let mut seen: Vec<FilterKind> = Vec::new();
    for At { value: raw, mark } in list.value {
        let kind = raw.kind.value;
        if kind != FilterKind::RequestMirror && seen.contains(&kind) {
            scope.error(
                &raw.kind.mark,
                format!("a second filter of the type `{kind:?}`"),
                "join the two",
            );
        }
        seen.push(kind);
        let of_http = matches!(kind, FilterKind::RequestRedirect | FilterKind::UrlRewrite);
        if of_http && route == RouteKind::Grpc {
            scope.error(
                &raw.kind.mark,
                format!("a GRPCRoute has no filter of the type `{kind:?}`"),
                "remove it",
            );
        }
        filter(raw, &mark, meta, &mut filters, scope);
    }
    if let (Some(_), Some(_)) = (&filters.plan.redirect, &filters.plan.rewrite) {
        scope.error(
            &list.mark,
            "both a redirect and a rewrite",
            "keep one of them",
        );
    }
    filters
}

/// Checks the filters of a backend, which are those that change what goes to it.
pub(super) fn lower_of_backend(
    raw: At<Vec<At<RawFilter>>>,
    route: RouteKind,
    meta: &Meta,
    scope: &mut Scope<'_>,
) -> LoweredFilters {
    for filter in &raw.value {
        let kind = filter.value.kind.value;
        if matches!(
            kind,
            FilterKind::RequestRedirect | FilterKind::RequestMirror
        ) {
            scope.error(
                &filter.value.kind.mark,
                format!("a filter of the type `{kind:?}` is not supported on a backend"),
                "put it into the `filters` of the rule",
            );
        }
    }
    lower(Some(raw), route, meta, scope)
}

fn filter(
    raw: RawFilter,
    mark: &Mark,
    meta: &Meta,
    filters: &mut LoweredFilters,
    scope: &mut Scope<'_>,
) {
    let mut absent = |field: &str| {
        scope.error(
            mark,
            format!("`{field}` is missing"),
            format!("a filter of the type `{:?}` has it", raw.kind.value),
        );
    };
    match raw.kind.value {
        FilterKind::RequestHeaderModifier => match raw.request_header_modifier {
            Some(modifier) => filters.plan.request_headers = changes(modifier, scope),
            None => absent("requestHeaderModifier"),
        },
        FilterKind::ResponseHeaderModifier => match raw.response_header_modifier {
            Some(modifier) => filters.plan.response_headers = changes(modifier, scope),
            None => absent("responseHeaderModifier"),
        },
        FilterKind::RequestMirror => match raw.request_mirror {
            Some(raw) => filters.mirrors.extend(mirror(raw, meta, scope)),
            None => absent("requestMirror"),
        },
        FilterKind::RequestRedirect => match raw.request_redirect {
            Some(raw) => filters.plan.redirect = Some(redirect(raw.value, scope)),
            None => absent("requestRedirect"),
        },
        FilterKind::UrlRewrite => match raw.url_rewrite {
            Some(raw) => filters.plan.rewrite = Some(rewrite(raw, scope)),
            None => absent("urlRewrite"),
        },
        FilterKind::ExtensionRef | FilterKind::Cors | FilterKind::ExternalAuth => scope.error(
            &raw.kind.mark,
            format!(
                "filters of the type `{:?}` are not supported yet",
                raw.kind.value
            ),
            "remove it: limiterd would not apply it",
        ),
    }
}

/// Checks changes of headers.
pub(crate) fn changes(raw: At<RawModifier>, scope: &mut Scope<'_>) -> HeaderChanges {
    let At { value: raw, mark } = raw;
    if raw.set.is_none() && raw.add.is_none() && raw.remove.is_none() {
        scope.error(
            &mark,
            "it changes nothing",
            "give it `set`, `add` or `remove`",
        );
    }
    HeaderChanges {
        set: headers(raw.set, scope),
        add: headers(raw.add, scope),
        remove: removed(raw.remove, scope),
    }
}

fn headers(
    raw: Option<At<Vec<RawHeader>>>,
    scope: &mut Scope<'_>,
) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
    let Some(list) = raw else {
        return headers;
    };
    scope.at_most(&list.mark, list.len(), MAX_HEADERS);
    for header in list.value {
        let Some(name) = header_name(&header.name, scope) else {
            continue;
        };
        if headers.iter().any(|(other, _)| *other == name) {
            scope.error(
                &header.name.mark,
                format!("the header `{name}` is given twice"),
                "keep one of them",
            );
        }
        match HeaderValue::from_str(&header.value) {
            Ok(value) => headers.push((name, value)),
            Err(_error) => scope.error(
                &header.value.mark,
                format!("no header has the value `{}`", header.value.value),
                "write visible characters",
            ),
        }
    }
    headers
}

fn removed(raw: Option<At<Vec<At<String>>>>, scope: &mut Scope<'_>) -> Vec<HeaderName> {
    let Some(list) = raw else {
        return Vec::new();
    };
    scope.at_most(&list.mark, list.len(), MAX_HEADERS);
    list.value
        .iter()
        .filter_map(|name| header_name(name, scope))
        .collect()
}

fn mirror(raw: At<RawMirror>, meta: &Meta, scope: &mut Scope<'_>) -> Option<Mirror> {
    let At { value: raw, mark } = raw;
    let (numerator, denominator) = match (raw.percent, raw.fraction) {
        (Some(_), Some(_)) => {
            scope.error(
                &mark,
                "both `percent` and `fraction` are given",
                "keep one of them",
            );
            (0, 1)
        }
        (Some(percent), None) => {
            if percent.value > 100 {
                scope.error(
                    &percent.mark,
                    format!("{} is out of range", percent.value),
                    "it may be 0 to 100",
                );
            }
            (percent.value, 100)
        }
        (None, Some(fraction)) => {
            let At { value, mark } = fraction;
            let denominator = value.denominator.map_or(100, |at| at.value);
            if denominator == 0 || value.numerator > denominator {
                scope.error(
                    &mark,
                    format!("{} of {denominator} is no share", value.numerator),
                    "write a numerator of at most the denominator, which is not 0",
                );
            }
            (value.numerator, denominator.max(1))
        }
        (None, None) => (1, 1),
    };
    let reference = raw.backend_ref.value;
    let to = RawObjectRef {
        group: reference.group,
        kind: reference.kind,
        name: reference.name,
        namespace: reference.namespace,
    };
    Some(Mirror {
        to: route::destination(to, reference.port, meta, scope)?,
        numerator,
        denominator,
    })
}

/// Checks a redirect.
pub(crate) fn redirect(raw: RawRedirect, scope: &mut Scope<'_>) -> Redirect {
    let status = match raw.status_code {
        Some(at) if [301, 302, 303, 307, 308].contains(&at.value) => {
            StatusCode::from_u16(at.value).unwrap_or(StatusCode::FOUND)
        }
        Some(at) => {
            scope.error(
                &at.mark,
                format!("{} is not a redirect", at.value),
                "it may be 301, 302, 303, 307 or 308",
            );
            StatusCode::FOUND
        }
        None => StatusCode::FOUND,
    };
    if let Some(port) = raw.port.as_ref().filter(|port| port.value == 0) {
        scope.error(&port.mark, "0 is no port", "write 1 to 65535");
    }
    Redirect {
        scheme: raw.scheme.map(|at| match at.value {
            Scheme::Http => "http".to_owned(),
            Scheme::Https => "https".to_owned(),
        }),
        hostname: raw.hostname.and_then(|text| host(&text, scope)),
        path: raw.path.and_then(|path| path_rewrite(path, scope)),
        port: raw.port.map(|port| port.value),
        status,
    }
}

fn rewrite(raw: At<RawRewrite>, scope: &mut Scope<'_>) -> Rewrite {
    let At { value: raw, mark } = raw;
    if raw.hostname.is_none() && raw.path.is_none() {
        scope.error(&mark, "it rewrites nothing", "give it `hostname` or `path`");
    }
    Rewrite {
        hostname: raw
            .hostname
            .and_then(|text| host(&text, scope))
            .and_then(|name| HeaderValue::from_str(&name).ok()),
        path: raw.path.and_then(|path| path_rewrite(path, scope)),
    }
}

/// A precise hostname, in lower case.
fn host(text: &At<String>, scope: &mut Scope<'_>) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let valid = hostname::is_domain(&lower);
    if !valid {
        scope.error(
            &text.mark,
            format!("`{}` is not a hostname", text.value),
            "write a name, as `api.example.com`",
        );
    }
    valid.then_some(lower)
}

fn path_rewrite(raw: At<RawPath>, scope: &mut Scope<'_>) -> Option<PathRewrite> {
    let At { value: raw, mark } = raw;
    let (kind, text, field) = match raw.kind {
        PathKind::ReplaceFullPath => (
            PathRewrite::Full as fn(String) -> PathRewrite,
            raw.replace_full_path,
            "replaceFullPath",
        ),
        PathKind::ReplacePrefixMatch => (
            PathRewrite::Prefix as fn(String) -> PathRewrite,
            raw.replace_prefix_match,
            "replacePrefixMatch",
        ),
    };
    let Some(text) = text else {
        scope.error(
            &mark,
            format!("`{field}` is missing"),
            format!("a rewrite of the type `{:?}` has it", raw.kind),
        );
        return None;
    };
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'?' && byte != b'#');
    let absolute =
        text.starts_with('/') || (text.is_empty() && raw.kind == PathKind::ReplacePrefixMatch);
    if !plain || !absolute {
        scope.error(
            &text.mark,
            format!("`{}` is not a path", text.value),
            "begin it with `/`, without a query",
        );
        return None;
    }
    Some(kind(text.value))
}
