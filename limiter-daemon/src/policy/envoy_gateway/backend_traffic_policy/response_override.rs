//! `responseOverride`: answers in place of others.

use std::ops::RangeInclusive;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;

use super::merge::whole;
use super::numbers::{self, STATUSES};
use crate::policy::decode::{At, Unsupported};
use crate::policy::findings::{Mark, Scope};
use crate::policy::gateway_api::filters::{self, RawModifier, RawRedirect};
use crate::policy::plan::{HeaderChanges, PathRewrite, Redirect, ResponseSource};
use crate::policy::resource::{Meta, Name};

const MAX_OVERRIDES: usize = 64;
const MAX_STATUSES: usize = 50;
/// Of a body, in bytes.
pub(crate) const MAX_BODY: usize = 1 << 16;
const FINAL: RangeInclusive<u16> = 200..=599;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawOverride {
    #[serde(rename = "match")]
    matches: RawMatch,
    source: Option<RawSource>,
    response: Option<At<RawResponse>>,
    redirect: Option<At<RawRedirect>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum RawSource {
    Local,
    Backend,
    All,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawMatch {
    status_codes: At<Vec<At<RawStatus>>>,
    response_headers: Option<Unsupported>,
}

#[derive(Debug, Deserialize)]
struct RawStatus {
    #[serde(rename = "type")]
    kind: Option<StatusKind>,
    value: Option<At<u16>>,
    range: Option<At<RawRange>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum StatusKind {
    Value,
    Range,
}

#[derive(Debug, Deserialize)]
struct RawRange {
    start: At<u16>,
    end: At<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawResponse {
    content_type: Option<At<String>>,
    status_code: Option<At<u16>>,
    body: Option<At<RawBody>>,
    header: Option<At<RawModifier>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawBody {
    #[serde(rename = "type")]
    kind: Option<BodyKind>,
    inline: Option<At<String>>,
    value_ref: Option<At<RawValueRef>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum BodyKind {
    Inline,
    ValueRef,
}

#[derive(Debug, Deserialize)]
struct RawValueRef {
    group: Option<At<String>>,
    kind: Option<At<String>>,
    name: At<String>,
}

/// An override, with a reference for its body.
#[derive(Clone, Debug)]
pub(crate) struct Override {
    pub(crate) statuses: Vec<RangeInclusive<u16>>,
    pub(crate) source: ResponseSource,
    pub(crate) with: Replacement,
}

#[derive(Clone, Debug)]
pub(crate) enum Replacement {
    Response(Box<Response>),
    Redirect(Redirect),
}

#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: Option<StatusCode>,
    pub(crate) content_type: Option<HeaderValue>,
    pub(crate) body: Option<Body>,
    pub(crate) headers: HeaderChanges,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    Inline(Bytes),
    /// Of a ConfigMap: `response.body`, or else what comes first.
    ConfigMap(Name, Mark),
}

whole!(Vec<Override>);

/// Checks `responseOverride`.
pub(super) fn lower(
    list: At<Vec<At<RawOverride>>>,
    meta: &Meta,
    scope: &mut Scope<'_>,
) -> Vec<Override> {
    scope.at_most(&list.mark, list.len(), MAX_OVERRIDES);
    list.value
        .into_iter()
        .filter_map(|one| lower_one(one, meta, scope))
        .collect()
}

fn lower_one(raw: At<RawOverride>, meta: &Meta, scope: &mut Scope<'_>) -> Option<Override> {
    let At { value: raw, mark } = raw;
    let codes = raw.matches.status_codes;
    if codes.is_empty() {
        scope.error(
            &codes.mark,
            "no statuses, so no answer would meet it",
            "write at least one, as `- value: 503`",
        );
    }
    scope.at_most(&codes.mark, codes.len(), MAX_STATUSES);
    let statuses: Vec<_> = codes
        .value
        .into_iter()
        .filter_map(|code| lower_status(code, scope))
        .collect();
    let source = match raw.source {
        Some(RawSource::Local) => ResponseSource::Local,
        Some(RawSource::Backend) => ResponseSource::Backend,
        Some(RawSource::All) | None => ResponseSource::All,
    };
    let with = match (raw.response, raw.redirect) {
        (Some(response), None) => {
            Replacement::Response(Box::new(lower_response(response, meta, scope)))
        }
        (None, Some(redirect)) => Replacement::Redirect(lower_redirect(redirect, scope)),
        (None, None) => {
            let message = "neither `response` nor `redirect` is given";
            scope.error(&mark, message, "give it one of them");
            return None;
        }
        (Some(_), Some(_)) => {
            let message = "both `response` and `redirect` are given";
            scope.error(&mark, message, "keep one of them");
            return None;
        }
    };
    Some(Override {
        statuses,
        source,
        with,
    })
}

fn lower_status(raw: At<RawStatus>, scope: &mut Scope<'_>) -> Option<RangeInclusive<u16>> {
    let At { value: raw, mark } = raw;
    let kind = raw.kind.unwrap_or(StatusKind::Value);
    let (field, other) = match kind {
        StatusKind::Value => ("value", raw.range.as_ref().map(|at| &at.mark)),
        StatusKind::Range => ("range", raw.value.as_ref().map(|at| &at.mark)),
    };
    if let Some(other) = other {
        let message = format!("the type is `{kind:?}`, so this is not it");
        scope.error(other, message, format!("write it under `{field}`"));
    }
    match (kind, raw.value, raw.range) {
        (StatusKind::Value, Some(value), _) => {
            numbers::status(&value, scope).map(|status| status..=status)
        }
        (StatusKind::Range, _, Some(range)) => {
            let At { value: range, mark } = range;
            let start = numbers::within(&range.start, &STATUSES, scope)?;
            let end = numbers::within(&range.end, &STATUSES, scope)?;
            if end < start {
                let message = format!("{start} to {end} is no range");
                scope.error(&mark, message, "write the lower one as `start`");
                return None;
            }
            Some(start..=end)
        }
        _ => {
            let message = format!("the type is `{kind:?}`, but there is no `{field}`");
            scope.error(&mark, message, format!("give it `{field}`"));
            None
        }
    }
}

fn lower_response(raw: At<RawResponse>, meta: &Meta, scope: &mut Scope<'_>) -> Response {
    let At { value: raw, mark } = raw;
    let nothing = raw.content_type.is_none()
        && raw.status_code.is_none()
        && raw.body.is_none()
        && raw.header.is_none();
    if nothing {
        let message = "it changes nothing";
        scope.error(&mark, message, "give it `body`, `statusCode` or `header`");
    }
    let content_type = raw.content_type.and_then(|text| {
        let value = HeaderValue::from_str(&text)
            .ok()
            .filter(|_| !text.is_empty());
        if value.is_none() {
            let message = format!("`{}` is not a type of content", text.value);
            scope.error(&text.mark, message, "write one, as `application/json`");
        }
        value
    });
    Response {
        status: raw
            .status_code
            .and_then(|at| numbers::within(&at, &FINAL, scope))
            .and_then(|status| StatusCode::from_u16(status).ok()),
        content_type,
        body: raw.body.and_then(|body| lower_body(body, meta, scope)),
        headers: raw
            .header
            .map(|changes| filters::changes(changes, scope))
            .unwrap_or_default(),
    }
}

fn lower_body(raw: At<RawBody>, meta: &Meta, scope: &mut Scope<'_>) -> Option<Body> {
    let At { value: raw, mark } = raw;
    let kind = raw.kind.unwrap_or(BodyKind::Inline);
    let (field, other) = match kind {
        BodyKind::Inline => ("inline", raw.value_ref.as_ref().map(|at| &at.mark)),
        BodyKind::ValueRef => ("valueRef", raw.inline.as_ref().map(|at| &at.mark)),
    };
    if let Some(other) = other {
        let message = format!("the type is `{kind:?}`, so this is not it");
        scope.error(other, message, "remove it, or change `type`");
    }
    match (kind, raw.inline, raw.value_ref) {
        (BodyKind::Inline, Some(text), _) => {
            if text.len() > MAX_BODY {
                let message = format!("{} bytes", text.len());
                let remedy = format!("at most {MAX_BODY} are allowed");
                scope.error(&text.mark, message, remedy);
            }
            Some(Body::Inline(Bytes::from(text.value)))
        }
        (BodyKind::ValueRef, _, Some(reference)) => {
            let reference = reference.value;
            let strange = [(&reference.group, ""), (&reference.kind, "ConfigMap")];
            for (at, due) in strange {
                if let Some(at) = at.as_ref().filter(|at| at.value != due) {
                    let message = format!("`{}` is not supported here", at.value);
                    scope.error(&at.mark, message, "name a ConfigMap, of the group ``");
                }
            }
            let name = Name::new(&meta.name.namespace, &reference.name);
            Some(Body::ConfigMap(name, reference.name.mark))
        }
        _ => {
            let message = format!("the type is `{kind:?}`, but there is no `{field}`");
            scope.error(&mark, message, format!("give it `{field}`"));
            None
        }
    }
}

fn lower_redirect(raw: At<RawRedirect>, scope: &mut Scope<'_>) -> Redirect {
    let At { value: raw, mark } = raw;
    let redirect = filters::redirect(raw, scope);
    if let Some(PathRewrite::Prefix(_)) = redirect.path {
        scope.error(
            &mark,
            "an answer has no prefix that could be replaced",
            "write `ReplaceFullPath`",
        );
    }
    redirect
}
