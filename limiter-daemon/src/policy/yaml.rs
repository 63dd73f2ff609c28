//! One YAML document as a tree that knows where each value stands.
//!
//! The resources are decoded from this tree (see [`super::decode`]) and not straight from the parser,
//! because a parser's deserializer stops at the first error, and a file should be told all of them.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{MessageFormatter, Spanned, UserMessageFormatter};

use super::findings::{Mark, Scope};
use super::source::Document;

/// The most values of one document: enough for lists of some 100,000 CIDRs.
const MAX_NODES: usize = 1_000_000;

/// The most values of one document that come of aliases.
const MAX_REPEATED: usize = 100_000;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) line: u64,
    pub(crate) column: u64,
    pub(crate) value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    String(String),
    List(Vec<Node>),
    /// In the order of the file; keys may occur twice.
    Map(Vec<(Key, Node)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) line: u64,
    pub(crate) column: u64,
    pub(crate) name: String,
}

impl Node {
    /// The value of a key of a mapping.
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries
                .iter()
                .find(|(key, _)| key.name == name)
                .map(|(_, node)| node),
            _ => None,
        }
    }

    /// A mapping with no more than these keys.
    pub(crate) fn only(&self, names: &[&str]) -> Self {
        let value = match &self.value {
            Value::Map(entries) => Value::Map(
                entries
                    .iter()
                    .filter(|(key, _)| names.contains(&key.name.as_str()))
                    .cloned()
                    .collect(),
            ),
            other => other.clone(),
        };
        Self {
            line: self.line,
            column: self.column,
            value,
        }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    fn shift(&mut self, lines: u64) {
        self.line += lines;
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.shift(lines)),
            Value::Map(entries) => {
                for (key, node) in entries {
                    key.line += lines;
                    node.shift(lines);
                }
            }
            _ => {}
        }
    }
}

/// Parses a document; `None` if it is empty, or is no YAML (which is reported).
pub(crate) fn parse(document: Document<'_>, scope: &mut Scope<'_>) -> Option<Node> {
    let options = serde_saphyr::options! {
        // Found and told by the decoder, which knows the field.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        // As Kubernetes reads it: what looks like a number with a leading zero or underscores is not one here.
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
        with_snippet: false,
        budget: serde_saphyr::budget! { max_nodes: MAX_NODES, max_events: 4 * MAX_NODES },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPEATED },
    };
    match serde_saphyr::from_str_with_options::<Node>(document.text, options) {
        Ok(Node {
            value: Value::Null, ..
        }) => None,
        Ok(mut node) => {
            node.shift(document.lines_before);
            Some(node)
        }
        Err(error) => {
            let place = error.location().unwrap_or(serde_saphyr::Location::UNKNOWN);
            let mark = Mark {
                line: place.line().max(1) + document.lines_before,
                column: place.column().max(1),
                field: String::new(),
            };
            let (message, remedy) = match &error {
                serde_saphyr::Error::MultipleDocuments { .. } => (
                    "another document begins here".into(),
                    "write `---` on a line before it",
                ),
                _ => (UserMessageFormatter.format_message(&error), ""),
            };
            scope.error(&mark, format!("this is not valid YAML: {message}"), remedy);
            None
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        let place = spanned.referenced;
        Ok(Self {
            line: place.line(),
            column: place.column(),
            value: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(Value::Int(i128::try_from(value).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, node)) = access.next_entry::<Spanned<String>, Node>()? {
            let place = key.referenced;
            entries.push((
                Key {
                    line: place.line(),
                    column: place.column(),
                    name: key.value,
                },
                node,
            ));
        }
        Ok(Value::Map(entries))
    }
}
