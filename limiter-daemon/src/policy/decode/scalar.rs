//! A field that may be a whole number or a text, such as a quantity.

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
