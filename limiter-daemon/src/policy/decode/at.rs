//! Field types that the decoder treats in a way of its own.
//!
//! Both reach it through serde's data model under a reserved type name, as `Spanned` types of other
//! crates do; deserialized by anything else than [`super::decoder`] they fail.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

use crate::policy::findings::Mark;

pub(super) const AT: &str = "$limiterd::At";
pub(super) const UNSUPPORTED: &str = "$limiterd::Unsupported";
pub(super) const IGNORED: &str = "$limiterd::Ignored";
pub(super) const UNHEEDED: &str = "$limiterd::Unheeded";

/// A value that remembers its place, for findings that come after decoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) mark: Mark,
}

impl<T> Deref for At<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// A field that exists in the dialect and is not supported: present, it is an error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unsupported;

/// A field that exists in the dialect and changes nothing here: present, it is a warning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unheeded;

/// A field that may hold anything, and means nothing here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ignored;

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_tuple_struct(AT, 4, AtVisitor(PhantomData))
    }
}

struct AtVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for AtVisitor<T> {
    type Value = At<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("line, column, field and value")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<At<T>, A::Error> {
        let gone = || A::Error::custom("a part of the place is missing");
        let line = access.next_element()?.ok_or_else(gone)?;
        let column = access.next_element()?.ok_or_else(gone)?;
        let field = access.next_element()?.ok_or_else(gone)?;
        let value = access.next_element()?.ok_or_else(gone)?;
        Ok(At {
            value,
            mark: Mark {
                line,
                column,
                field,
            },
        })
    }
}

struct UnitVisitor;

impl Visitor<'_> for UnitVisitor {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Unsupported {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_unit_struct(UNSUPPORTED, UnitVisitor)
            .map(|()| Self)
    }
}

impl<'de> Deserialize<'de> for Unheeded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_unit_struct(UNHEEDED, UnitVisitor)
            .map(|()| Self)
    }
}

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_unit_struct(IGNORED, UnitVisitor)
            .map(|()| Self)
    }
}
