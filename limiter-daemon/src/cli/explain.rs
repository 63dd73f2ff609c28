//! `limiterd explain`: what becomes of a request, and why, by files or by the running daemon.

mod domain;

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use http::Method;

use super::check::Format;
use super::client::{Admin, Credentials};
use super::endpoint::Endpoint;
use super::paint::{Paint, Style};
use crate::admin::{DomainQuestion, Question};
use crate::engine::explain::{BackendSaid, Explanation, NoBuckets, Passed, RuleSaid};
use crate::engine::time::Now;
use crate::policy::{self, Plan, Severity};

/// Things that do not take the request and are told in text; JSON has them all.
const TOLD: usize = 20;

/// What `limiterd explain` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory of YAML policy files to ask.
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present = "admin",
        conflicts_with = "admin"
    )]
    config: Option<PathBuf>,
    /// Admin address of the running daemon to ask, which knows the state of the buckets.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<Endpoint>,
    #[command(flatten)]
    credentials: Credentials,
    /// Method of the request, as GET.
    #[arg(required_unless_present = "domain", conflicts_with = "domain")]
    method: Option<String>,
    /// URL of the request, or its path with a `Host` header.
    #[arg(required_unless_present = "domain", conflicts_with = "domain")]
    url: Option<String>,
    /// Ask about a domain of the rate limit service instead.
    #[arg(long, value_name = "NAME", requires = "descriptors")]
    domain: Option<String>,
    /// A descriptor of the question to it; may be given several times.
    #[arg(long = "descriptor", value_name = "KEY=VALUE,...", requires = "domain")]
    descriptors: Vec<String>,
    /// A header of the request, as `name: value`; may be given several times.
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// Address that the connection comes from (default: 127.0.0.1).
    #[arg(long, value_name = "IP")]
    from: Option<IpAddr>,
    /// How it is told.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// Explains a request on `out`.
///
/// # Errors
/// When the files are not valid, the daemon cannot be asked, or it is no request.
pub fn run(args: Args, paint: Paint, out: &mut impl Write) -> anyhow::Result<()> {
    let daemon = args.admin.map(|at| Admin::by(at, args.credentials));
    if let Some(domain) = args.domain {
        let question = DomainQuestion {
            domain,
            descriptors: args.descriptors,
        };
        let source = (daemon, args.config);
        return domain::run(&question, source, args.format, paint, out);
    }
    let question = Question {
        method: args.method.unwrap_or_default(),
        url: args.url.unwrap_or_default(),
        headers: args.headers,
        from: args.from,
    };
    let explanation = match (daemon, args.config) {
        (Some(admin), _) => {
            let body = serde_json::to_string(&question)?;
            let answer = admin.ask(Method::POST, "/explain", Some(&body))?;
            serde_json::from_str(&answer).context("the daemon's answer is of another version")?
        }
        (None, Some(dir)) => question.ask(&load(&dir)?, &NoBuckets, Now::default())?,
        (None, None) => bail!("name a policy directory with --config, or a daemon with --admin"),
    };
    match args.format {
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &explanation)?;
            writeln!(out)?;
        }
        Format::Text => write(&explanation, paint, out)?,
    }
    Ok(())
}

/// The plan of a directory.
///
/// # Errors
/// When it has none; the first of its errors is told.
pub(super) fn load(dir: &Path) -> anyhow::Result<Plan> {
    let outcome = policy::load(dir);
    let errors = outcome.count(Severity::Error);
    let first = outcome
        .diagnostics
        .iter()
        .find(|found| found.severity == Severity::Error)
        .map(|found| format!("\n{found}"));
    outcome.plan.with_context(|| {
        format!(
            "the policy files have {errors} errors; `limiterd check` tells them all{}",
            first.unwrap_or_default()
        )
    })
}

/// Writes an explanation for people.
///
/// # Errors
/// When `out` cannot be written.
pub fn write(said: &Explanation, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let Explanation {
        method,
        host,
        path,
        client,
        ..
    } = said;
    writeln!(out, "{method} {host}{path} from {client}")?;
    writeln!(out, "{}\n", paint.paint(Style::Bold, &said.answer))?;
    if let Some(listener) = &said.listener {
        writeln!(out, "listener  {listener}")?;
    }
    write_others(&said.other_listeners, paint, out)?;
    if let Some(route) = &said.route {
        let name = route
            .rule_name
            .as_ref()
            .map(|name| format!(" ({name})"))
            .unwrap_or_default();
        writeln!(
            out,
            "route     {} rule {}{name}: {}",
            route.name, route.rule, route.matched
        )?;
    }
    write_others(&said.other_routes, paint, out)?;
    for limits in &said.network {
        writeln!(out, "kernel    {limits}")?;
    }
    for policy in &said.policies {
        writeln!(out, "policy    {} ({})", policy.name, policy.kind)?;
        for rule in &policy.rules {
            write_rule(rule, paint, out)?;
        }
    }
    for asks in &said.asks {
        writeln!(out, "asks      {asks}")?;
    }
    for filter in &said.filters {
        writeln!(out, "filter    {filter}")?;
    }
    for timeout in &said.timeouts {
        writeln!(out, "timeout   {timeout}")?;
    }
    for treatment in &said.traffic {
        writeln!(out, "traffic   {treatment}")?;
    }
    said.backends
        .iter()
        .try_for_each(|backend| write_backend(backend, out))
}

fn write_others(others: &[Passed], paint: Paint, out: &mut impl Write) -> io::Result<()> {
    for other in others.iter().take(TOLD) {
        let line = format!("not       {}: {}", other.name, other.why);
        writeln!(out, "{}", paint.paint(Style::Dim, line))?;
    }
    match others.len().checked_sub(TOLD) {
        Some(more) if more > 0 => writeln!(out, "not       {more} more; --format json tells them"),
        _ => Ok(()),
    }
}

fn write_rule(rule: &RuleSaid, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let shadow = if rule.shadow { ", in shadow mode" } else { "" };
    let RuleSaid { name, quota, .. } = rule;
    if let Some(why) = &rule.why_not {
        let line = format!("  not     {name}: {quota}{shadow}; {why}");
        return writeln!(out, "{}", paint.paint(Style::Dim, line));
    }
    let meets = paint.paint(Style::Green, "meets");
    writeln!(out, "  {meets}   {name}: {quota}{shadow}")?;
    if let Some(written) = &rule.written {
        writeln!(out, "          from {written}")?;
    }
    for condition in &rule.conditions {
        writeln!(out, "          {condition}")?;
    }
    if let Some(bucket) = &rule.bucket {
        writeln!(out, "          bucket of {bucket}")?;
    }
    if rule.cost != 1 {
        writeln!(out, "          costs {} tokens", rule.cost)?;
    }
    if let Some(cost) = &rule.response_cost {
        writeln!(out, "          and when the response is over: {cost}")?;
    }
    let Some(state) = rule.state else {
        return Ok(());
    };
    let (left, reset) = (state.remaining, seconds(state.reset_ms));
    writeln!(out, "          {left} tokens left, full in {reset}")?;
    if !state.admits {
        let wait = format!("over the limit for {}", seconds(state.wait_ms));
        writeln!(out, "          {}", paint.paint(Style::Red, wait))?;
    }
    Ok(())
}

fn write_backend(backend: &BackendSaid, out: &mut impl Write) -> io::Result<()> {
    let name = backend
        .name
        .as_deref()
        .unwrap_or("nowhere, answered with 500");
    let protocol = backend.protocol.as_deref().unwrap_or("-");
    let endpoints = backend.endpoints.join(", ");
    let percent = backend.percent;
    writeln!(
        out,
        "backend   {name}: {percent} %, {protocol}, {endpoints}"
    )?;
    backend
        .filters
        .iter()
        .try_for_each(|filter| writeln!(out, "  filter  {filter}"))?;
    if !backend.policy.is_empty() {
        writeln!(out, "  policy  {}", backend.policy)?;
    }
    backend
        .settings
        .iter()
        .try_for_each(|setting| writeln!(out, "          {setting}"))
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1_000, ms % 1_000)
}
