//! `limiterd block`, `unblock` and `blocked`: sentences, passed and lifted by hand.

use std::io::Write;

use anyhow::Context as _;
use http::Method;

use super::client::Admin;
use crate::admin::l4::{SentenceRequest, SentenceView};

const PATH: &str = "/l4/sentences";

/// Blocks `cidr` for `time` (as `10m`, `1h30m`).
///
/// # Errors
/// When the time is none, or the daemon refuses.
pub fn block(admin: Admin, cidr: &str, time: &str, out: &mut impl Write) -> anyhow::Result<()> {
    let seconds = humantime::parse_duration(time)
        .with_context(|| format!("--for {time}: write it as 30s, 10m or 1h30m"))?
        .as_secs();
    ask(admin, Method::POST, cidr, Some(seconds), out)
}

/// Lifts the sentence on `cidr`.
///
/// # Errors
/// When there is none, or the daemon refuses.
pub fn unblock(admin: Admin, cidr: &str, out: &mut impl Write) -> anyhow::Result<()> {
    ask(admin, Method::DELETE, cidr, None, out)
}

/// Lists the sentences being served.
///
/// # Errors
/// When the daemon cannot be asked.
pub fn blocked(admin: Admin, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let text = admin.ask(Method::GET, PATH, None)?;
    if json {
        return Ok(out.write_all(text.as_bytes())?);
    }
    list(&text, out)
}

fn ask(
    admin: Admin,
    method: Method,
    cidr: &str,
    seconds: Option<u64>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let cidr = cidr.to_owned();
    let request = serde_json::to_string(&SentenceRequest { cidr, seconds })?;
    list(&admin.ask(method, PATH, Some(&request))?, out)
}

fn list(text: &str, out: &mut impl Write) -> anyhow::Result<()> {
    let sentences: Vec<SentenceView> = serde_json::from_str(text)?;
    if sentences.is_empty() {
        writeln!(out, "nobody is blocked")?;
    }
    for SentenceView { cidr, seconds_left } in sentences {
        let left = humantime::format_duration(std::time::Duration::from_secs(seconds_left));
        writeln!(out, "{cidr:<44} {left} left")?;
    }
    Ok(())
}
