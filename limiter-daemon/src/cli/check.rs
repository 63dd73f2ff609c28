//! `limiterd check`: says what is wrong in a policy directory, for people and for pipelines.

use std::io::{self, Write};
use std::path::Path;

use crate::policy::{self, Diagnostic, Outcome, Severity, SourceFile};

/// Exit code of a directory without errors.
const OK: u8 = 0;

/// Exit code of a directory with errors.
const FAILED: u8 = 1;

/// Checks `dir`, writes every finding and a summary to `out`, and returns the exit code.
///
/// # Errors
/// Only when `out` cannot be written.
pub fn run(dir: &Path, out: &mut impl Write) -> io::Result<u8> {
    let outcome = policy::load(dir);
    for diagnostic in &outcome.diagnostics {
        write_diagnostic(diagnostic, &outcome.sources, out)?;
    }
    writeln!(out, "{}", summary(&outcome))?;
    Ok(if outcome.count(Severity::Error) == 0 {
        OK
    } else {
        FAILED
    })
}

/// Writes a finding and, where it has a place, the line it is about with a caret under the column.
///
/// # Errors
/// When `out` cannot be written.
pub fn write_diagnostic(
    diagnostic: &Diagnostic,
    sources: &[SourceFile],
    out: &mut impl Write,
) -> io::Result<()> {
    writeln!(out, "{diagnostic}")?;
    let Some(line) = source_line(diagnostic, sources) else {
        return Ok(());
    };
    let number = diagnostic.line.to_string();
    let gutter = " ".repeat(number.len());
    let before = usize::try_from(diagnostic.column.saturating_sub(1)).unwrap_or(usize::MAX);
    // A tab moves the caret as it moves the text above it.
    let indent: String = line
        .chars()
        .take(before)
        .map(|c| if c == '\t' { '\t' } else { ' ' })
        .collect();
    let line: String = line
        .chars()
        .map(|c| {
            if c.is_control() && c != '\t' {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect();
    writeln!(out, "{gutter} |")?;
    writeln!(out, "{number} | {line}")?;
    writeln!(out, "{gutter} | {indent}^")?;
    writeln!(out)
}

fn source_line<'a>(diagnostic: &Diagnostic, sources: &'a [SourceFile]) -> Option<&'a str> {
    let index = usize::try_from(diagnostic.line.checked_sub(1)?).ok()?;
    let file = sources.iter().find(|file| file.path == diagnostic.file)?;
    file.text.lines().nth(index)
}

/// One line: what was loaded, or that it was not.
fn summary(outcome: &Outcome) -> String {
    let errors = outcome.count(Severity::Error);
    let warnings = outcome.count(Severity::Warning);
    let mut parts = Vec::new();
    if errors > 0 {
        parts.push(counted(errors, "error"));
    } else {
        parts.extend(
            outcome
                .counts
                .iter()
                .map(|(kind, count)| counted(*count, kind)),
        );
    }
    if warnings > 0 {
        parts.push(counted(warnings, "warning"));
    }
    if parts.is_empty() {
        parts.push("no resources".to_owned());
    }
    let verdict = if errors == 0 { "ok" } else { "failed" };
    format!("{verdict}: {}", parts.join(", "))
}

fn counted(count: usize, what: &str) -> String {
    let plural = match what {
        _ if count == 1 => what.to_owned(),
        "GatewayClass" => format!("{what}es"),
        _ => match what.strip_suffix("cy") {
            Some(stem) => format!("{stem}cies"),
            None => format!("{what}s"),
        },
    };
    format!("{count} {plural}")
}
