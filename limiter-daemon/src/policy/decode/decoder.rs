//! The deserializer over a tree.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde::de::value::StrDeserializer;
use serde::de::{Deserializer, IntoDeserializer, Visitor};

use super::access::{Fields, Items, Place};
use super::at::{AT, IGNORED, UNSUPPORTED};
use super::fault::{Cause, Fault};
use crate::policy::findings::Mark;
use crate::policy::suggest;
use crate::policy::yaml::{Key, Node, Value};

const STRING: &str = "a string";
const WHOLE_NUMBER: &str = "a whole number";

/// 2^64, beyond all integers that a file may hold.
const MAX_INTEGER: f64 = 18_446_744_073_709_551_616.0;

/// The path of a field of the mapping at `parent`.
pub(super) fn field_path(parent: &str, name: &str) -> String {
    match (parent, name.contains(['.', '/', '[', ' '])) {
        ("", _) => name.to_owned(),
        (parent, true) => format!("{parent}[{name}]"),
        (parent, false) => format!("{parent}.{name}"),
    }
}

#[derive(Clone)]
pub(super) struct Decoder<'a> {
    node: &'a Node,
    /// The key it is the value of.
    key: Option<&'a Key>,
    pub(super) path: String,
    /// Paths of values found wrong before.
    pub(super) left_out: &'a BTreeSet<String>,
    /// Findings that decoding goes on after.
    notes: &'a RefCell<Vec<Fault>>,
}

impl<'a> Decoder<'a> {
    pub(super) const fn new(
        node: &'a Node,
        left_out: &'a BTreeSet<String>,
        notes: &'a RefCell<Vec<Fault>>,
    ) -> Self {
        Self {
            node,
            key: None,
            path: String::new(),
            left_out,
            notes,
        }
    }

    pub(super) fn mark(&self) -> Mark {
        Mark {
            line: self.node.line,
            column: self.node.column,
            field: self.path.clone(),
        }
    }

    fn expected(&self, due: &str) -> Fault {
        let found = match &self.node.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => format!("the boolean {value}"),
            Value::Int(value) => format!("the number {value}"),
            Value::Float(value) => format!("the number {value}"),
            Value::String(text) => format!("the string \"{text}\""),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        };
        let remedy = match (&self.node.value, due) {
            (Value::Int(value), STRING) => format!("write \"{value}\", in quotes"),
            (Value::Bool(_) | Value::Float(_), STRING) => "write it in quotes".to_owned(),
            (Value::String(_), WHOLE_NUMBER) => {
                "write plain digits, without quotes and leading zeros".to_owned()
            }
            _ => String::new(),
        };
        Fault::new(
            self.mark(),
            format!("expected {due}, found {found}"),
            remedy,
        )
    }

    fn int(&self, least: i128, most: i128) -> Result<i128, Fault> {
        let out_of_range = |value: &dyn std::fmt::Display| {
            let message = format!("{value} is out of range");
            Fault::new(self.mark(), message, format!("it may be {least} to {most}"))
        };
        match self.node.value {
            Value::Int(value) if (least..=most).contains(&value) => Ok(value),
            Value::Int(value) => Err(out_of_range(&value)),
            // The parser takes what is larger than any integer for a float.
            Value::Float(value) if value.abs() >= MAX_INTEGER => Err(out_of_range(&value)),
            _ => Err(self.expected(WHOLE_NUMBER)),
        }
    }

    fn str(&self) -> Result<&'a str, Fault> {
        self.node.as_str().ok_or_else(|| self.expected(STRING))
    }

    pub(super) fn child(&self, node: &'a Node, key: Option<&'a Key>, path: String) -> Self {
        Self {
            node,
            key,
            path,
            left_out: self.left_out,
            notes: self.notes,
        }
    }

    fn note_unknown(&self, key: &Key, mark: Mark, fields: &'static [&'static str]) {
        let remedy = suggest::remedy(&key.name, fields.iter().copied(), "the fields here are");
        let cause = match suggest::nearest(&key.name, fields.iter().copied()) {
            Some(near) => Cause::Misspelt(field_path(&self.path, near)),
            None => Cause::Wrong,
        };
        let fault = Fault::new(mark, format!("unknown field `{}`", key.name), remedy);
        self.notes.borrow_mut().push(Fault { cause, ..fault });
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
            let path = field_path(&self.path, &key.name);
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
                self.note_unknown(key, mark, fields);
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
                let message = format!("`{}` is not supported yet", key.name);
                let fault = Fault::new(mark, message, "remove it: limiterd would not enforce it");
                self.notes.borrow_mut().push(Fault {
                    cause: Cause::Unsupported,
                    ..fault
                });
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
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let Some(text) = self.node.as_str() else {
            return Err(self.expected(&format!(
                "one of {}",
                suggest::listed(variants.iter().copied())
            )));
        };
        let name: StrDeserializer<'_, Fault> = text.into_deserializer();
        visitor
            .visit_enum(name)
            .map_err(|fault| fault.or_at(self.mark()))
    }

    serde::forward_to_deserialize_any! {
        i128 u128 f32 f64 char bytes byte_buf unit tuple identifier ignored_any
    }
}
