//! Decodes a tree into the structs that mirror the files, strictly.
//!
//! A serde deserializer of our own, for three things that a parser's does not do: a struct needs no
//! attribute to refuse unknown fields (it could be forgotten); a finding does not end the work; and
//! every finding has the path of its field and its place.
//!
//! A value of the wrong type leaves nothing that could stand in its place. It is reported, left out, and
//! the document decoded again for the next finding; the result is then dropped.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess,
    Visitor,
};

use super::at::{AT, IGNORED, UNSUPPORTED};
use super::fault::Fault;
use super::findings::{Mark, Scope};
use super::suggest;
use super::yaml::{Key, Node, Value};

/// How many values of the wrong type are reported of one document.
const MAX_FAULTS: usize = 32;

/// Decodes `node`; `None` after any error in it.
pub(crate) fn decode<T: DeserializeOwned>(node: &Node, scope: &mut Scope<'_>) -> Option<T> {
    let mut left_out = BTreeSet::new();
    let mut reported = BTreeSet::new();
    for _ in 0..MAX_FAULTS {
        let notes = RefCell::new(Vec::new());
        let decoder = Decoder {
            node,
            key: None,
            path: String::new(),
            left_out: &left_out,
            notes: &notes,
        };
        let result = T::deserialize(decoder);
        for note in notes.into_inner() {
            report(note, &mut reported, scope);
        }
        match result {
            Ok(decoded) => return reported.is_empty().then_some(decoded),
            Err(fault) => {
                let path = fault.mark.field.clone();
                // A field that is missing because it was left out has been reported.
                if !(fault.missing && left_out.iter().any(|gone| is_child(gone, &path))) {
                    report(fault, &mut reported, scope);
                }
                if path.is_empty() || !left_out.insert(path) {
                    return None;
                }
            }
        }
    }
    None
}

fn report(fault: Fault, reported: &mut BTreeSet<(String, String)>, scope: &mut Scope<'_>) {
    if reported.insert((fault.mark.field.clone(), fault.message.clone())) {
        scope.error(&fault.mark, fault.message, fault.remedy);
    }
}

/// Whether `path` is a field of the mapping at `parent`.
fn is_child(path: &str, parent: &str) -> bool {
    match path.strip_prefix(parent) {
        Some(rest) if parent.is_empty() => !rest.contains('.'),
        Some(rest) => rest
            .strip_prefix('.')
            .is_some_and(|name| !name.contains('.')),
        None => false,
    }
}

#[derive(Clone)]
struct Decoder<'a> {
    node: &'a Node,
    /// The key it is the value of.
    key: Option<&'a Key>,
    path: String,
    /// Paths of values found wrong before.
    left_out: &'a BTreeSet<String>,
    /// Findings that decoding goes on after.
    notes: &'a RefCell<Vec<Fault>>,
}

impl<'a> Decoder<'a> {
    fn mark(&self) -> Mark {
        Mark {
            line: self.node.line,
            column: self.node.column,
            field: self.path.clone(),
        }
    }

    fn expected(&self, due: &str) -> Fault {
        let (found, remedy) = match &self.node.value {
            Value::Null => ("nothing".to_owned(), String::new()),
            Value::Bool(value) if due == "a string" => (
                format!("the boolean {value}"),
                "write it in quotes".to_owned(),
            ),
            Value::Bool(value) => (format!("the boolean {value}"), String::new()),
            Value::Int(value) if due == "a string" => (
                format!("the number {value}"),
                format!("write \"{value}\", in quotes"),
            ),
            Value::Float(value) if due == "a string" => (
                format!("the number {value}"),
                "write it in quotes".to_owned(),
            ),
            Value::Int(value) => (format!("the number {value}"), String::new()),
            Value::Float(value) => (format!("the number {value}"), String::new()),
            Value::String(text) if text.parse::<u64>().is_ok() && due == "a whole number" => (
                format!("the string \"{text}\""),
                "write it without quotes and leading zeros".to_owned(),
            ),
            Value::String(text) => (format!("the string \"{text}\""), String::new()),
            Value::List(_) => ("a list".to_owned(), String::new()),
            Value::Map(_) => ("a mapping".to_owned(), String::new()),
        };
        Fault::new(
            self.mark(),
            format!("expected {due}, found {found}"),
            remedy,
        )
    }

    fn int(&self, least: i128, most: i128) -> Result<i128, Fault> {
        match self.node.value {
            Value::Int(value) if (least..=most).contains(&value) => Ok(value),
            Value::Int(value) => Err(Fault::new(
                self.mark(),
                format!("{value} is out of range"),
                format!("it may be {least} to {most}"),
            )),
            Value::Float(value) => Err(Fault::new(
                self.mark(),
                format!("expected a whole number, found {value}"),
                format!("it may be {least} to {most}"),
            )),
            _ => Err(self.expected("a whole number")),
        }
    }

    fn str(&self) -> Result<&'a str, Fault> {
        self.node.as_str().ok_or_else(|| self.expected("a string"))
    }

    fn child(&self, node: &'a Node, key: Option<&'a Key>, path: String) -> Self {
        Self {
            node,
            key,
            path,
            left_out: self.left_out,
            notes: self.notes,
        }
    }

    fn field(&self, name: &str) -> String {
        match (self.path.as_str(), name.contains(['.', '/', '[', ' '])) {
            ("", _) => name.to_owned(),
            (path, true) => format!("{path}[{name}]"),
            (path, false) => format!("{path}.{name}"),
        }
    }

    /// The entries of a mapping without repetitions and, for a struct, without unknown fields.
    fn entries(
        &self,
        fields: Option<&'static [&'static str]>,
    ) -> Result<Vec<(&'a Key, Self)>, Fault> {
        let Value::Map(entries) = &self.node.value else {
            return Err(self.expected("a mapping"));
        };
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut kept = Vec::with_capacity(entries.len());
        for (key, node) in entries {
            let path = self.field(&key.name);
            let mark = Mark {
                line: key.line,
                column: key.column,
                field: path.clone(),
            };
            if !seen.insert(&key.name) {
                let message = format!("the field `{}` is given twice", key.name);
                self.notes
                    .borrow_mut()
                    .push(Fault::new(mark, message, "keep one of them"));
            } else if let Some(fields) =
                fields.filter(|fields| !fields.contains(&key.name.as_str()))
            {
                let message = format!("unknown field `{}`", key.name);
                let remedy =
                    suggest::remedy(&key.name, fields.iter().copied(), "the fields here are");
                self.notes
                    .borrow_mut()
                    .push(Fault::new(mark, message, remedy));
            } else if !self.left_out.contains(&path) {
                kept.push((key, self.child(node, Some(key), path)));
            }
        }
        Ok(kept)
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $type:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            let value = self.int(<$type>::MIN.into(), <$type>::MAX.into())?;
            let value = <$type>::try_from(value).map_err(|error| Fault::new(self.mark(), error.to_string(), ""))?;
            visitor.$visit(value)
        }
    )*};
}

impl<'de> Deserializer<'de> for Decoder<'_> {
    type Error = Fault;

    integers!(
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64
    );

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Fault> {
        Err(self.expected("a value of a known type"))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node.value {
            Value::Bool(value) => visitor.visit_bool(value),
            _ => Err(self.expected("true or false")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_str(self.str()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match (name, self.key) {
            (UNSUPPORTED, Some(key)) => {
                let mark = Mark {
                    line: key.line,
                    column: key.column,
                    field: self.path,
                };
                self.notes.borrow_mut().push(Fault::new(
                    mark,
                    format!("`{}` is not supported yet", key.name),
                    "remove it: limiterd would not enforce it",
                ));
            }
            (IGNORED, _) => {}
            _ => return Err(self.expected("nothing")),
        }
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            // As Kubernetes reads it.
            Value::Null => visitor.visit_seq(Items {
                list: &self,
                items: [].iter().enumerate(),
            }),
            Value::List(items) => visitor.visit_seq(Items {
                list: &self,
                items: items.iter().enumerate(),
            }),
            _ => Err(self.expected("a list")),
        }
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match name {
            AT => visitor.visit_seq(Place {
                decoder: self,
                part: 0,
            }),
            _ => Err(self.expected("a value of a known type")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let entries = self.entries(None)?;
        visitor
            .visit_map(Fields {
                entries: entries.into_iter(),
                value: None,
            })
            .map_err(|fault| fault.or_at(self.mark()))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let entries = self.entries(Some(fields))?;
        visitor
            .visit_map(Fields {
                entries: entries.into_iter(),
                value: None,
            })
            .map_err(|fault| fault.or_at(self.mark()))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let name: StrDeserializer<'_, Fault> = self.str()?.into_deserializer();
        visitor
            .visit_enum(name)
            .map_err(|fault| fault.or_at(self.mark()))
    }

    serde::forward_to_deserialize_any! {
        i128 u128 f32 f64 char bytes byte_buf unit tuple identifier ignored_any
    }
}

/// The items of a list.
struct Items<'d, 'a> {
    list: &'d Decoder<'a>,
    items: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        for (index, node) in self.items.by_ref() {
            let path = format!("{}[{index}]", self.list.path);
            if !self.list.left_out.contains(&path) {
                let item = self.list.child(node, None, path);
                let mark = item.mark();
                return seed
                    .deserialize(item)
                    .map(Some)
                    .map_err(|fault| fault.or_at(mark));
            }
        }
        Ok(None)
    }
}

/// The entries of a mapping.
struct Fields<'a> {
    entries: std::vec::IntoIter<(&'a Key, Decoder<'a>)>,
    value: Option<Decoder<'a>>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        let Some((key, value)) = self.entries.next() else {
            return Ok(None);
        };
        self.value = Some(value);
        let name: StrDeserializer<'_, Fault> = key.name.as_str().into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let Some(value) = self.value.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        let mark = value.mark();
        seed.deserialize(value).map_err(|fault| fault.or_at(mark))
    }
}

/// The parts of an [`At`](super::at::At): line, column, field, value.
struct Place<'a> {
    decoder: Decoder<'a>,
    part: u8,
}

impl<'de> SeqAccess<'de> for Place<'_> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        self.part += 1;
        let mark = self.decoder.mark();
        match self.part {
            1 => seed.deserialize(mark.line.into_deserializer()).map(Some),
            2 => seed.deserialize(mark.column.into_deserializer()).map(Some),
            3 => seed.deserialize(mark.field.into_deserializer()).map(Some),
            4 => seed
                .deserialize(self.decoder.clone())
                .map(Some)
                .map_err(|fault| fault.or_at(mark)),
            _ => Ok(None),
        }
    }
}
