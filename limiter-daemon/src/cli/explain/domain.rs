//! `limiterd explain --domain`: which limits descriptors meet, and why.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use http::Method;

use super::{Admin, load, seconds};
use crate::admin::DomainQuestion;
use crate::cli::check::Format;
use crate::cli::paint::{Paint, Style};
use crate::engine::domain::{DescriptorSaid, DomainSaid, Domains};
use crate::engine::state::State;
use crate::engine::time::Now;

/// Asks the daemon or the files.
pub(super) fn run(
    question: &DomainQuestion,
    source: (Option<Admin>, Option<PathBuf>),
    format: Format,
    paint: Paint,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let said: DomainSaid = match source {
        (Some(admin), _) => {
            let body = serde_json::to_string(question)?;
            let answer = admin.ask(Method::POST, "/explain/domain", Some(&body))?;
            serde_json::from_str(&answer).context("the daemon's answer is of another version")?
        }
        (None, Some(dir)) => {
            let domains = Domains::compile(&load(&dir)?.domains, &State::new(1));
            let runtime = tokio::runtime::Builder::new_current_thread().build()?;
            runtime.block_on(question.ask(&domains, false, Now::default()))?
        }
        (None, None) => bail!("name a policy directory with --config, or a daemon with --admin"),
    };
    match format {
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &said)?;
            writeln!(out)?;
        }
        Format::Text => write(&said, paint, out)?,
    }
    Ok(())
}

fn write(said: &DomainSaid, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "domain {}", said.domain)?;
    writeln!(out, "{}\n", paint.paint(Style::Bold, &said.answer))?;
    let mut descriptors = said.descriptors.iter();
    descriptors.try_for_each(|one| write_one(one, paint, out))
}

fn write_one(said: &DescriptorSaid, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "descriptor {}", said.descriptor)?;
    for step in &said.steps {
        writeln!(out, "  {step}")?;
    }
    let (Some(rule), Some(limit)) = (&said.rule, &said.limit) else {
        let none = paint.paint(Style::Dim, "  no limit");
        return writeln!(out, "{none}");
    };
    if said.replaced {
        let line =
            format!("  not     {rule}: {limit}; the limit of another descriptor replaces it");
        return writeln!(out, "{}", paint.paint(Style::Dim, line));
    }
    if said.outweighed {
        let line =
            format!("  not     {rule}: {limit}; the limit of another descriptor weighs more");
        return writeln!(out, "{}", paint.paint(Style::Dim, line));
    }
    let meets = paint.paint(Style::Green, "meets");
    writeln!(out, "  {meets}   {rule}: {limit}")?;
    if let Some(written) = &said.written {
        writeln!(out, "          from {written}")?;
    }
    if let Some(key) = &said.key {
        writeln!(out, "          counted under {key}")?;
    }
    if let Some(count) = said.count {
        let (left, reset) = (count.remaining, seconds(count.reset_ms));
        writeln!(out, "          {left} left, all again in {reset}")?;
        if left == 0 {
            writeln!(
                out,
                "          {}",
                paint.paint(Style::Red, "over the limit")
            )?;
        }
    }
    Ok(())
}
