//! Fields that may be written in two ways: a whole number or a text, such as a quantity; a number, or
//! a mapping with nothing but one.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Visitor};

/// The name by which the decoder knows it.
pub(super) const NUMBER_OR_TEXT: &str = "$limiterd::NumberOrText";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NumberOrText {
    Number(u64),
    Text(String),
}

impl<'de> Deserialize<'de> for NumberOrText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(NUMBER_OR_TEXT, NumberOrTextVisitor)
    }
}

struct NumberOrTextVisitor;

impl Visitor<'_> for NumberOrTextVisitor {
    type Value = NumberOrText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number or a text")
    }

    fn visit_u64<E>(self, value: u64) -> Result<NumberOrText, E> {
        Ok(NumberOrText::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<NumberOrText, E> {
        Ok(NumberOrText::Text(value.to_owned()))
    }
}

/// The name by which the decoder knows it.
pub(super) const CODE: &str = "$limiterd::Code";

/// A status, as the number itself or as `{code: number}`, which is what Envoy's API has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) u16);

#[derive(serde::Deserialize)]
struct InMapping {
    code: u16,
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(CODE, CodeVisitor)
    }
}

struct CodeVisitor;

impl<'de> Visitor<'de> for CodeVisitor {
    type Value = Code;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number, or a mapping with a `code`")
    }

    fn visit_u16<E>(self, value: u16) -> Result<Code, E> {
        Ok(Code(value))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, mapping: D) -> Result<Code, D::Error> {
        InMapping::deserialize(mapping).map(|found| Code(found.code))
    }
}
