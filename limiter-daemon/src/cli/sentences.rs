//! `limiterd block`, `unblock` and `blocked`: blocks, passed and lifted by hand.

use std::io::Write;
use std::time::Duration;

use anyhow::Context as _;
use http::Method;

use super::client::Admin;
use crate::admin::blocks::{BlockAnswer, BlockRequest, BlockView};
use crate::engine::fleet::Scope;

const PATH: &str = "/blocks";

/// What is common to blocking and unblocking.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Address or CIDR; to unblock, as it was blocked.
    cidr: String,
    /// On this node only. Otherwise on all nodes that share the store, where there is one.
    #[arg(long)]
    node: bool,
    /// Why, for people.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    admin: Admin,
}

/// Blocks for `time` (as `10m`, `1h30m`).
///
/// # Errors
/// When the time is none, or the daemon refuses.
pub fn block(args: Args, time: &str, out: &mut impl Write) -> anyhow::Result<()> {
    let seconds = humantime::parse_duration(time)
        .with_context(|| format!("--for {time}: write it as 30s, 10m or 1h30m"))?
        .as_secs();
    ask(args, Method::POST, Some(seconds), out)
}

/// Lifts a block.
///
/// # Errors
/// When there is none, or the daemon refuses.
pub fn unblock(args: Args, out: &mut impl Write) -> anyhow::Result<()> {
    ask(args, Method::DELETE, None, out)
}

/// Lists who is blocked.
///
/// # Errors
/// When the daemon cannot be asked.
pub fn blocked(admin: &Admin, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let text = admin.ask(Method::GET, PATH, None)?;
    if json {
        return Ok(out.write_all(text.as_bytes())?);
    }
    let blocks: Vec<BlockView> = serde_json::from_str(&text)?;
    if blocks.is_empty() {
        writeln!(out, "nobody is blocked")?;
    }
    list(blocks, out)
}

fn ask(
    args: Args,
    method: Method,
    seconds: Option<u64>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let request = serde_json::to_string(&BlockRequest {
        cidr: args.cidr.clone(),
        seconds,
        scope: args.node.then_some(Scope::Node),
        reason: args.reason,
    })?;
    let answer = args.admin.ask(method, PATH, Some(&request))?;
    let BlockAnswer { note, blocks } = serde_json::from_str(&answer)?;
    if let Some(note) = note {
        writeln!(out, "{note}")?;
    }
    if blocks.is_empty() {
        writeln!(out, "{} is not blocked any more", args.cidr)?;
    }
    list(blocks, out)
}

fn list(blocks: Vec<BlockView>, out: &mut impl Write) -> anyhow::Result<()> {
    for block in blocks {
        let left = humantime::format_duration(Duration::from_secs(block.seconds_left));
        let scope = match (block.scope, block.told) {
            (Scope::Node, _) => "node",
            (Scope::Fleet, Some(false)) => "fleet, not told yet",
            (Scope::Fleet, _) => "fleet",
        };
        write!(out, "{:<44} {left} left, {scope}", block.cidr)?;
        if let Some(since) = block.since {
            write!(out, ", since {since}")?;
        }
        write!(out, ", until {}", block.until)?;
        for (what, text) in [
            (", by ", block.by),
            (", rule ", block.rule),
            (": ", block.why),
        ] {
            if !text.is_empty() {
                write!(out, "{what}{text}")?;
            }
        }
        writeln!(out)?;
    }
    Ok(())
}
