//! `limiterd probe`: what this kernel can do, what is missing, and what that costs.

use std::io::{self, Write};

use crate::l4::probe::{Finding, State, probe};

/// Writes every finding to `out`, as text or as JSON; the exit code is 1 if the kernel half cannot
/// run.
///
/// # Errors
/// When `out` cannot be written.
pub fn run(json: bool, out: &mut impl Write) -> io::Result<u8> {
    let findings = probe();
    if json {
        serde_json::to_writer_pretty(&mut *out, &findings)?;
        writeln!(out)?;
    } else {
        findings
            .iter()
            .try_for_each(|finding| write(finding, out))?;
    }
    Ok(u8::from(
        findings
            .iter()
            .any(|finding| finding.state == State::Missing),
    ))
}

fn write(finding: &Finding, out: &mut impl Write) -> io::Result<()> {
    let mark = match finding.state {
        State::Ok => "ok      ",
        State::Degraded => "degraded",
        State::Missing => "MISSING ",
    };
    writeln!(out, "{mark}  {:<31} {}", finding.what, finding.found)?;
    match &finding.advice {
        Some(advice) => writeln!(out, "          {:<31} -> {advice}", ""),
        None => Ok(()),
    }
}
