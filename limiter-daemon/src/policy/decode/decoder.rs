//! A value of the tree on its way into a struct: its place, and the checks that need no type.

use std::cell::RefCell;
use std::collections::BTreeSet;

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
    pub(super) node: &'a Node,
    /// The key it is the value of.
    pub(super) key: Option<&'a Key>,
    pub(super) path: String,
    /// Paths of values found wrong before.
    pub(super) left_out: &'a BTreeSet<String>,
    /// Findings that decoding goes on after.
    pub(super) notes: &'a RefCell<Vec<Fault>>,
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

    pub(super) fn expected(&self, due: &str) -> Fault {
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
            // `Off` and `No` are booleans where they are not quoted, as Kubernetes has it.
            (Value::Bool(_), due) if due.starts_with("one of ") => "write it in quotes".to_owned(),
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

    pub(super) fn int(&self, least: i128, most: i128) -> Result<i128, Fault> {
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

    pub(super) fn str(&self) -> Result<&'a str, Fault> {
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

    /// A finding about the field itself, that decoding goes on after.
    pub(super) fn note_field(&self, key: &Key, message: String, remedy: &str, cause: Cause) {
        let mark = Mark {
            line: key.line,
            column: key.column,
            field: self.path.clone(),
        };
        let fault = Fault::new(mark, message, remedy);
        self.notes.borrow_mut().push(Fault { cause, ..fault });
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
    pub(super) fn entries(
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
