//! Options that say what is done to requests besides limiting them: retries, headers, faults.

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;

use crate::policy::decode::{At, Unsupported};
use crate::policy::findings::Scope;
use crate::policy::gateway_api::route_match::{exact_value, header_name};
use crate::policy::plan::{Abort, Fault, Fraction, HeaderChanges, Retry, RetryTrigger};
use crate::policy::{suggest, units};

const MAX_HEADERS: usize = 64;
const MAX_RETRIES: u32 = 100;

/// `retries`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawRetries {
    retry_on: Option<At<String>>,
    num_retries: Option<At<u32>>,
    per_try_timeout: Option<At<String>>,
    retry_back_off: Option<Unsupported>,
    previous_priorities: Option<Unsupported>,
}

const TRIGGERS: [RetryTrigger; 13] = [
    RetryTrigger::ServerError,
    RetryTrigger::GatewayError,
    RetryTrigger::Reset,
    RetryTrigger::ResetBeforeRequest,
    RetryTrigger::ConnectFailure,
    RetryTrigger::Retriable4xx,
    RetryTrigger::RefusedStream,
    RetryTrigger::RetriableStatusCodes,
    RetryTrigger::Cancelled,
    RetryTrigger::DeadlineExceeded,
    RetryTrigger::Internal,
    RetryTrigger::ResourceExhausted,
    RetryTrigger::Unavailable,
];

/// Checks `retries`; `None`: there are none.
pub(super) fn retries(raw: RawRetries, scope: &mut Scope<'_>) -> Option<Retry> {
    let _told_by_the_decoder = (raw.retry_back_off, raw.previous_priorities);
    let mut retry = Retry {
        // Gloo's and Envoy's own: 1.
        max_retries: raw.num_retries.as_ref().map_or(1, |at| at.value),
        triggers: std::collections::BTreeSet::new(),
        statuses: std::collections::BTreeSet::new(),
        any_method: true,
        per_try_timeout: None,
        ..Retry::default()
    };
    if let Some(at) = raw.num_retries.filter(|at| at.value > MAX_RETRIES) {
        scope.error(
            &at.mark,
            format!("{} retries are too many", at.value),
            format!("write {MAX_RETRIES} or fewer"),
        );
    }
    if let Some(on) = &raw.retry_on {
        for word in on.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match TRIGGERS.into_iter().find(|one| one.name() == word) {
                Some(trigger) => {
                    retry.triggers.insert(trigger);
                }
                None => scope.error(
                    &on.mark,
                    format!("nothing is retried on `{word}`"),
                    suggest::remedy(word, TRIGGERS.map(RetryTrigger::name), "it may be"),
                ),
            }
        }
    }
    if let Some(text) = &raw.per_try_timeout {
        retry.per_try_timeout = units::positive_duration(text, scope);
    }
    (retry.max_retries > 0 && !retry.triggers.is_empty()).then_some(retry)
}

/// `headerManipulation`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawHeaders {
    request_headers_to_add: Option<At<Vec<RawAdded>>>,
    request_headers_to_remove: Option<At<Vec<At<String>>>>,
    response_headers_to_add: Option<At<Vec<RawAdded>>>,
    response_headers_to_remove: Option<At<Vec<At<String>>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawAdded {
    header: RawHeader,
    header_secret_ref: Option<Unsupported>,
    append: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct RawHeader {
    key: At<String>,
    value: At<String>,
}

/// Changes of a request's headers, and of a response's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Headers {
    pub(crate) request: HeaderChanges,
    pub(crate) response: HeaderChanges,
}

impl Headers {
    /// These changes, and those of `above` after them, as Envoy has it of a route and its host.
    pub(crate) fn then(&self, above: &Self) -> Self {
        let both = |own: &HeaderChanges, above: &HeaderChanges| HeaderChanges {
            set: [own.set.as_slice(), &above.set].concat(),
            add: [own.add.as_slice(), &above.add].concat(),
            remove: [own.remove.as_slice(), &above.remove].concat(),
        };
        Self {
            request: both(&self.request, &above.request),
            response: both(&self.response, &above.response),
        }
    }
}

/// Checks `headerManipulation`.
pub(super) fn headers(raw: RawHeaders, scope: &mut Scope<'_>) -> Headers {
    Headers {
        request: changes(
            raw.request_headers_to_add,
            raw.request_headers_to_remove,
            scope,
        ),
        response: changes(
            raw.response_headers_to_add,
            raw.response_headers_to_remove,
            scope,
        ),
    }
}

fn changes(
    added: Option<At<Vec<RawAdded>>>,
    removed: Option<At<Vec<At<String>>>>,
    scope: &mut Scope<'_>,
) -> HeaderChanges {
    let mut changes = HeaderChanges::default();
    if let Some(list) = added {
        scope.at_most(&list.mark, list.len(), MAX_HEADERS);
        for raw in list.value {
            let Some(pair) = pair(&raw.header, scope) else {
                continue;
            };
            if raw.append.unwrap_or(true) {
                changes.add.push(pair);
            } else {
                changes.set.push(pair);
            }
        }
    }
    if let Some(list) = removed {
        scope.at_most(&list.mark, list.len(), MAX_HEADERS);
        let names = list
            .value
            .iter()
            .filter_map(|name| header_name(name, scope));
        changes.remove.extend(names);
    }
    changes
}

fn pair(raw: &RawHeader, scope: &mut Scope<'_>) -> Option<(HeaderName, HeaderValue)> {
    if raw.value.contains('%') {
        scope.error(
            &raw.value.mark,
            format!(
                "`{}` would have to be filled in, which is not supported",
                raw.value.value
            ),
            "write a value without `%`",
        );
        return None;
    }
    let name = header_name(&raw.key, scope);
    let value = exact_value(&raw.value, scope);
    Some((name?, value?))
}

/// `faults`.
#[derive(Debug, Deserialize)]
pub(super) struct RawFaults {
    abort: Option<RawAbort>,
    delay: Option<RawDelay>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawAbort {
    /// Percent.
    percentage: Option<At<u32>>,
    http_status: Option<At<u16>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDelay {
    percentage: Option<At<u32>>,
    fixed_delay: Option<At<String>>,
}

/// Checks `faults`.
pub(super) fn faults(raw: RawFaults, scope: &mut Scope<'_>) -> Fault {
    Fault {
        delay: raw.delay.and_then(|raw| delay(&raw, scope)),
        abort: raw.abort.and_then(|raw| {
            let status = status(raw.http_status.as_ref()?, scope)?;
            Some((
                Abort::Http(status),
                percent(raw.percentage.as_ref(), scope)?,
            ))
        }),
    }
}

fn delay(raw: &RawDelay, scope: &mut Scope<'_>) -> Option<(Duration, Fraction)> {
    let time = units::positive_duration(raw.fixed_delay.as_ref()?, scope)?;
    Some((time, percent(raw.percentage.as_ref(), scope)?))
}

fn percent(at: Option<&At<u32>>, scope: &mut Scope<'_>) -> Option<Fraction> {
    let Some(at) = at else {
        return Some(Fraction::NONE);
    };
    if at.value > 100 {
        let message = format!("{} is more than all", at.value);
        scope.error(&at.mark, message, "write 0 to 100");
        return None;
    }
    Some(Fraction::percent(at.value))
}

/// A status that a request may be answered with.
pub(super) fn status(at: &At<u16>, scope: &mut Scope<'_>) -> Option<StatusCode> {
    let found = StatusCode::from_u16(at.value)
        .ok()
        .filter(|status| (200..=599).contains(&status.as_u16()));
    if found.is_none() {
        let message = format!("{} is not a status to answer with", at.value);
        scope.error(&at.mark, message, "write 200 to 599");
    }
    found
}
