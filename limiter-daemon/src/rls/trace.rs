//! A question as a span, for who asks as part of a trace.

use std::sync::Arc;

use http::HeaderMap;
use tonic::Code as GrpcCode;

use super::proto::{Code, RateLimitDescriptor, RateLimitRequest, SHOULD_RATE_LIMIT};
use super::service::{Answer, Clock, Service};
use crate::traces::{Attributes, Interval, Kind, Span, Traced, Tracer, server};

/// A question that is traced.
pub(super) struct Tracing {
    tracer: Arc<Tracer>,
    traced: Box<Traced>,
    clock: Clock,
    /// Nanoseconds since 1970.
    began: u64,
}

impl Service {
    /// `None`: the call that came with these headers is not traced.
    pub(super) fn tracing(&self, headers: &HeaderMap) -> Option<Box<Tracing>> {
        let tracer = self.tracer.as_ref()?;
        let traced = tracer.follow(headers)?;
        Some(Box::new(Tracing {
            tracer: Arc::clone(tracer),
            traced,
            clock: Arc::clone(&self.clock),
            began: (self.clock)().unix,
        }))
    }
}

impl Tracing {
    /// Ends the span. `None`: what came was no question.
    pub(super) fn answered(&self, question: Option<&RateLimitRequest>, answer: &Answer) {
        self.tracer.end(|| self.span(question, answer));
    }

    fn span(&self, question: Option<&RateLimitRequest>, answer: &Answer) -> Span {
        let at = Interval {
            began: self.began,
            ended: (self.clock)().unix,
        };
        let mut attributes = Attributes::default();
        let name = SHOULD_RATE_LIMIT.trim_start_matches('/');
        attributes.text("rpc.system", "grpc");
        if let Some((service, method)) = name.split_once('/') {
            attributes.text("rpc.service", service);
            attributes.text("rpc.method", method);
        }
        if let Some(question) = question {
            attributes.text("limiterd.domain", question.domain.as_str());
            let descriptors = question.descriptors.iter().map(keys);
            attributes.list("limiterd.descriptors", descriptors);
        }
        let kind = match answer {
            Ok(answer) => {
                attributes.number("rpc.grpc.status_code", 0);
                let over = i32::from(Code::OverLimit);
                let decision = if answer.overall_code == over {
                    "over_limit"
                } else {
                    "ok"
                };
                attributes.text("limiterd.decision", decision);
                let asked = question.map_or(&[][..], |question| &question.descriptors);
                let statuses = asked.iter().zip(&answer.statuses);
                let denied = statuses.filter(|(_, status)| status.code == over);
                let denied = denied.map(|(descriptor, _)| keys(descriptor));
                attributes.list("limiterd.descriptors.over_limit", denied);
                Kind::Well
            }
            Err(failure) => {
                let code = failure.code();
                let number = u64::try_from(i32::from(code)).unwrap_or(0);
                attributes.number("rpc.grpc.status_code", number);
                if is_ours(code) {
                    attributes.text("error.type", number.to_string());
                    Kind::Failed
                } else {
                    Kind::Well
                }
            }
        };
        server(&self.traced, name.to_owned(), at, attributes, kind)
    }
}

/// Its keys, joined by commas: values may be secrets.
fn keys(descriptor: &RateLimitDescriptor) -> String {
    let keys = descriptor.entries.iter().map(|entry| entry.key.as_str());
    keys.collect::<Vec<_>>().join(",")
}

/// Whether a status is the server's fault, as OpenTelemetry has it.
const fn is_ours(code: GrpcCode) -> bool {
    matches!(
        code,
        GrpcCode::Unknown
            | GrpcCode::DeadlineExceeded
            | GrpcCode::Unimplemented
            | GrpcCode::Internal
            | GrpcCode::Unavailable
            | GrpcCode::DataLoss
    )
}
