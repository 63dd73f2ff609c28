//! Findings in policy files, as JSON.

use serde::{Deserialize, Serialize};

use crate::policy::{Diagnostic, Severity};

/// A finding, as `limiterd check --format json` and `GET /config` write it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingView {
    pub file: String,
    /// From 1; absent where the finding is about the file as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// From 1, in characters; absent where the finding is about the file as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u64>,
    /// `error` or `warning`.
    pub severity: String,
    /// `Kind namespace/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// As `spec.rules[0].name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl From<&Diagnostic> for FindingView {
    fn from(found: &Diagnostic) -> Self {
        let place = |number: u64| (number > 0).then_some(number);
        let severity = match found.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        Self {
            file: found.file.display().to_string(),
            line: place(found.line),
            column: place(found.column),
            severity: severity.to_owned(),
            resource: found.resource.clone(),
            field: found.field.clone(),
            message: found.message.clone(),
            remedy: found.remedy.clone(),
        }
    }
}
