//! `limiterd simulate`: access logs and captures, replayed against policy files.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};

use super::explain::load;
use super::paint::{Paint, Style};
use crate::simulate::{
    self, Comparison, LimitedClient, OnlyOne, PacketReport, Policy, PolicyReport, Progress,
    Ranking, Report, RuleReport, Settings,
};

/// Rules that are told in text; JSON and HTML have them all.
const RULES: usize = 20;

/// What `limiterd simulate` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory of YAML policy files.
    #[arg(long, value_name = "DIR")]
    policy: PathBuf,
    /// Another one, to compare with.
    #[arg(long, value_name = "DIR")]
    against: Option<PathBuf>,
    /// Host of requests whose log has none (nginx's `combined` does not).
    #[arg(long, value_name = "NAME", default_value = "")]
    host: String,
    /// Clients, buckets and sources that are told.
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    top: usize,
    /// Write the report as an HTML page, too.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// As JSON.
    #[arg(long)]
    json: bool,
    /// Access logs (limiterd's, Envoy's JSON and default text, combined) and captures (pcap, pcapng),
    /// also compressed by gzip; `-`: standard input.
    #[arg(required = true, value_name = "LOG")]
    logs: Vec<PathBuf>,
}

/// Replays logs and reports on `out`; on a terminal a bar tells how far it is.
///
/// # Errors
/// When policy files are not valid, a log cannot be read or the report cannot be written.
pub fn run(args: Args, paint: Paint, out: &mut impl Write) -> anyhow::Result<()> {
    let policy = |dir: &Path| -> anyhow::Result<Policy> {
        let plan = load(dir).with_context(|| dir.display().to_string())?;
        let name = dir.display().to_string();
        Ok(Policy { name, plan })
    };
    let first = policy(&args.policy)?;
    let second = args.against.as_deref().map(policy).transpose()?;
    let bar = bar(&args.logs)?;
    let report = simulate::run(
        &Settings {
            policy: &first,
            against: second.as_ref(),
            logs: &args.logs,
            host: &args.host,
            top: args.top,
        },
        &mut |progress: Progress| {
            bar.set_position(progress.bytes);
            bar.set_message(format!("{} decided", progress.decided));
        },
    );
    bar.finish_and_clear();
    let report = report?;
    if let Some(path) = &args.html {
        fs::write(path, simulate::html(&report))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &report)?;
        writeln!(out)?;
    } else {
        write(&report, paint, out)?;
    }
    Ok(())
}

/// By the bytes of the files; hidden where standard error is no terminal.
fn bar(logs: &[PathBuf]) -> anyhow::Result<ProgressBar> {
    // What cannot be looked at is said when it is opened.
    let sizes = logs.iter().filter_map(|path| fs::metadata(path).ok());
    let bar = ProgressBar::new(sizes.map(|file| file.len()).sum());
    let style = "{bar:30} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left, {msg}";
    bar.set_style(ProgressStyle::with_template(style)?);
    Ok(bar)
}

/// Writes a report for people.
///
/// # Errors
/// When `out` cannot be written.
pub fn write(report: &Report, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let lines = &report.lines;
    if let (Some(from), Some(to)) = (&report.from, &report.to) {
        writeln!(out, "{} requests from {from} to {to}", lines.requests)?;
    }
    for (count, what) in [
        (lines.unreadable, "lines could not be read"),
        (
            lines.connections,
            "lines are of connections that were passed on",
        ),
        (
            lines.late,
            "requests came so late in the log that they were decided late",
        ),
    ] {
        if count > 0 {
            writeln!(
                out,
                "{}",
                paint.paint(Style::Yellow, format!("{count} {what}"))
            )?;
        }
    }
    for line in &lines.first_unreadable {
        writeln!(out, "  {line}")?;
    }
    for note in &report.notes {
        writeln!(out, "{} {note}", paint.paint(Style::Yellow, "note:"))?;
    }
    if let Some(logged) = &report.logged {
        writeln!(
            out,
            "of {} decisions in the log {} are the same here; {} were limited only then, {} only here, {} by another rule",
            logged.requests, logged.same, logged.only_log, logged.only_simulated, logged.other_rule
        )?;
    }
    if lines.requests > 0 {
        write_policy(&report.policy, paint, out)?;
        if let Some(against) = &report.against {
            write_policy(against, paint, out)?;
        }
    }
    if let (Some(found), Some(against)) = (&report.comparison, &report.against) {
        let names = (report.policy.policy.as_str(), against.policy.as_str());
        write_comparison(found, names, paint, out)?;
    }
    match &report.packets {
        Some(packets) => write_packets(packets, paint, out),
        None => Ok(()),
    }
}

fn write_policy(found: &PolicyReport, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let heading = format!(
        "{}: {}",
        found.policy,
        percent(found.limited, found.requests)
    );
    writeln!(out, "\n{}", paint.paint(Style::Bold, heading))?;
    for (count, what) in [
        (found.admitted, "admitted"),
        (found.limited, "limited (429)"),
        (found.no_route, "no route (404)"),
        (found.bad_request, "bad path (400)"),
        (found.broken, "broken policy (500)"),
        (found.refused, "refused before the limits, as the log says"),
    ] {
        if count > 0 {
            writeln!(out, "{count:>12}  {what}")?;
        }
    }
    if !found.rules.is_empty() {
        let head = format!(
            "\n{:>12} {:>12}  {:24}  rule",
            "limited", "admitted", "first"
        );
        writeln!(out, "{}", paint.paint(Style::Dim, head))?;
    }
    for rule in found.rules.iter().take(RULES) {
        write_rule(rule, out)?;
    }
    if let Some(more) = found
        .rules
        .len()
        .checked_sub(RULES)
        .filter(|more| *more > 0)
    {
        writeln!(out, "{more} rules more; --json and --html tell them")?;
    }
    write_clients(&found.clients, paint, out)?;
    if !found.buckets.most.is_empty() {
        let head = format!("\n{:>12}  {:24}  bucket, rule", "limited", "last");
        writeln!(out, "{}", paint.paint(Style::Dim, head))?;
    }
    for one in &found.buckets.most {
        writeln!(
            out,
            "{:>12}  {:24}  {}, {}",
            one.limited, one.last, one.bucket, one.rule
        )?;
    }
    write_rest(&found.buckets, out)
}

fn write_rule(rule: &RuleReport, out: &mut impl Write) -> io::Result<()> {
    let (limited, mode) = match rule.shadow_limited {
        0 => (rule.limited, ""),
        shadow => (shadow, " (in shadow mode)"),
    };
    let first = rule.first.as_deref().unwrap_or("-");
    let name = &rule.rule;
    let on = match rule.route.as_str() {
        "" => String::new(),
        route => format!(" on {route}"),
    };
    let candidate = match rule.candidate.as_str() {
        "" => String::new(),
        candidate => format!(", candidate {candidate}"),
    };
    let admitted = rule.admitted;
    writeln!(
        out,
        "{limited:>12} {admitted:>12}  {first:24}  {name}{on}{candidate}{mode}"
    )
}

fn write_clients(
    found: &Ranking<LimitedClient>,
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    if !found.most.is_empty() {
        let head = format!(
            "\n{:>12}  {:24}  {:24}  client, rule",
            "limited", "first", "last"
        );
        writeln!(out, "{}", paint.paint(Style::Dim, head))?;
    }
    for one in &found.most {
        writeln!(
            out,
            "{:>12}  {:24}  {:24}  {}, {}",
            one.limited, one.first, one.last, one.client, one.rule
        )?;
    }
    write_rest(found, out)
}

/// What is not told of a ranking.
fn write_rest<T>(found: &Ranking<T>, out: &mut impl Write) -> io::Result<()> {
    let more = found.known.saturating_sub(found.most.len());
    match (more, found.missing) {
        (0, 0) => Ok(()),
        (more, 0) => writeln!(out, "and {more} more"),
        (more, missing) => writeln!(
            out,
            "and more than {more} more; counts may be too low by up to {missing}"
        ),
    }
}

fn write_comparison(
    found: &Comparison,
    (first, second): (&str, &str),
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    let heading = format!("\n{first} against {second}");
    writeln!(out, "{}", paint.paint(Style::Bold, heading))?;
    writeln!(out, "{:>12}  limited by both", found.limited_by_both)?;
    write_only(&found.only_policy, first, paint, out)?;
    write_only(&found.only_against, second, paint, out)
}

fn write_only(found: &OnlyOne, name: &str, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{:>12}  limited only by {name}", found.requests)?;
    for (rule, count) in &found.rules {
        writeln!(out, "{count:>12}    {rule}")?;
    }
    write_clients(&found.clients, paint, out)
}

fn write_packets(found: &PacketReport, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let heading = format!("packets: {}", percent(found.dropped, found.packets));
    writeln!(out, "\n{}", paint.paint(Style::Bold, heading))?;
    for (count, what) in [
        (found.passed, "passed"),
        (found.dropped, "dropped"),
        (
            found.shadow_dropped,
            "would be dropped by policies in shadow mode",
        ),
        (found.unreadable, "could not be read"),
        (found.cut, "were cut to what a test run takes"),
    ] {
        if count > 0 {
            writeln!(out, "{count:>12}  {what}")?;
        }
    }
    for one in &found.reasons {
        let policy = one.policy.as_deref().unwrap_or("no policy");
        let dropped = if one.dropped { " (dropped)" } else { "" };
        let shadow = if one.shadow { ", in shadow mode" } else { "" };
        writeln!(
            out,
            "{:>12}    {policy} level {}{shadow}: {}{dropped}",
            one.packets, one.level, one.reason
        )?;
    }
    for one in &found.sources.most {
        writeln!(
            out,
            "{:>12}  {:24}  {:24}  {} to port {}",
            one.dropped, one.first, one.last, one.source, one.port
        )?;
    }
    write_rest(&found.sources, out)
}

/// `part` of `all` as a share in words.
fn percent(part: u64, all: u64) -> String {
    let thousandths = u128::from(part) * 100_000 / u128::from(all.max(1));
    let (whole, rest) = (thousandths / 1_000, thousandths % 1_000);
    format!("{part} of {all} over the limit, {whole}.{rest:03} %")
}
