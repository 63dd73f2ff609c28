//! The question and the answer as JSON, in the names of the messages (protobuf's JSON form).

use prost_types::Struct;
use prost_types::value::Kind;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::proto::{
    Code, Entry, RateLimitDescriptor, RateLimitOverride, RateLimitRequest, RateLimitResponse, Unit,
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Request {
    #[serde(default)]
    domain: String,
    #[serde(default)]
    descriptors: Vec<Descriptor>,
    #[serde(default, alias = "hits_addend")]
    hits_addend: u32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Descriptor {
    #[serde(default)]
    entries: Vec<Pair>,
    limit: Option<Limit>,
    #[serde(alias = "hits_addend")]
    hits_addend: Option<Number>,
    #[serde(default, alias = "is_negative_hits")]
    is_negative_hits: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Limit {
    #[serde(default, alias = "requests_per_unit")]
    requests_per_unit: u32,
    unit: Name,
}

/// Protobuf writes 64 bits as a string, and reads both.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Number {
    Plain(u64),
    Text(String),
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Name {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

/// Reads a question.
///
/// # Errors
/// What is wrong with it.
pub(super) fn request(body: &[u8]) -> Result<RateLimitRequest, String> {
    let request: Request = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let descriptors: Result<_, String> = request.descriptors.into_iter().map(descriptor).collect();
    Ok(RateLimitRequest {
        domain: request.domain,
        descriptors: descriptors?,
        hits_addend: request.hits_addend,
    })
}

fn descriptor(raw: Descriptor) -> Result<RateLimitDescriptor, String> {
    let hits_addend = match raw.hits_addend {
        None => None,
        Some(Number::Plain(hits)) => Some(hits),
        Some(Number::Text(text)) => Some(
            text.parse()
                .map_err(|error| format!("hitsAddend `{text}`: {error}"))?,
        ),
    };
    let entries = raw.entries.into_iter();
    Ok(RateLimitDescriptor {
        entries: entries
            .map(|Pair { key, value }| Entry { key, value })
            .collect(),
        limit: raw.limit.map(|limit| RateLimitOverride {
            requests_per_unit: limit.requests_per_unit,
            unit: unit(limit.unit).into(),
        }),
        hits_addend,
        is_negative_hits: raw.is_negative_hits,
    })
}

const fn unit(name: Name) -> Unit {
    match name {
        Name::Second => Unit::Second,
        Name::Minute => Unit::Minute,
        Name::Hour => Unit::Hour,
        Name::Day => Unit::Day,
        Name::Week => Unit::Week,
        Name::Month => Unit::Month,
        Name::Year => Unit::Year,
    }
}

/// Writes an answer; as protobuf does, without fields that are zero.
pub(super) fn response(response: &RateLimitResponse) -> Value {
    let statuses = response.statuses.iter().map(|status| {
        let mut one = json!({ "code": code(status.code) });
        if let Some(limit) = &status.current_limit {
            let mut current = json!({
                "requestsPerUnit": limit.requests_per_unit,
                "unit": unit_name(limit.unit),
            });
            if !limit.name.is_empty() {
                current["name"] = json!(limit.name);
            }
            one["currentLimit"] = current;
        }
        if status.limit_remaining > 0 {
            one["limitRemaining"] = json!(status.limit_remaining);
        }
        if let Some(reset) = &status.duration_until_reset {
            one["durationUntilReset"] = json!(format!("{}s", reset.seconds));
        }
        one
    });
    let mut answer = json!({
        "overallCode": code(response.overall_code),
        "statuses": statuses.collect::<Vec<_>>(),
    });
    for (name, headers) in [
        ("responseHeadersToAdd", &response.response_headers_to_add),
        ("requestHeadersToAdd", &response.request_headers_to_add),
    ] {
        if !headers.is_empty() {
            let headers = headers.iter();
            let headers = headers.map(|one| json!({ "key": one.key, "value": one.value }));
            answer[name] = headers.collect();
        }
    }
    if let Some(metadata) = &response.dynamic_metadata {
        answer["dynamicMetadata"] = structure(metadata);
    }
    answer
}

fn structure(metadata: &Struct) -> Value {
    let fields = metadata.fields.iter();
    let fields = fields.map(|(name, value)| (name.clone(), plain(value.kind.as_ref())));
    Value::Object(fields.collect())
}

fn plain(kind: Option<&Kind>) -> Value {
    match kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => json!(value),
        Some(Kind::StringValue(text)) => json!(text),
        Some(Kind::NumberValue(number)) => json!(number),
        Some(Kind::StructValue(metadata)) => structure(metadata),
        Some(Kind::ListValue(list)) => {
            let values = list.values.iter();
            values.map(|value| plain(value.kind.as_ref())).collect()
        }
    }
}

fn code(code: i32) -> &'static str {
    Code::try_from(code).map_or("UNKNOWN", |code| match code {
        Code::Unknown => "UNKNOWN",
        Code::Ok => "OK",
        Code::OverLimit => "OVER_LIMIT",
    })
}

pub(super) fn unit_name(unit: i32) -> &'static str {
    Unit::try_from(unit).map_or("UNKNOWN", |unit| match unit {
        Unit::Unknown => "UNKNOWN",
        Unit::Second => "SECOND",
        Unit::Minute => "MINUTE",
        Unit::Hour => "HOUR",
        Unit::Day => "DAY",
        Unit::Week => "WEEK",
        Unit::Month => "MONTH",
        Unit::Year => "YEAR",
    })
}
