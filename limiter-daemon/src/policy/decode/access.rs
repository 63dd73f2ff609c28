//! The parts of lists, mappings and places, as serde asks for them.

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess};

use super::decoder::Decoder;
use super::fault::Fault;
use crate::policy::yaml::{Key, Node};

/// The items of a list.
pub(super) struct Items<'d, 'a> {
    pub(super) list: &'d Decoder<'a>,
    pub(super) items: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
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
pub(super) struct Fields<'a> {
    pub(super) entries: std::vec::IntoIter<(&'a Key, Decoder<'a>)>,
    pub(super) value: Option<Decoder<'a>>,
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

/// The parts of an [`At`](super::At): line, column, field, value.
pub(super) struct Place<'a> {
    pub(super) decoder: Decoder<'a>,
    pub(super) part: u8,
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
