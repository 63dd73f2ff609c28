//! The error of decoding: like a finding, as serde wants it.

use std::fmt;

use serde::de;

use crate::policy::findings::Mark;
use crate::policy::suggest;

/// Why a value cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) mark: Mark,
    pub(crate) message: String,
    pub(crate) remedy: String,
    pub(crate) cause: Cause,
}

/// What sort of fault it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Wrong,
    /// The field of this name is not there.
    Missing(&'static str),
    /// The field at this path was meant.
    Misspelt(String),
    Unsupported,
    /// A warning.
    Unheeded,
}

impl Fault {
    pub(crate) fn new(mark: Mark, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            mark,
            message: message.into(),
            remedy: remedy.into(),
            cause: Cause::Wrong,
        }
    }

    /// Gives it a place, unless it has one further down.
    pub(crate) fn or_at(mut self, mark: Mark) -> Self {
        if self.mark == Mark::none() {
            self.mark = mark;
        }
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Mark::none(), message.to_string(), "")
    }

    fn missing_field(field: &'static str) -> Self {
        let message = format!("the field `{field}` is missing");
        Self {
            cause: Cause::Missing(field),
            ..Self::new(Mark::none(), message, "")
        }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let remedy = suggest::remedy(variant, expected.iter().copied(), "it may be");
        Self::new(Mark::none(), format!("unknown value `{variant}`"), remedy)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let remedy = suggest::remedy(field, expected.iter().copied(), "the fields here are");
        Self::new(Mark::none(), format!("unknown field `{field}`"), remedy)
    }
}
