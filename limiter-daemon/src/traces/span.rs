//! What a span is made of. Names of attributes are OpenTelemetry's semantic conventions
//! (<https://opentelemetry.io/docs/specs/semconv/>), where they have one.

use std::borrow::Cow;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, SpanFlags, Status};

use super::context::Traced;

/// Bytes of a value that a client sends.
const MAX_VALUE: usize = 2048;
const NAME: &str = "limiterd";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// When a span began and ended, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    pub began: u64,
    pub ended: u64,
}

/// Whether what the span tells of went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It did, or it is not ours to say.
    Well,
    Failed,
}

/// Attributes under construction.
#[derive(Debug, Default)]
pub struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn push(&mut self, key: &str, value: Value) {
        self.0.push(KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(value) }),
            ..KeyValue::default()
        });
    }

    /// What is long is cut.
    pub fn text<'a>(&mut self, key: &str, value: impl Into<Cow<'a, str>>) {
        let value = cut(value.into());
        self.push(key, Value::StringValue(value));
    }

    pub fn number(&mut self, key: &str, value: u64) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.push(key, Value::IntValue(value));
    }

    pub fn list(&mut self, key: &str, values: impl IntoIterator<Item = String>) {
        let value = |text| AnyValue {
            value: Some(Value::StringValue(cut(Cow::Owned(text)))),
        };
        let values = values.into_iter().map(value).collect();
        self.push(key, Value::ArrayValue(ArrayValue { values }));
    }
}

/// At most [`MAX_VALUE`] bytes.
fn cut(text: Cow<'_, str>) -> String {
    if text.len() <= MAX_VALUE {
        return text.into_owned();
    }
    let end = (0..=MAX_VALUE)
        .rev()
        .find(|end| text.is_char_boundary(*end));
    format!("{}…", &text[..end.unwrap_or(0)])
}

/// A span of who was asked.
#[must_use]
pub fn server(
    traced: &Traced,
    name: String,
    at: Interval,
    Attributes(attributes): Attributes,
    kind: Kind,
) -> Span {
    let mut flags = u32::from(traced.flags());
    flags |= SpanFlags::ContextHasIsRemoteMask as u32;
    if traced.parent.is_some() {
        flags |= SpanFlags::ContextIsRemoteMask as u32;
    }
    let status = match kind {
        Kind::Well => None,
        Kind::Failed => Some(Status {
            code: StatusCode::Error.into(),
            message: String::new(),
        }),
    };
    Span {
        trace_id: traced.trace_id.to_vec(),
        span_id: traced.span_id.to_vec(),
        parent_span_id: traced
            .parent
            .map_or_else(Vec::new, |parent| parent.to_vec()),
        trace_state: traced.state.clone(),
        flags,
        name,
        kind: SpanKind::Server.into(),
        start_time_unix_nano: at.began,
        end_time_unix_nano: at.ended,
        attributes,
        status,
        ..Span::default()
    }
}

/// Who sends the spans.
pub(super) fn resource(service_name: &str) -> Resource {
    let mut attributes = Attributes::default();
    attributes.text("service.name", service_name);
    attributes.text("service.version", VERSION);
    if let Ok(host) = rustix::system::uname().nodename().to_str() {
        attributes.text("host.name", host);
    }
    attributes.number("process.pid", std::process::id().into());
    Resource {
        attributes: attributes.0,
        ..Resource::default()
    }
}

/// `spans` of `resource`, as they are sent.
pub(super) fn of_resource(resource: &Resource, spans: Vec<Span>) -> ResourceSpans {
    ResourceSpans {
        resource: Some(resource.clone()),
        scope_spans: vec![ScopeSpans {
            scope: Some(InstrumentationScope {
                name: NAME.to_owned(),
                version: VERSION.to_owned(),
                ..InstrumentationScope::default()
            }),
            spans,
            ..ScopeSpans::default()
        }],
        ..ResourceSpans::default()
    }
}
