//! `filters`: who is asked, when, and what is made of the answer (Envoy's
//! `extensions.filters.http.ratelimit.v3.RateLimit`, and the form that its first API had).

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;

use super::action::is_filled_in;
use super::rate_limit::{self, Place, RawRateLimit};
use super::service::{self, RawService, Service};
use crate::policy::decode::{At, Code, Ignored};
use crate::policy::findings::{Mark, Scope};
use crate::policy::gateway_api::route_match::header_name;
use crate::policy::plan::{
    AddHow, AddedHeader, AskFilter, AskedService, DescriptorRule, RequestType,
};
use crate::policy::resource::Meta;
use crate::policy::units;

/// Envoy's default.
const TIMEOUT: Duration = Duration::from_millis(20);
/// The longest that a request waits; Envoy's 0, which is no bound there, is this.
const LONGEST: Duration = Duration::from_secs(60);
const MAX_HEADERS: usize = 10;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawFilter {
    domain: Option<At<String>>,
    stage: Option<At<u32>>,
    #[serde(alias = "request_type")]
    request_type: Option<At<RawRequestType>>,
    timeout: Option<At<String>>,
    #[serde(alias = "failure_mode_deny")]
    failure_mode_deny: Option<bool>,
    #[serde(alias = "status_on_error")]
    status_on_error: Option<At<Code>>,
    #[serde(alias = "rate_limited_status")]
    rate_limited_status: Option<At<Code>>,
    #[serde(alias = "rate_limited_as_resource_exhausted")]
    rate_limited_as_resource_exhausted: Option<bool>,
    #[serde(
        alias = "enable_x_ratelimit_headers",
        alias = "enableXRateLimitHeaders"
    )]
    enable_x_ratelimit_headers: Option<RawHeadersVersion>,
    #[serde(alias = "disable_x_envoy_ratelimited_header")]
    disable_x_envoy_ratelimited_header: Option<bool>,
    #[serde(alias = "enable_retry_after_header")]
    enable_retry_after_header: Option<bool>,
    #[serde(alias = "response_headers_to_add")]
    response_headers_to_add: Option<At<Vec<At<RawAddedHeader>>>>,
    #[serde(alias = "stat_prefix")]
    stat_prefix: Option<At<String>>,
    #[serde(alias = "rate_limits")]
    rate_limits: Option<At<Vec<At<RawRateLimit>>>>,
    service: Option<RawService>,
    #[serde(alias = "rate_limit_service")]
    rate_limit_service: Option<At<Ignored>>,
    /// Of the first API: `decoder`.
    #[serde(rename = "type")]
    kind: Option<At<RawKind>>,
    /// Of the first API: `rate_limit`.
    name: Option<At<RawName>>,
    /// Of the first API.
    config: Option<At<RawConfig>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawKind {
    Decoder,
    Both,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawName {
    RateLimit,
}

#[derive(Debug, Deserialize)]
struct RawConfig {
    domain: Option<At<String>>,
    stage: Option<At<u32>>,
    request_type: Option<At<RawRequestType>>,
    timeout_ms: Option<At<u64>>,
    failure_mode_deny: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawRequestType {
    Internal,
    External,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum RawHeadersVersion {
    #[serde(rename = "OFF")]
    Off,
    #[serde(rename = "DRAFT_VERSION_03")]
    Draft03,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawAddedHeader {
    header: RawHeaderValue,
    #[serde(alias = "append_action")]
    append_action: Option<RawAppend>,
    append: Option<bool>,
    #[expect(dead_code, reason = "named, so that it passes: no value is empty")]
    #[serde(alias = "keep_empty_value")]
    keep_empty_value: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct RawHeaderValue {
    key: At<String>,
    value: At<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum RawAppend {
    AppendIfExistsOrAdd,
    AddIfAbsent,
    OverwriteIfExistsOrAdd,
    OverwriteIfExists,
}

/// A filter, with references that are to be followed.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    pub(crate) domain: String,
    /// Asked by it, until `service` is resolved, is limiterd itself.
    pub(crate) plan: AskFilter,
    /// `None`: limiterd itself.
    pub(crate) service: Option<Service>,
    pub(crate) inline: Option<Inline>,
    pub(crate) mark: Mark,
}

/// Descriptors that the filter itself names: then it asks about no others.
pub(crate) type Inline = Vec<Arc<DescriptorRule>>;

/// Checks a filter; `None` after an error in it.
pub(super) fn lower(
    At { value: raw, mark }: At<RawFilter>,
    (index, meta): (usize, &Meta),
    scope: &mut Scope<'_>,
) -> Option<Filter> {
    if let Some(service) = &raw.rate_limit_service {
        scope.error(
            &service.mark,
            "limiterd has no clusters of Envoy's that could be asked",
            "write `service: {address: \"host:port\"}`, or nothing to ask limiterd itself",
        );
        return None;
    }
    let raw = first_api(raw, &mark, scope)?;
    let domain = match raw.domain {
        Some(at) => domain(at, scope),
        None => {
            scope.error(
                &mark,
                "the field `domain` is missing",
                "name the domain to ask about",
            );
            None
        }
    };
    let service = match raw.service {
        Some(raw) => Some(service::lower(raw, &meta.name.namespace, scope)?),
        None => None,
    };
    let stage = raw
        .stage
        .map_or(Some(0), |at| rate_limit::stage(&at, scope));
    let limited = raw
        .rate_limited_status
        .map_or(Some(429), |at| status(&at, scope));
    let error = raw
        .status_on_error
        .map_or(Some(500), |at| status(&at, scope));
    let timeout = raw.timeout.map_or(Some(TIMEOUT), |at| timeout(&at, scope));
    let deny = raw.failure_mode_deny.unwrap_or_default();
    let plan = AskFilter {
        name: format!("{}/filter/{index}", meta.name),
        stage: stage?,
        requests: match raw.request_type.map(|at| at.value) {
            None | Some(RawRequestType::Both) => RequestType::Both,
            Some(RawRequestType::Internal) => RequestType::Internal,
            Some(RawRequestType::External) => RequestType::External,
        },
        service: AskedService::Own,
        timeout: timeout?,
        error_status: StatusCode::from_u16(error?).ok().filter(|_| deny),
        // Envoy: what is no error would let clients take it for an answer.
        limited_status: limited
            .map(|status| if status < 400 { 429 } else { status })
            .and_then(|status| StatusCode::from_u16(status).ok())?,
        resource_exhausted: raw.rate_limited_as_resource_exhausted.unwrap_or_default(),
        headers: raw.enable_x_ratelimit_headers == Some(RawHeadersVersion::Draft03),
        envoy_header: !raw.disable_x_envoy_ratelimited_header.unwrap_or_default(),
        retry_after: raw.enable_retry_after_header.unwrap_or_default(),
        response_headers: match raw.response_headers_to_add {
            Some(list) => added(list, scope)?,
            None => Vec::new(),
        },
        stat_prefix: match raw.stat_prefix {
            Some(prefix) => stat_prefix(&prefix, scope)?,
            None => String::new(),
        },
    };
    let inline = raw.rate_limits.filter(|list| !list.is_empty());
    Some(Filter {
        domain: domain?,
        plan,
        service,
        inline: inline.map(|list| rate_limit::lower(list, Place::Filter, scope)),
        mark,
    })
}

/// A filter of the first API (`type`, `name`, `config`) as one of today's.
fn first_api(raw: RawFilter, mark: &Mark, scope: &mut Scope<'_>) -> Option<RawFilter> {
    if raw.config.is_none() && raw.kind.is_none() && raw.name.is_none() {
        return Some(raw);
    }
    let beside = raw.domain.is_some() || raw.stage.is_some() || raw.timeout.is_some();
    let beside = beside || raw.request_type.is_some() || raw.failure_mode_deny.is_some();
    if let Some(config) = raw.config.as_ref().filter(|_| beside) {
        scope.error(
            &config.mark,
            "fields of the filter stand both beside `config` and in it",
            "put all of them on one level",
        );
        return None;
    }
    let (Some(RawName::RateLimit), Some(config)) =
        (raw.name.as_ref().map(|at| at.value), raw.config)
    else {
        scope.error(
            mark,
            "a filter with `type`, `name` or `config` is one of Envoy's first API, which has all of them",
            "write `{type: decoder, name: rate_limit, config: {domain: ...}}`, or the fields without these",
        );
        return None;
    };
    let config = config.value;
    let timeout = config.timeout_ms.map(|At { value, mark }| At {
        value: format!("{value}ms"),
        mark,
    });
    Some(RawFilter {
        domain: config.domain,
        stage: config.stage,
        request_type: config.request_type,
        timeout,
        failure_mode_deny: config.failure_mode_deny,
        config: None,
        name: None,
        kind: None,
        ..raw
    })
}

/// A domain's name, or an error at it.
pub(super) fn domain(domain: At<String>, scope: &mut Scope<'_>) -> Option<String> {
    if domain.is_empty() {
        scope.error(&domain.mark, "a domain has a name", "write it");
        return None;
    }
    Some(domain.value)
}

fn timeout(text: &At<String>, scope: &mut Scope<'_>) -> Option<Duration> {
    let bound = Duration::from_nanos(units::duration(text, scope)?);
    if bound.is_zero() {
        return Some(LONGEST);
    }
    if bound > LONGEST {
        scope.error(
            &text.mark,
            format!("no request waits as long as `{}`", text.value),
            "write at most `60s`; `0s` is 60 s",
        );
        return None;
    }
    Some(bound)
}

fn status(at: &At<Code>, scope: &mut Scope<'_>) -> Option<u16> {
    let Code(status) = at.value;
    if !(100..=599).contains(&status) {
        let message = format!("{status} is no status of HTTP");
        scope.error(&at.mark, message, "it may be 100 to 599");
        return None;
    }
    Some(status)
}

fn stat_prefix(prefix: &At<String>, scope: &mut Scope<'_>) -> Option<String> {
    const MAX: usize = 64;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if prefix.len() > MAX || !prefix.bytes().all(plain) {
        scope.error(
            &prefix.mark,
            format!("`{}` cannot be a part of a metric's name", prefix.value),
            format!("write up to {MAX} letters, digits and `_`"),
        );
        return None;
    }
    Some(prefix.value.clone())
}

fn added(list: At<Vec<At<RawAddedHeader>>>, scope: &mut Scope<'_>) -> Option<Vec<AddedHeader>> {
    scope.at_most(&list.mark, list.len(), MAX_HEADERS);
    let lowered: Vec<_> = list
        .value
        .into_iter()
        .map(|raw| one_added(raw.value, scope))
        .collect();
    lowered.into_iter().collect()
}

fn one_added(raw: RawAddedHeader, scope: &mut Scope<'_>) -> Option<AddedHeader> {
    let RawHeaderValue { key, value } = raw.header;
    let name: Option<HeaderName> = header_name(&key, scope);
    if is_filled_in(&value) {
        scope.error(
            &value.mark,
            format!(
                "`{}` would have to be filled in, which is not supported",
                value.value
            ),
            "write a fixed value",
        );
        return None;
    }
    let Ok(parsed) = HeaderValue::from_str(&value) else {
        let message = format!("no header has the value `{}`", value.value);
        scope.error(&value.mark, message, "write visible characters");
        return None;
    };
    Some(AddedHeader {
        name: name?,
        value: parsed,
        how: match (raw.append_action, raw.append) {
            (Some(RawAppend::AppendIfExistsOrAdd), _) | (None, None | Some(true)) => AddHow::Append,
            (Some(RawAppend::AddIfAbsent), _) => AddHow::IfAbsent,
            (Some(RawAppend::OverwriteIfExistsOrAdd), _) | (None, Some(false)) => AddHow::Overwrite,
            (Some(RawAppend::OverwriteIfExists), _) => AddHow::OverwriteIfPresent,
        },
    })
}
