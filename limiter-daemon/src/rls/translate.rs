//! Questions and answers in the protocol's messages.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::proto::{
    self, Code, DescriptorStatus, Entry, RateLimitDescriptor, RateLimitOverride, RateLimitRequest,
    RateLimitResponse,
};
use crate::engine::ask::{Question, Reply, ReplyLimit, ReplyStatus};
use crate::engine::descriptors::Descriptor;

pub(super) fn request(question: &Question<'_>) -> RateLimitRequest {
    RateLimitRequest {
        domain: question.domain.clone().into_owned(),
        descriptors: question.descriptors.iter().map(descriptor).collect(),
        // As Envoy, which says it of descriptors only.
        hits_addend: 0,
    }
}

fn descriptor(descriptor: &Descriptor<'_>) -> RateLimitDescriptor {
    let entries = descriptor.entries.iter().map(|(key, value)| Entry {
        key: key.clone().into_owned(),
        value: value.clone().into_owned(),
    });
    RateLimitDescriptor {
        entries: entries.collect(),
        limit: descriptor.limit.map(|limit| RateLimitOverride {
            requests_per_unit: limit.requests,
            unit: proto::unit(limit.unit).into(),
        }),
        hits_addend: descriptor.hits.map(|hits| hits.number),
        is_negative_hits: descriptor.hits.is_some_and(|hits| hits.negative),
    }
}

pub(super) fn reply(answer: RateLimitResponse) -> Reply {
    let statuses: Vec<&DescriptorStatus> = answer.statuses.iter().collect();
    Reply {
        over_limit: match Code::try_from(answer.overall_code) {
            Ok(Code::Ok) => false,
            Ok(Code::OverLimit) => true,
            // It did not say, so what it says of descriptors counts.
            Ok(Code::Unknown) | Err(_) => statuses.iter().any(|status| is_over(status)),
        },
        statuses: statuses.into_iter().map(status).collect(),
        response_headers: headers(answer.response_headers_to_add),
        request_headers: headers(answer.request_headers_to_add),
        body: Bytes::from(answer.raw_body),
    }
}

fn is_over(status: &DescriptorStatus) -> bool {
    status.code == i32::from(Code::OverLimit)
}

fn status(status: &DescriptorStatus) -> ReplyStatus {
    let reset = status.duration_until_reset.as_ref();
    let limit = status.current_limit.as_ref().map(|limit| ReplyLimit {
        requests: limit.requests_per_unit,
        unit: proto::time_unit(limit.unit),
        name: limit.name.clone(),
    });
    ReplyStatus {
        over_limit: is_over(status),
        limit,
        remaining: status.limit_remaining.into(),
        // Envoy cuts off what is less than a second.
        reset: reset.map_or(0, |time| u64::try_from(time.seconds).unwrap_or(0)),
    }
}

/// Those that a header can be; others are left out.
fn headers(stated: Vec<proto::HeaderValue>) -> Vec<(HeaderName, HeaderValue)> {
    let parsed = stated.into_iter().filter_map(|one| {
        let name = HeaderName::from_bytes(one.key.as_bytes()).ok()?;
        let value = HeaderValue::from_bytes(one.value.as_bytes()).ok()?;
        Some((name, value))
    });
    parsed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::plan::TimeUnit;
    use crate::rls::proto::{RateLimit, Unit};

    #[test]
    fn what_a_service_says() {
        let answer = |overall: Code, codes: &[Code]| RateLimitResponse {
            overall_code: overall.into(),
            statuses: codes
                .iter()
                .map(|code| DescriptorStatus {
                    code: (*code).into(),
                    ..DescriptorStatus::default()
                })
                .collect(),
            ..RateLimitResponse::default()
        };
        for (overall, codes, wanted) in [
            (Code::Ok, vec![Code::Ok], false),
            (Code::OverLimit, vec![Code::Ok, Code::OverLimit], true),
            // Quota mode: one may be over, and the request is not.
            (Code::Ok, vec![Code::OverLimit], false),
            (Code::Unknown, vec![Code::Ok, Code::OverLimit], true),
            (Code::Unknown, vec![Code::Ok], false),
            (Code::OverLimit, vec![], true),
        ] {
            assert_eq!(
                reply(answer(overall, &codes)).over_limit,
                wanted,
                "{overall:?} {codes:?}"
            );
        }
    }

    #[test]
    fn statuses_headers_and_body() {
        let header = |key: &str, value: &str| proto::HeaderValue {
            key: key.to_owned(),
            value: value.to_owned(),
        };
        let reply = reply(RateLimitResponse {
            overall_code: Code::OverLimit.into(),
            statuses: vec![DescriptorStatus {
                code: Code::OverLimit.into(),
                current_limit: Some(RateLimit {
                    requests_per_unit: 5,
                    unit: Unit::Week.into(),
                    name: "n".into(),
                }),
                limit_remaining: 3,
                duration_until_reset: Some(prost_types::Duration {
                    seconds: 9,
                    nanos: 999,
                }),
            }],
            response_headers_to_add: vec![header("X-A", "1"), header("no name", "1")],
            request_headers_to_add: vec![header("x-b", "2"), header("x-c", "a\nb")],
            raw_body: b"slow down".to_vec(),
            dynamic_metadata: None,
        });
        let limit = ReplyLimit {
            requests: 5,
            unit: Some(TimeUnit::Week),
            name: "n".into(),
        };
        let status = ReplyStatus {
            over_limit: true,
            limit: Some(limit),
            remaining: 3,
            reset: 9,
        };
        assert_eq!(reply.statuses.as_slice(), [status]);
        let one = |name, value| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        assert_eq!(reply.response_headers, [one("x-a", "1")]);
        assert_eq!(reply.request_headers, [one("x-b", "2")]);
        assert_eq!(reply.body, "slow down");
    }
}
