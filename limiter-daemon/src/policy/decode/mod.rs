//! Decodes a tree into the structs that mirror the files, strictly.
//!
//! A serde deserializer of our own, for three things that a parser's does not do: a struct needs no
//! attribute to refuse unknown fields (it could be forgotten); a finding does not end the work; and
//! every finding has the path of its field and its place.
//!
//! A value of the wrong type leaves nothing that could stand in its place. It is reported, left out, and
//! the document decoded again for the next finding; the result is then dropped.

mod access;
mod anything;
mod at;
mod decoder;
mod deserializer;
mod fault;
mod scalar;
mod shape;

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde::de::DeserializeOwned;

use super::findings::Scope;
use super::yaml::Node;
pub(crate) use at::{At, Ignored, Unheeded, Unsupported};
use decoder::{Decoder, field_path};
use fault::{Cause, Fault};
pub(crate) use scalar::{Code, NumberOrText};
pub(crate) use shape::shape;
pub use shape::{Field, Type};

/// How many values of the wrong type are reported of one document.
const MAX_FAULTS: usize = 32;

/// Decodes `node`; `None` after an error in it. What is only not supported yet does not count as one here:
/// the rest can be checked all the same.
pub(crate) fn decode<T: DeserializeOwned>(node: &Node, scope: &mut Scope<'_>) -> Option<T> {
    let mut report = Report::default();
    let mut left_out = BTreeSet::new();
    for _ in 0..MAX_FAULTS {
        let notes = RefCell::new(Vec::new());
        let result = T::deserialize(Decoder::new(node, &left_out, &notes));
        for note in notes.into_inner() {
            report.add(note, scope);
        }
        match result {
            Ok(decoded) => return (!report.spoilt).then_some(decoded),
            Err(fault) => {
                let path = fault.mark.field.clone();
                let told = matches!(&fault.cause, Cause::Missing(name)
                    if left_out.contains(&field_path(&path, name)) || report.meant(&path, name));
                if !told {
                    report.add(fault, scope);
                }
                if path.is_empty() || !left_out.insert(path) {
                    return None;
                }
            }
        }
    }
    None
}

/// What has been reported of one document.
#[derive(Default)]
struct Report {
    /// Field and message: each round finds again what the one before found.
    told: BTreeSet<(String, String)>,
    /// Fields that are there under a misspelt name.
    meant: BTreeSet<String>,
    /// What can be decoded is not what was meant.
    spoilt: bool,
}

impl Report {
    fn add(&mut self, fault: Fault, scope: &mut Scope<'_>) {
        let unheeded = fault.cause == Cause::Unheeded;
        self.spoilt |= !unheeded && fault.cause != Cause::Unsupported;
        if let Cause::Misspelt(path) = fault.cause {
            self.meant.insert(path);
        }
        if self
            .told
            .insert((fault.mark.field.clone(), fault.message.clone()))
        {
            if unheeded {
                scope.warning(&fault.mark, fault.message, fault.remedy);
            } else {
                scope.error(&fault.mark, fault.message, fault.remedy);
            }
        }
    }

    fn meant(&self, parent: &str, name: &str) -> bool {
        self.meant.contains(&field_path(parent, name))
    }
}
