//! Findings while they are collected: many, in any order, each with its place.
//!
//! Reading goes on after an error, so that one run shows as much as it can.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostic::{Diagnostic, Severity};
use super::plan::Written;

/// Where in a file something stands, and the path of its field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) line: u64,
    pub(crate) column: u64,
    /// As `spec.rules[0].name`; empty for a document as a whole.
    pub(crate) field: String,
}

impl Mark {
    /// A finding about a whole file.
    pub(crate) const fn none() -> Self {
        Self {
            line: 0,
            column: 0,
            field: String::new(),
        }
    }
}

/// The file and the resource that findings are about.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) file: PathBuf,
    pub(crate) resource: Option<String>,
}

impl Origin {
    pub(crate) fn file(file: &Path) -> Self {
        Self {
            file: file.to_path_buf(),
            resource: None,
        }
    }
}

/// How many findings are told.
const MAX_FINDINGS: usize = 1000;

/// All findings so far.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    list: Vec<Diagnostic>,
    /// How many were found beyond [`MAX_FINDINGS`].
    untold: usize,
    /// How many errors were found, told or not.
    errors: usize,
}

impl Findings {
    /// For findings about one resource.
    pub(crate) fn at<'a>(&'a mut self, origin: &'a Origin) -> Scope<'a> {
        Scope {
            findings: self,
            origin,
        }
    }

    /// Sorted by file and place; the same finding is not said twice (an alias may repeat it).
    pub(crate) fn into_sorted(self) -> Vec<Diagnostic> {
        let mut list = self.list;
        list.sort_by(|a, b| {
            (&a.file, a.line, a.column, &a.field).cmp(&(&b.file, b.line, b.column, &b.field))
        });
        list.dedup();
        if let Some(last) = list.last().filter(|_| self.untold > 0) {
            list.push(Diagnostic {
                severity: Severity::Error,
                file: last.file.clone(),
                line: 0,
                column: 0,
                resource: None,
                field: None,
                message: format!("{} more findings are not shown", self.untold),
                remedy: Some("begin with the first".to_owned()),
            });
        }
        list
    }

    /// How many errors there are so far: what comes between two counts is about what was looked at
    /// between them.
    pub(crate) const fn errors(&self) -> usize {
        self.errors
    }

    /// The first error after the `count`-th, as a sentence.
    pub(crate) fn error_after(&self, count: usize) -> String {
        self.list
            .iter()
            .filter(|found| found.severity == Severity::Error)
            .nth(count)
            .map(|found| match &found.field {
                Some(field) => format!("{field}: {}", found.message),
                None => found.message.clone(),
            })
            .unwrap_or_default()
    }
}

/// Collects findings about one resource.
#[derive(Debug)]
pub(crate) struct Scope<'a> {
    findings: &'a mut Findings,
    origin: &'a Origin,
}

impl Scope<'_> {
    /// For findings about the same resource in another file.
    pub(crate) fn elsewhere<'b>(&'b mut self, origin: &'b Origin) -> Scope<'b> {
        Scope {
            findings: self.findings,
            origin,
        }
    }

    /// How many errors there are so far.
    pub(crate) const fn errors(&self) -> usize {
        self.findings.errors()
    }

    /// What to say of the origin of what stands there.
    pub(crate) fn written(&self, mark: &Mark) -> Option<Arc<Written>> {
        Some(Arc::new(Written {
            file: self.origin.file.clone(),
            line: mark.line,
            resource: self.origin.resource.as_deref().map(clean),
        }))
    }

    /// Something wrong: the resource is not used as it is. `remedy` says what would be right.
    pub(crate) fn error(
        &mut self,
        mark: &Mark,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(Severity::Error, mark, message.into(), remedy.into());
    }

    /// Something that works, but perhaps not as meant.
    pub(crate) fn warning(
        &mut self,
        mark: &Mark,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(Severity::Warning, mark, message.into(), remedy.into());
    }

    /// An error if a list is longer than its bound.
    pub(crate) fn at_most(&mut self, mark: &Mark, len: usize, most: usize) {
        if len > most {
            self.error(
                mark,
                format!("{len} entries"),
                format!("at most {most} are allowed"),
            );
        }
    }

    fn add(&mut self, severity: Severity, mark: &Mark, message: String, remedy: String) {
        self.findings.errors += usize::from(severity == Severity::Error);
        if self.findings.list.len() >= MAX_FINDINGS {
            self.findings.untold += 1;
            return;
        }
        self.findings.list.push(Diagnostic {
            severity,
            file: self.origin.file.clone(),
            line: mark.line,
            column: mark.column,
            resource: self.origin.resource.as_deref().map(clean),
            field: Some(clean(&mark.field)).filter(|field| !field.is_empty()),
            message: clean(&message),
            remedy: Some(clean(&remedy)).filter(|remedy| !remedy.is_empty()),
        });
    }
}

/// Without control characters: what a file says must not steer the terminal it is shown on.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}
