//! The deserializer without input.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};

use super::Type;
use crate::policy::decode::anything::ANYTHING;
use crate::policy::decode::at::{AT, IGNORED, UNHEEDED, UNSUPPORTED};
use crate::policy::decode::scalar::{CODE, NUMBER_OR_TEXT};

/// Whether `path` is `of`, or in it.
fn is_at(path: &str, of: &str) -> bool {
    path.strip_prefix(of)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// What the rounds come to know.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) order: RefCell<Vec<String>>,
    pub(super) types: RefCell<BTreeMap<String, Type>>,
    pub(super) required: RefCell<BTreeSet<String>>,
    pub(super) optional: RefCell<BTreeSet<String>>,
    /// Names that are other names of fields, by struct.
    aliases: RefCell<BTreeMap<(usize, String), &'static str>>,
    /// Other names of fields, by the fields' paths.
    pub(super) also: RefCell<BTreeMap<String, Vec<String>>>,
    /// The field that is given now.
    given: RefCell<String>,
    /// The innermost value that could not be given.
    pub(super) failed: RefCell<Option<String>>,
    /// A field without which there is no value.
    pub(super) missing: RefCell<Option<String>>,
}

/// A struct on the way to a value: its name, its fields, which tell it from others, and its path.
type Inside = (&'static str, &'static [&'static str], String);

pub(super) struct Recorder<'a> {
    path: String,
    inside: Vec<Inside>,
    left_out: &'a BTreeSet<String>,
    probed: Option<&'a str>,
    notes: &'a Notes,
}

impl<'a> Recorder<'a> {
    pub(super) const fn new(
        notes: &'a Notes,
        left_out: &'a BTreeSet<String>,
        probed: Option<&'a str>,
    ) -> Self {
        Self {
            path: String::new(),
            inside: Vec::new(),
            left_out,
            probed,
            notes,
        }
    }

    fn note(&self, holds: Type) {
        let mut types = self.notes.types.borrow_mut();
        if types.insert(self.path.clone(), holds).is_none() {
            self.notes.order.borrow_mut().push(self.path.clone());
        }
    }

    /// What was given last and `field` are two names of one field: from now on the other one than `field`
    /// is left out. If `field` was given last, that is the one before that differs in its spelling only.
    fn alias(&self, fields: &'static [&'static str], field: &'static str) {
        let given = self.notes.given.borrow().clone();
        let name = given.rsplit('.').next().unwrap_or_default();
        let spelt = |name: &str| name.replace('_', "").to_lowercase();
        let other = if name == field {
            let mut others = fields.iter().filter(|other| **other != field);
            others.find(|other| spelt(other) == spelt(field) && !self.is_alias(fields, other))
        } else {
            fields.iter().find(|other| **other == name)
        };
        let other = other.copied().unwrap_or(field);
        let path = self.field(other).path;
        let mut aliases = self.notes.aliases.borrow_mut();
        aliases.insert((fields.as_ptr().addr(), other.to_owned()), field);
        self.notes
            .types
            .borrow_mut()
            .retain(|seen, _| !is_at(seen, &path));
        self.notes
            .order
            .borrow_mut()
            .retain(|seen| !is_at(seen, &path));
        self.notes.failed.borrow_mut().get_or_insert(path);
    }

    /// Whether `name` is known to be another name of a field, which is noted of that.
    fn is_alias(&self, fields: &'static [&'static str], name: &str) -> bool {
        let aliases = self.notes.aliases.borrow();
        let Some(field) = aliases.get(&(fields.as_ptr().addr(), name.to_owned())) else {
            return false;
        };
        let mut also = self.notes.also.borrow_mut();
        let also = also.entry(self.field(field).path).or_default();
        if !also.iter().any(|other| other == name) {
            also.push(name.to_owned());
        }
        true
    }

    fn child(&self, path: String) -> Self {
        Self {
            path,
            inside: self.inside.clone(),
            left_out: self.left_out,
            probed: self.probed,
            notes: self.notes,
        }
    }

    fn field(&self, name: &str) -> Self {
        self.child(match self.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        })
    }

    fn is_given(&self) -> bool {
        let wanted = self.probed.is_none_or(|probed| {
            let optional = self.notes.optional.borrow().contains(&self.path);
            probed != self.path && (is_at(probed, &self.path) || !optional)
        });
        wanted && !self.left_out.contains(&self.path)
    }

    /// What `seed` makes of it, or where it failed.
    fn give<'de, S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Refused> {
        let (path, notes) = (self.path.clone(), self.notes);
        seed.deserialize(self).inspect_err(|_refused| {
            notes.failed.borrow_mut().get_or_insert(path);
        })
    }
}

/// No value could be given.
#[derive(Debug)]
pub(super) struct Refused {
    message: String,
    missing: Option<&'static str>,
    /// It was given before, by another name.
    twice: Option<&'static str>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refused {}

impl de::Error for Refused {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            message: message.to_string(),
            missing: None,
            twice: None,
        }
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self {
            twice: Some(field),
            ..Self::custom("")
        }
    }

    fn missing_field(field: &'static str) -> Self {
        Self {
            missing: Some(field),
            ..Self::custom("")
        }
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $type:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
            self.note(Type::Whole(<$type>::MIN.into(), <$type>::MAX.into()));
            visitor.$visit(1)
        }
    )*};
}

impl<'de> Deserializer<'de> for Recorder<'_> {
    type Error = Refused;

    integers!(
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64
    );

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Refused> {
        Err(de::Error::custom("a value of a known type"))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.note(Type::Boolean);
        visitor.visit_bool(true)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.note(Type::Number);
        visitor.visit_f64(1.0)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.note(Type::Text);
        visitor.visit_str("text")
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.notes.optional.borrow_mut().insert(self.path.clone());
        visitor.visit_some(self)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.note(match name {
            UNSUPPORTED => Type::Unsupported,
            UNHEEDED => Type::Unheeded,
            IGNORED => Type::Ignored,
            _ => return self.deserialize_any(visitor),
        });
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        match name {
            NUMBER_OR_TEXT => {
                self.note(Type::NumberOrText);
                visitor.visit_u64(1)
            }
            CODE => {
                self.note(Type::Code);
                visitor.visit_u16(1)
            }
            ANYTHING => {
                self.note(Type::Anything);
                visitor.visit_unit()
            }
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.note(Type::List);
        let item = self.child(format!("{}[]", self.path));
        let is_there = !self.left_out.contains(&item.path);
        visitor.visit_seq(Item(is_there.then_some(item)))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        match name {
            AT => visitor.visit_seq(Place {
                value: Some(self),
                part: 0,
            }),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.note(Type::Map);
        let value = self.field("*");
        let is_there = !self.left_out.contains(&value.path);
        visitor.visit_map(Entries {
            rest: is_there.then_some(("name", value)).into_iter(),
            value: None,
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let same = |other: &&Inside| other.0 == name && std::ptr::eq(other.1, fields);
        if let Some((_, _, path)) = self.inside.iter().find(same) {
            self.note(Type::Again(path.clone()));
            return Err(de::Error::custom("it would have no end"));
        }
        self.note(Type::Mapping);
        self.inside.push((name, fields, self.path.clone()));
        let given = fields.iter().filter(|name| !self.is_alias(fields, name));
        let given = given.map(|name| (*name, self.field(name)));
        let given = given.filter(|(_, field)| field.is_given());
        let entries = Entries {
            rest: given.collect::<Vec<_>>().into_iter(),
            value: None,
        };
        visitor.visit_map(entries).map_err(|mut refused| {
            if let Some(field) = refused.missing.take() {
                *self.notes.missing.borrow_mut() = Some(self.field(field).path);
            }
            if let Some(field) = refused.twice.take() {
                self.alias(fields, field);
            }
            refused
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.note(Type::OneOf(variants));
        let first: StrDeserializer<'_, Refused> = variants
            .first()
            .copied()
            .unwrap_or_default()
            .into_deserializer();
        visitor.visit_enum(first)
    }

    serde::forward_to_deserialize_any! {
        i128 u128 f32 char bytes byte_buf unit tuple identifier ignored_any
    }
}

/// The one item of a list.
struct Item<'a>(Option<Recorder<'a>>);

impl<'de> SeqAccess<'de> for Item<'_> {
    type Error = Refused;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Refused> {
        self.0.take().map(|item| item.give(seed)).transpose()
    }
}

/// The fields of a struct, or the one entry of a map.
struct Entries<'a, I> {
    rest: I,
    value: Option<Recorder<'a>>,
}

impl<'de, 'a, I: Iterator<Item = (&'static str, Recorder<'a>)>> MapAccess<'de> for Entries<'a, I> {
    type Error = Refused;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Refused> {
        let Some((name, value)) = self.rest.next() else {
            return Ok(None);
        };
        value.notes.given.replace(value.path.clone());
        self.value = Some(value);
        let name: StrDeserializer<'_, Refused> = name.into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Refused> {
        match self.value.take() {
            Some(value) => value.give(seed),
            None => Err(de::Error::custom("a value was asked for before its key")),
        }
    }
}

/// The parts of an [`At`](crate::policy::decode::At): line, column, field, value.
struct Place<'a> {
    value: Option<Recorder<'a>>,
    part: u8,
}

impl<'de> SeqAccess<'de> for Place<'_> {
    type Error = Refused;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Refused> {
        self.part += 1;
        match self.part {
            1 | 2 => seed.deserialize(1_u64.into_deserializer()).map(Some),
            3 => seed.deserialize("".into_deserializer()).map(Some),
            _ => self
                .value
                .take()
                .map(|value| seed.deserialize(value))
                .transpose(),
        }
    }
}
