//! `limiterd l4 top` and `limiterd l4 explain`: what the kernel half does, and to whom.

use std::io::Write;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use http::Method;

use super::client::Admin;
use crate::admin::l4::OffenderView;

/// How often the table is drawn anew.
const REFRESH: Duration = Duration::from_secs(1);
/// Clears the screen and goes to its top (ECMA-48).
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Draws the table of offenders, over and over, or `once`.
///
/// # Errors
/// When the daemon cannot be asked.
pub fn top(admin: &Admin, once: bool, out: &mut impl Write) -> anyhow::Result<()> {
    loop {
        let table = table(&admin.ask(Method::GET, "/l4/top", None)?)?;
        if once {
            return Ok(out.write_all(table.as_bytes())?);
        }
        write!(out, "{CLEAR}{table}")?;
        out.flush()?;
        thread::sleep(REFRESH);
    }
}

fn table(json: &str) -> anyhow::Result<String> {
    let offenders: Vec<OffenderView> = serde_json::from_str(json)?;
    let mut table = format!(
        "{:<40} {:>10} {:>10}  {:<28} {:<24} {:>5} {:>8}  {}\n",
        "SOURCE", "DROPS/S*", "SAMPLES", "TOKENS LEFT", "REASON", "PORT", "LAST", "POLICY"
    );
    for one in &offenders {
        let reason = if one.shadow {
            format!("{} (shadow)", one.reason)
        } else {
            one.reason.clone()
        };
        let tokens = one.tightest.as_ref().map_or_else(
            || "-".to_owned(),
            |bucket| {
                format!(
                    "{} of {} {}",
                    bucket.remaining, bucket.capacity, bucket.unit
                )
            },
        );
        table += &format!(
            "{:<40} {:>10} {:>10}  {tokens:<28} {reason:<24} {:>5} {:>6} s  {}\n",
            one.source.to_string(),
            one.drops_per_second,
            one.samples,
            one.port,
            one.seconds_ago,
            one.policy
        );
    }
    table += "* at most a thousand drops a second and CPU are sampled; the rest is estimated from them\n";
    Ok(table)
}

/// Says how the kernel treats `source` now, and why.
///
/// # Errors
/// When the daemon cannot be asked.
pub fn explain(
    admin: &Admin,
    source: IpAddr,
    protocol: &str,
    port: u16,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let path = format!("/l4/explain?source={source}&protocol={protocol}&port={port}");
    Ok(out.write_all(admin.ask(Method::GET, &path, None)?.as_bytes())?)
}
