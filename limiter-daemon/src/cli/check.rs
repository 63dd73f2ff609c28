//! `limiterd check`: says what is wrong in a policy directory, for people and for pipelines.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use clap::ValueEnum;
use serde::Serialize;

use super::paint::{Paint, Style};
use crate::admin::FindingView;
use crate::policy::status::{Ancestor, Condition, ResourceStatus};
use crate::policy::{self, Diagnostic, Outcome, Severity, SourceFile};

/// Exit code of a directory that can be used.
const OK: u8 = 0;

/// Exit code of a directory with errors, or with warnings where they are denied.
const FAILED: u8 = 1;

/// How findings are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: a line for each finding, and the source it is about.
    #[default]
    Text,
    /// For programs: one object.
    Json,
}

/// What `limiterd check` is told besides the directory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub format: Format,
    /// Warnings fail as errors do.
    pub deny_warnings: bool,
    /// The conditions of each resource as well; JSON always has them.
    pub statuses: bool,
    pub paint: Paint,
}

/// What `--format json` writes.
#[derive(Debug, Serialize)]
struct Report {
    /// Whether the exit code is 0.
    ok: bool,
    errors: usize,
    warnings: usize,
    /// Resources seen, by kind.
    resources: BTreeMap<&'static str, usize>,
    findings: Vec<FindingView>,
    /// Conditions, as Gateway API and Envoy Gateway state them.
    statuses: Vec<ResourceStatus>,
}

/// Checks `dir`, writes every finding and a summary to `out` as plain text, and returns the exit
/// code.
///
/// # Errors
/// Only when `out` cannot be written.
pub fn run(dir: &Path, out: &mut impl Write) -> io::Result<u8> {
    run_with(dir, Options::default(), out)
}

/// Checks `dir`, writes every finding and a summary to `out`, and returns the exit code.
///
/// # Errors
/// Only when `out` cannot be written.
pub fn run_with(dir: &Path, options: Options, out: &mut impl Write) -> io::Result<u8> {
    let outcome = policy::load(dir);
    let warned = options.deny_warnings && outcome.count(Severity::Warning) > 0;
    let ok = outcome.count(Severity::Error) == 0 && !warned;
    match options.format {
        Format::Text => {
            for diagnostic in &outcome.diagnostics {
                write_diagnostic(diagnostic, &outcome.sources, options.paint, out)?;
            }
            if options.statuses {
                for status in &outcome.statuses {
                    write_status(status, options.paint, out)?;
                }
                writeln!(out)?;
            }
            writeln!(out, "{}", summary(&outcome, ok, options.paint))?;
        }
        Format::Json => {
            let report = Report {
                ok,
                errors: outcome.count(Severity::Error),
                warnings: outcome.count(Severity::Warning),
                resources: outcome.counts.clone(),
                findings: outcome.diagnostics.iter().map(FindingView::from).collect(),
                statuses: outcome.statuses.clone(),
            };
            serde_json::to_writer_pretty(&mut *out, &report)?;
            writeln!(out)?;
        }
    }
    Ok(if ok { OK } else { FAILED })
}

/// Writes a finding and, where it has a place, the line it is about with a caret under the column.
fn write_diagnostic(
    diagnostic: &Diagnostic,
    sources: &[SourceFile],
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    writeln!(out, "{}", heading(diagnostic, paint))?;
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
    let bar = paint.paint(Style::Blue, "|");
    let caret = paint.paint(style(diagnostic.severity), "^");
    writeln!(out, "{gutter} {bar}")?;
    writeln!(out, "{} {bar} {line}", paint.paint(Style::Blue, &number))?;
    writeln!(out, "{gutter} {bar} {indent}{caret}")?;
    writeln!(out)
}

/// Writes the conditions of a resource, a line each.
fn write_status(status: &ResourceStatus, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let ResourceStatus {
        kind,
        namespace,
        name,
        ..
    } = status;
    let name = format!("{kind} {namespace}/{name}");
    let mut write = |of: String, conditions: &[Condition]| {
        conditions.iter().try_for_each(|condition| {
            // What is true is good, but for these.
            let good = condition.status
                != matches!(condition.kind, "Conflicted" | "Overridden" | "Warning");
            let style = if good { Style::Green } else { Style::Yellow };
            let word = if condition.status { "True" } else { "False" };
            let state = format!("{}={word}", condition.kind);
            let state = paint.paint(style, state);
            let (reason, message) = (condition.reason, condition.message.trim());
            let colon = if message.is_empty() { "" } else { ": " };
            writeln!(out, "{of}: {state} ({reason}){colon}{message}")
        })
    };
    write(name.clone(), &status.conditions)?;
    for listener in &status.listeners {
        write(
            format!("{name} listener {}", listener.name),
            &listener.conditions,
        )?;
    }
    for one in &status.ancestors {
        let Ancestor {
            kind,
            namespace,
            name: ancestor,
            section_name,
        } = &one.ancestor;
        let section = section_name.as_ref().map(|name| format!("/{name}"));
        let at = format!(
            "{name} at {kind} {namespace}/{ancestor}{}",
            section.unwrap_or_default()
        );
        write(at, &one.conditions)?;
    }
    Ok(())
}

const fn style(severity: Severity) -> Style {
    match severity {
        Severity::Warning => Style::Yellow,
        Severity::Error => Style::Red,
    }
}

/// The finding on one line, its place and its severity painted.
fn heading(diagnostic: &Diagnostic, paint: Paint) -> String {
    let text = diagnostic.to_string();
    let severity = match diagnostic.severity {
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    // The place is what stands before the first severity after the file's name.
    let file = diagnostic.file.display().to_string();
    let mark = format!(": {severity}: ");
    let split = text
        .get(file.len()..)
        .and_then(|rest| rest.find(&mark))
        .map(|at| file.len() + at);
    let Some(at) = split else {
        return text;
    };
    let (place, rest) = text.split_at(at);
    let rest = rest.get(mark.len()..).unwrap_or_default();
    let place = paint.paint(Style::Bold, place);
    let severity = paint.paint(style(diagnostic.severity), severity);
    format!("{place}: {severity}: {rest}")
}

fn source_line<'a>(diagnostic: &Diagnostic, sources: &'a [SourceFile]) -> Option<&'a str> {
    let index = usize::try_from(diagnostic.line.checked_sub(1)?).ok()?;
    let file = sources.iter().find(|file| file.path == diagnostic.file)?;
    file.text.lines().nth(index)
}

/// One line: what was loaded, or that it was not.
fn summary(outcome: &Outcome, ok: bool, paint: Paint) -> String {
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
    let verdict = if ok {
        paint.paint(Style::Green, "ok")
    } else {
        paint.paint(Style::Red, "failed")
    };
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
