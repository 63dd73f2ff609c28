//! The dynamic metadata of an answer, which Envoy keeps with the request.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

use super::json::unit_name;
use super::proto::{RateLimitDescriptor, RateLimitRequest};
use crate::engine::domain::Outcome;
use crate::policy::plan::{Metadata, MetadataValue};

/// The question, by the names that the reference service has for its parts.
pub(super) fn echo(request: &RateLimitRequest) -> Struct {
    let descriptors = request.descriptors.iter().map(descriptor).collect();
    let mut fields = vec![
        ("domain", Kind::StringValue(request.domain.clone())),
        ("descriptors", list(descriptors)),
    ];
    if request.hits_addend > 0 {
        let hits = f64::from(request.hits_addend);
        fields.push(("hitsAddend", Kind::NumberValue(hits)));
    }
    structure(fields)
}

fn descriptor(asked: &RateLimitDescriptor) -> Kind {
    let entries = asked.entries.iter();
    let entries = entries.map(|one| Kind::StringValue(format!("{}={}", one.key, one.value)));
    let mut fields = vec![("entries", list(entries.collect()))];
    if let Some(limit) = asked.limit {
        let unit = unit_name(limit.unit);
        let text = format!("requests_per_unit:{} unit:{unit}", limit.requests_per_unit);
        fields.push(("limit", Kind::StringValue(text)));
    }
    if let Some(hits) = asked.hits_addend {
        fields.push(("hitsAddend", Kind::NumberValue(hits as f64)));
    }
    Kind::StructValue(structure(fields))
}

fn list(kinds: Vec<Kind>) -> Kind {
    let values = kinds.into_iter().map(|kind| Value { kind: Some(kind) });
    Kind::ListValue(ListValue {
        values: values.collect(),
    })
}

fn structure(fields: Vec<(&str, Kind)>) -> Struct {
    let fields = fields.into_iter();
    let fields = fields.map(|(name, kind)| (name.to_owned(), Value { kind: Some(kind) }));
    Struct {
        fields: fields.collect(),
    }
}

/// Of a denied request, which descriptor and which rule it was, and after how long it would conform;
/// and what the files say of limits that descriptors conform to.
pub(super) fn dynamic(domain: &str, echo: Struct, outcome: &Outcome) -> Option<Struct> {
    let mut fields = echo;
    if let Some(index) = outcome.decisive.filter(|_| outcome.over_limit) {
        let status = &outcome.statuses[index];
        let text = |text: &str| Kind::StringValue(text.to_owned());
        let rule = status.limited.as_ref().map_or("", |limited| limited.rule());
        // Exact in a double for 285,000 years.
        let number = |number: u64| Kind::NumberValue(number as f64);
        let told = [
            ("domain", text(domain)),
            ("rule", text(rule)),
            ("descriptor", number(index as u64)),
            ("retry_after_ms", number(status.reset.div_ceil(1_000_000))),
        ];
        let told = told.map(|(name, kind)| (name.to_owned(), Value { kind: Some(kind) }));
        fields.fields.extend(told);
    }
    let mut metadata = Struct::default();
    let conform = outcome.statuses.iter().filter(|status| !status.over_limit);
    for limited in conform.filter_map(|status| status.limited.as_ref()) {
        if let Some(more) = limited.metadata() {
            merge(&mut metadata, more);
        }
    }
    if !metadata.fields.is_empty() {
        let kind = Some(Kind::StructValue(metadata));
        fields.fields.insert("metadata".to_owned(), Value { kind });
    }
    (!fields.fields.is_empty()).then_some(fields)
}

/// Adds what is not there yet; maps that both have are put together.
fn merge(metadata: &mut Struct, more: &Metadata) {
    for (name, value) in more {
        let there = metadata.fields.get_mut(name);
        match (there.and_then(|there| there.kind.as_mut()), value) {
            (None, value) => drop(metadata.fields.insert(name.clone(), proto_value(value))),
            (Some(Kind::StructValue(there)), MetadataValue::Map(more)) => merge(there, more),
            (Some(_), _) => {}
        }
    }
}

fn proto_value(value: &MetadataValue) -> Value {
    let kind = match value {
        MetadataValue::Null => Kind::NullValue(0),
        MetadataValue::Bool(value) => Kind::BoolValue(*value),
        MetadataValue::Number(value) => Kind::NumberValue(*value),
        MetadataValue::Text(value) => Kind::StringValue(value.clone()),
        MetadataValue::List(list) => Kind::ListValue(ListValue {
            values: list.iter().map(proto_value).collect(),
        }),
        MetadataValue::Map(map) => {
            let fields = map.iter();
            let fields = fields.map(|(name, value)| (name.clone(), proto_value(value)));
            Kind::StructValue(Struct {
                fields: fields.collect(),
            })
        }
    };
    Value { kind: Some(kind) }
}
