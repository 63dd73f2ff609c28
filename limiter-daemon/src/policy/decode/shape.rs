//! Which fields a struct has, told by its own `Deserialize`: what decodes the files is asked what it
//! would take, so the answer cannot differ from it.
//!
//! A deserializer that has no input. It notes the path and the type that it is asked for, and gives a
//! value that serves; every field of every struct is given. A value that cannot be given (a type that
//! contains itself would have no end) is left out in the next round, as in [`super::decode`].

mod recorder;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;

use recorder::{Notes, Recorder};

/// What may be written for a field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Type {
    Text,
    /// A whole number from the first to the second.
    Whole(i128, i128),
    Number,
    Boolean,
    OneOf(&'static [&'static str]),
    List,
    /// Names of one's own.
    Map,
    Mapping,
    /// A mapping as the one at this path, which it is in.
    Again(String),
    NumberOrText,
    /// A status, or a mapping with a `code`.
    Code,
    Anything,
    /// An error if it is there.
    Unsupported,
    /// A warning if it is there.
    Unheeded,
    /// What it holds is not looked at; that it is there may mean something.
    Ignored,
}

/// A field, an item of a list (`path[]`) or a value of a map (`path.*`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Field {
    pub path: String,
    pub holds: Type,
    /// Decoding fails without it. What is checked later may ask for more.
    pub required: bool,
    /// Other names of it.
    pub also: Vec<String>,
}

/// All fields of `T` at every depth, parents before their children.
pub(crate) fn shape<T: DeserializeOwned>() -> Vec<Field> {
    let notes = Notes::default();
    let mut left_out = BTreeSet::new();
    while !attempt::<T>(&notes, &left_out, None) {
        let failed = notes.failed.take();
        if !failed.is_some_and(|path| left_out.insert(path)) {
            break;
        }
    }
    let seen: Vec<String> = notes.order.borrow().clone();
    for path in &seen {
        let item = path.is_empty() || path.ends_with("[]") || path.ends_with(".*");
        if item || notes.optional.borrow().contains(path) {
            continue;
        }
        notes.missing.take();
        attempt::<T>(&notes, &left_out, Some(path));
        let missing = notes.missing.take();
        if missing.as_ref() == Some(path) {
            notes.required.borrow_mut().insert(path.clone());
        }
    }
    let types = notes.types.into_inner();
    let also = notes.also.into_inner();
    let required = notes.required.into_inner();
    let fields = seen.into_iter().filter(|path| !path.is_empty());
    let fields = fields.filter_map(|path| {
        Some(Field {
            holds: types.get(&path)?.clone(),
            required: required.contains(&path),
            also: also.get(&path).cloned().unwrap_or_default(),
            path,
        })
    });
    in_order(fields.collect())
}

/// Children next to their parents: what was left out in the first round was noted late.
fn in_order(fields: Vec<Field>) -> Vec<Field> {
    fn parent(path: &str) -> &str {
        match (path.strip_suffix("[]"), path.rfind('.')) {
            (Some(list), _) => list,
            (None, Some(dot)) => &path[..dot],
            (None, None) => "",
        }
    }
    fn take(of: &str, children: &BTreeMap<String, Vec<Field>>, out: &mut Vec<Field>) {
        for child in children.get(of).into_iter().flatten() {
            out.push(child.clone());
            take(&child.path, children, out);
        }
    }
    let mut children: BTreeMap<String, Vec<Field>> = BTreeMap::new();
    for field in fields {
        let of = parent(&field.path).to_owned();
        children.entry(of).or_default().push(field);
    }
    let mut out = Vec::new();
    take("", &children, &mut out);
    out
}

/// Whether a `T` can be made without these; and without `probed` and all that is optional beside the way
/// there, if it is about that.
fn attempt<T: DeserializeOwned>(
    notes: &Notes,
    left_out: &BTreeSet<String>,
    probed: Option<&str>,
) -> bool {
    notes.failed.take();
    T::deserialize(Recorder::new(notes, left_out, probed)).is_ok()
}
