//! `limiterd drain`, `limiterd log` and `limiterd audit`: what an operator may want of a running daemon
//! beside its limits, and who wanted what.

use std::io::Write;

use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::client::Admin;
use crate::admin::{AuditView, EntryView, LoggingView};

/// What is to be logged.
#[derive(Clone, Debug, clap::Args)]
pub struct Log {
    /// From now on: limiterd's own lines from this level on; by default only tells what is logged.
    #[arg(value_parser = ["trace", "debug", "info", "warn", "error", "off"])]
    level: Option<String>,
    /// The same as directives, as LIMITERD_LOG has them: `info,limiter_daemon::l4=debug`.
    #[arg(long, value_name = "DIRECTIVES", conflicts_with_all = ["level", "reset"])]
    filter: Option<String>,
    /// What the environment or the configuration says.
    #[arg(long, conflicts_with = "level")]
    reset: bool,
    #[command(flatten)]
    admin: Admin,
}

/// Which entries are told.
#[derive(Clone, Debug, clap::Args)]
pub struct AuditArgs {
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: Admin,
}

/// Takes the node out of service.
///
/// # Errors
/// When the daemon cannot be asked, or refuses.
pub fn drain(admin: &Admin, out: &mut impl Write) -> anyhow::Result<()> {
    let said = admin.ask(Method::POST, "/drain_listeners", None)?;
    Ok(out.write_all(said.as_bytes())?)
}

/// Changes what is logged, or tells it.
///
/// # Errors
/// When the daemon cannot be asked, or refuses.
pub fn log(args: &Log, out: &mut impl Write) -> anyhow::Result<()> {
    let wanted = match (&args.level, &args.filter) {
        (Some(level), _) => Some(("level", level.as_str())),
        (None, Some(filter)) => Some(("filter", filter.as_str())),
        (None, None) => args.reset.then_some(("level", "")),
    };
    let answer = match wanted {
        None => args.admin.ask(Method::GET, "/logging", None)?,
        Some((key, value)) => {
            let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
            let path = format!("/logging?{key}={value}");
            args.admin.ask(Method::POST, &path, None)?
        }
    };
    let LoggingView { filter, configured } = serde_json::from_str(&answer)?;
    writeln!(out, "logged: {filter}; configured: {configured}")?;
    Ok(())
}

/// Tells who changed something, or wanted to, the last one first.
///
/// # Errors
/// When the daemon cannot be asked.
pub fn audit(args: &AuditArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let text = args.admin.ask(Method::GET, "/audit", None)?;
    if args.json {
        return Ok(out.write_all(text.as_bytes())?);
    }
    let AuditView { entries } = serde_json::from_str(&text)?;
    if entries.is_empty() {
        writeln!(out, "nobody has changed anything since the start")?;
    }
    for entry in &entries {
        writeln!(out, "{}", line(entry))?;
    }
    Ok(())
}

fn line(entry: &EntryView) -> String {
    let did = if entry.what.is_empty() {
        format!("{} {}", entry.method, entry.path)
    } else {
        entry.what.clone()
    };
    let place = match (entry.by.as_str(), entry.address.as_str()) {
        ("address", _) | (_, "") => String::new(),
        (_, address) => format!(" from {address}"),
    };
    let why = if entry.reason.is_empty() {
        String::new()
    } else {
        format!(" ({})", entry.reason)
    };
    let EntryView {
        at,
        by,
        who,
        outcome,
        ..
    } = entry;
    format!("{at}  {}  {by} {who}{place}: {did}{why}", outcome.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Outcome;

    #[test]
    fn a_line_says_who_what_and_how_it_ended() {
        let mut entry = EntryView {
            number: 1,
            at: "2026-01-31T12:00:00.000Z".to_owned(),
            who: "oncall".to_owned(),
            by: "token".to_owned(),
            address: "192.0.2.7:4".to_owned(),
            method: "POST".to_owned(),
            path: "/blocks".to_owned(),
            what: "block 198.51.100.0/24 for 60 s on this node".to_owned(),
            outcome: Outcome::Done,
            status: 200,
            reason: String::new(),
        };
        assert_eq!(
            line(&entry),
            "2026-01-31T12:00:00.000Z  done  token oncall from 192.0.2.7:4: \
             block 198.51.100.0/24 for 60 s on this node"
        );
        entry.by = "address".to_owned();
        entry.who = "192.0.2.7".to_owned();
        entry.what = String::new();
        entry.outcome = Outcome::Refused;
        entry.reason = "not for web pages".to_owned();
        assert_eq!(
            line(&entry),
            "2026-01-31T12:00:00.000Z  refused  address 192.0.2.7: POST /blocks (not for web pages)"
        );
    }
}
