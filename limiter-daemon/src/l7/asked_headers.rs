//! What a client is told of the answers of rate limit services, as Envoy's filter tells it.
//!
//! `X-RateLimit-*` (draft 03): of the status with the fewest left, the first of equals, with the limits
//! of all behind it; only statuses that have a limit count, and a unit that is not known keeps a limit
//! out of the list. A descriptor that wants no headers is left out; where it is the one with the
//! fewest left, there are none at all. Where limits of the route have written theirs, the tighter
//! ones are told.

use std::fmt::Write as _;

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};

use super::headers;
use crate::engine::ask::{Reply, ReplyStatus};
use crate::policy::plan::{AddHow, AddedHeader, AskFilter};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const ENVOY: HeaderName = HeaderName::from_static("x-envoy-ratelimited");

/// What is added to an answer.
#[derive(Debug, Default)]
pub(super) struct Told {
    added: Vec<AddedHeader>,
    limit: Option<LimitTold>,
    limited: bool,
    /// Whole seconds.
    retry_after: Option<u64>,
}

/// `X-RateLimit-*`.
#[derive(Debug, PartialEq, Eq)]
struct LimitTold {
    limit: String,
    remaining: u64,
    reset: u64,
}

impl Told {
    /// Takes note of what a service says; whether clients are told of each descriptor is in `options`.
    pub(super) fn add(&mut self, filter: &AskFilter, reply: &mut Reply, options: &[Option<bool>]) {
        for (name, value) in std::mem::take(&mut reply.response_headers) {
            if headers::may_be_added(&name) {
                self.added.push(AddedHeader {
                    name,
                    value,
                    how: AddHow::Append,
                });
            }
        }
        if let Some(found) = limit_told(&reply.statuses, options, filter.headers)
            && self
                .limit
                .as_ref()
                .is_none_or(|known| found.remaining < known.remaining)
        {
            self.limit = Some(found);
        }
        if !reply.over_limit {
            return;
        }
        self.limited |= filter.envoy_header;
        if filter.retry_after && filter.limited_status == StatusCode::TOO_MANY_REQUESTS {
            let over = reply.statuses.iter().filter(|status| status.over_limit);
            let longest = over.map(|status| status.reset.max(1)).max();
            self.retry_after = self.retry_after.max(longest);
        }
    }

    /// The request is denied by what `filter` was told.
    pub(super) fn denied(&mut self, filter: &AskFilter) {
        self.added.extend(filter.response_headers.iter().cloned());
    }

    /// Adds it to the head of an answer; `own`: the answer is limiterd's.
    pub(super) fn write(self, into: &mut HeaderMap, own: bool) {
        let stated = into
            .get(REMAINING)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        if let Some(told) = self.limit
            && stated.is_none_or(|stated: u64| told.remaining < stated)
            && let Ok(limit) = HeaderValue::try_from(told.limit)
        {
            into.insert(LIMIT, limit);
            into.insert(REMAINING, told.remaining.into());
            into.insert(RESET, told.reset.into());
        }
        let typed = self.added.iter().any(|added| added.name == CONTENT_TYPE);
        if own && typed {
            // That of the body which the service sent along.
            into.remove(CONTENT_TYPE);
        }
        let waits = self.added.iter().any(|added| added.name == RETRY_AFTER);
        for AddedHeader { name, value, how } in self.added {
            match how {
                AddHow::Append => drop(into.append(name, value)),
                AddHow::IfAbsent if into.contains_key(&name) => {}
                AddHow::OverwriteIfPresent if !into.contains_key(&name) => {}
                AddHow::IfAbsent | AddHow::Overwrite | AddHow::OverwriteIfPresent => {
                    into.insert(name, value);
                }
            }
        }
        if let Some(seconds) = self.retry_after.filter(|_| !waits) {
            into.insert(RETRY_AFTER, seconds.into());
        }
        if self.limited {
            into.insert(ENVOY, HeaderValue::from_static("true"));
        }
    }
}

fn limit_told(
    statuses: &[ReplyStatus],
    options: &[Option<bool>],
    filter: bool,
) -> Option<LimitTold> {
    // Statuses belong to descriptors by their place.
    let limited = statuses.iter().enumerate().filter_map(|(index, status)| {
        let told = options.get(index).copied().flatten().unwrap_or(filter);
        Some((status, status.limit.as_ref()?, told))
    });
    let (status, chosen, told) = limited
        .clone()
        .min_by_key(|(status, ..)| status.remaining)?;
    if !told {
        return None;
    }
    let mut text = chosen.requests.to_string();
    for (_, limit, _) in limited.filter(|(.., told)| *told) {
        let Some(unit) = limit.unit else { continue };
        // Writing to a text does not fail.
        let _infallible = write!(text, ", {};w={}", limit.requests, unit.seconds());
        if !limit.name.is_empty() {
            let _infallible = write!(text, ";name=\"{}\"", limit.name);
        }
    }
    Some(LimitTold {
        limit: text,
        remaining: status.remaining,
        reset: status.reset,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ask::ReplyLimit;
    use crate::policy::plan::TimeUnit;

    fn status(requests: u32, unit: Option<TimeUnit>, name: &str, remaining: u64) -> ReplyStatus {
        ReplyStatus {
            over_limit: remaining == 0,
            limit: Some(ReplyLimit {
                requests,
                unit,
                name: name.to_owned(),
            }),
            remaining,
            reset: 7,
        }
    }

    fn told(statuses: &[ReplyStatus], options: &[Option<bool>], filter: bool) -> Option<String> {
        let told = limit_told(statuses, options, filter)?;
        Some(format!(
            "{} | {} | {}",
            told.limit, told.remaining, told.reset
        ))
    }

    #[test]
    fn the_five_rules_of_the_headers() {
        let second = status(10, Some(TimeUnit::Second), "per-ip", 3);
        let hour = status(1000, Some(TimeUnit::Hour), "", 900);
        let month = status(5, Some(TimeUnit::Month), "m", 3);
        let year = status(9, Some(TimeUnit::Year), "", 9);
        let week = status(9, Some(TimeUnit::Week), "", 9);
        let unknown = status(4, None, "u", 9);
        let none = ReplyStatus::default();
        let wanted = |text: &str| Some(text.to_owned());
        assert_eq!(told(std::slice::from_ref(&none), &[None], true), None);
        assert_eq!(
            told(&[none, second.clone(), hour.clone()], &[], true),
            wanted("10, 10;w=1;name=\"per-ip\", 1000;w=3600 | 3 | 7")
        );
        // The first of equals.
        assert_eq!(
            told(&[month, second.clone()], &[], true),
            wanted("5, 5;w=2592000;name=\"m\", 10;w=1;name=\"per-ip\" | 3 | 7")
        );
        assert_eq!(
            told(&[year, week, unknown.clone()], &[], true),
            wanted("9, 9;w=31536000, 9;w=604800 | 9 | 7")
        );
        assert_eq!(told(&[unknown], &[], true), wanted("4 | 9 | 7"));
        // One that is off is left out, or silences all; one that is on speaks where others do not.
        let both = [second, hour];
        assert_eq!(
            told(&both, &[None, Some(false)], true),
            wanted("10, 10;w=1;name=\"per-ip\" | 3 | 7")
        );
        assert_eq!(told(&both, &[Some(false), None], true), None);
        assert_eq!(told(&both, &[None, None], false), None);
        assert_eq!(
            told(&both, &[Some(true), None], false),
            wanted("10, 10;w=1;name=\"per-ip\" | 3 | 7")
        );
        // Also where statuses are not as many as descriptors.
        assert_eq!(told(&both, &[Some(false)], true), None);
        assert!(told(&both, &[None], true).is_some());
    }

    fn filter() -> AskFilter {
        AskFilter {
            name: "d/p/filter/0".into(),
            stage: 0,
            requests: crate::policy::plan::RequestType::Both,
            service: crate::policy::plan::AskedService::Own,
            timeout: std::time::Duration::from_millis(20),
            error_status: None,
            limited_status: StatusCode::TOO_MANY_REQUESTS,
            resource_exhausted: false,
            headers: true,
            envoy_header: true,
            retry_after: true,
            response_headers: Vec::new(),
            stat_prefix: String::new(),
        }
    }

    /// What is written to an answer that has `before`.
    fn written(
        filter: &AskFilter,
        mut reply: Reply,
        before: &[(&'static str, &'static str)],
    ) -> Vec<String> {
        let mut told = Told::default();
        told.add(filter, &mut reply, &[]);
        if reply.over_limit {
            told.denied(filter);
        }
        let mut headers = HeaderMap::new();
        for (name, value) in before {
            headers.append(*name, HeaderValue::from_static(value));
        }
        told.write(&mut headers, reply.over_limit);
        let lines = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
        let mut lines: Vec<_> = lines.collect();
        lines.sort();
        lines
    }

    fn over(headers: &[(&'static str, &'static str)]) -> Reply {
        let headers = headers.iter();
        Reply {
            over_limit: true,
            statuses: [status(5, Some(TimeUnit::Second), "", 0)]
                .into_iter()
                .collect(),
            response_headers: headers
                .map(|(name, value)| {
                    (
                        HeaderName::from_static(name),
                        HeaderValue::from_static(value),
                    )
                })
                .collect(),
            ..Reply::default()
        }
    }

    #[test]
    fn what_a_denied_request_is_told() {
        let wanted = [
            "retry-after: 7",
            "x-envoy-ratelimited: true",
            "x-ratelimit-limit: 5, 5;w=1",
            "x-ratelimit-remaining: 0",
            "x-ratelimit-reset: 7",
        ];
        assert_eq!(written(&filter(), over(&[]), &[]), wanted);
        let quiet = AskFilter {
            headers: false,
            envoy_header: false,
            limited_status: StatusCode::SERVICE_UNAVAILABLE,
            ..filter()
        };
        assert_eq!(written(&quiet, over(&[]), &[]), [""; 0]);
    }

    #[test]
    fn what_the_service_sends_along_goes_before() {
        let quiet = AskFilter {
            headers: false,
            envoy_header: false,
            ..filter()
        };
        let reply = over(&[
            ("retry-after", "99"),
            ("content-type", "application/json"),
            ("content-length", "3"),
            ("connection", "close"),
            ("x-told", "1"),
        ]);
        assert_eq!(
            written(
                &quiet,
                reply,
                &[("content-type", "text/plain"), ("x-told", "0")]
            ),
            [
                "content-type: application/json",
                "retry-after: 99",
                "x-told: 0",
                "x-told: 1"
            ]
        );
    }

    #[test]
    fn headers_of_the_filter_itself() {
        let added = |name, how| AddedHeader {
            name: HeaderName::from_static(name),
            value: HeaderValue::from_static("new"),
            how,
        };
        let filter = AskFilter {
            headers: false,
            envoy_header: false,
            retry_after: false,
            response_headers: vec![
                added("a", AddHow::Append),
                added("b", AddHow::IfAbsent),
                added("c", AddHow::Overwrite),
                added("d", AddHow::OverwriteIfPresent),
                added("e", AddHow::OverwriteIfPresent),
                added("f", AddHow::IfAbsent),
            ],
            ..filter()
        };
        let before = [("a", "old"), ("b", "old"), ("c", "old"), ("d", "old")];
        assert_eq!(
            written(&filter, over(&[]), &before),
            ["a: new", "a: old", "b: old", "c: new", "d: new", "f: new"]
        );
    }

    #[test]
    fn of_limits_here_and_there_the_tighter_one_is_told() {
        let reply = || Reply {
            statuses: [status(5, Some(TimeUnit::Second), "", 3)]
                .into_iter()
                .collect(),
            ..Reply::default()
        };
        for (stated, wanted) in [
            ("2", "x-ratelimit-remaining: 2"),
            ("4", "x-ratelimit-remaining: 3"),
        ] {
            let lines = written(&filter(), reply(), &[("x-ratelimit-remaining", stated)]);
            assert!(lines.contains(&wanted.to_owned()), "{lines:?}");
        }
    }
}
