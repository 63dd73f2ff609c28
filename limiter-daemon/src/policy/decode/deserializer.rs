//! serde's side of [`Decoder`]: what each type asks for.

use serde::de::value::StrDeserializer;
use serde::de::{Deserializer, IntoDeserializer, Visitor};

use super::access::{Fields, Items, Place};
use super::anything::ANYTHING;
use super::at::{AT, IGNORED, UNHEEDED, UNSUPPORTED};
use super::decoder::Decoder;
use super::fault::{Cause, Fault};
use super::scalar::{CODE, NUMBER_OR_TEXT};
use crate::policy::suggest;
use crate::policy::yaml::Value;

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

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node.value {
            // Beyond 2^53 the nearest one: no field has a use for such numbers.
            Value::Int(value) => visitor.visit_f64(value as f64),
            Value::Float(value) if value.is_finite() => visitor.visit_f64(value),
            _ => Err(self.expected("a number")),
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
                let message = format!("`{}` is not supported yet", key.name);
                let remedy = "remove it: limiterd would not enforce it";
                self.note_field(key, message, remedy, Cause::Unsupported);
            }
            (UNHEEDED, Some(key)) => {
                let message = format!("`{}` has no effect in limiterd", key.name);
                self.note_field(key, message, "remove it", Cause::Unheeded);
            }
            (IGNORED, _) => {}
            _ => return Err(self.expected("nothing")),
        }
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match (name, &self.node.value) {
            (NUMBER_OR_TEXT, _) => {}
            (CODE, Value::Map(_)) => return visitor.visit_newtype_struct(self),
            (CODE, _) => return self.deserialize_u16(visitor),
            (ANYTHING, Value::Null) => return visitor.visit_unit(),
            (ANYTHING, Value::Bool(value)) => return visitor.visit_bool(*value),
            (ANYTHING, Value::Int(_) | Value::Float(_)) => return self.deserialize_f64(visitor),
            (ANYTHING, Value::String(value)) => return visitor.visit_str(value),
            (ANYTHING, Value::List(_)) => return self.deserialize_seq(visitor),
            (ANYTHING, Value::Map(_)) => return self.deserialize_map(visitor),
            _ => return visitor.visit_newtype_struct(self),
        }
        match self.node.value {
            Value::String(_) => self.deserialize_str(visitor),
            _ => self.deserialize_u64(visitor),
        }
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
        i128 u128 f32 char bytes byte_buf unit tuple identifier ignored_any
    }
}
