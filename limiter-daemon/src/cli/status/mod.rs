//! `limiterd status`: whether it is well, what it does, what needs somebody; with `--fleet`, who else
//! there is.
//!
//! Three parts: `facts` makes one document of what the daemon says at two times, `judge` says what of
//! it needs somebody, `tell` puts both on a screen of 80 columns and 24 lines. All three are pure.

mod facts;
mod fleet;
mod judge;
mod tell;

#[cfg(test)]
mod tests;

use std::io::Write;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use http::Method;
use serde::Serialize;

use super::client::Admin;
use super::paint::Paint;
use super::top::page::Page;
use crate::admin::node::{FleetView, NodeView};
use crate::l7::clock::Clock;
use facts::{Facts, Look};
use judge::Condition;

/// What is to be told.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The nodes that share the store, as this one sees them.
    #[arg(long)]
    fleet: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
    /// Time that rates are over, up to 10s; with 0s none are told, and the answer is there at once.
    #[arg(long, value_name = "TIME", default_value = "1s")]
    over: humantime::Duration,
    #[command(flatten)]
    admin: Admin,
}

/// How it is, in one word.
///
/// The exit statuses are those of monitoring plugins (OK, WARNING, CRITICAL, UNKNOWN), so that
/// `limiterd status` is one; 3 is what LSB calls "not running" as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Well,
    /// It serves, and something needs somebody.
    Degraded,
    /// It serves not, or soon not any more.
    NotReady,
    /// It cannot be asked.
    Unknown,
}

impl State {
    /// For the shell.
    #[must_use]
    pub const fn exit_status(self) -> u8 {
        match self {
            Self::Well => 0,
            Self::Degraded => 1,
            Self::NotReady => 2,
            Self::Unknown => 3,
        }
    }
}

/// Longest time that rates are over.
const LONGEST: Duration = Duration::from_secs(10);

/// What `--json` writes.
#[derive(Debug, Serialize)]
struct Document<'a> {
    state: State,
    exit_status: u8,
    /// What needs somebody, the worst first.
    conditions: &'a [Condition],
    #[serde(flatten)]
    facts: &'a Facts,
}

/// What `--json` writes when the daemon cannot be asked.
#[derive(Debug, Serialize)]
struct Unknown {
    state: State,
    exit_status: u8,
    error: String,
}

/// Tells it, and says how it is. That the daemon cannot be asked is told on standard error, and with
/// `--json` as a document.
///
/// # Errors
/// When it cannot be written.
pub fn run(args: &Args, paint: Paint, out: &mut impl Write) -> anyhow::Result<State> {
    let told = if args.fleet {
        fleet::tell(&args.admin, args.json)
    } else {
        node(args, paint)
    };
    let (state, text) = match told {
        Ok(told) => told,
        Err(error) => {
            let error = format!("{error:#}");
            eprintln!("limiterd: {error}");
            let state = State::Unknown;
            let unknown = Unknown {
                state,
                exit_status: state.exit_status(),
                error,
            };
            let text = if args.json {
                serde_json::to_string_pretty(&unknown)? + "\n"
            } else {
                String::new()
            };
            (state, text)
        }
    };
    out.write_all(text.as_bytes())
        .context("cannot write the status")?;
    Ok(state)
}

fn node(args: &Args, paint: Paint) -> anyhow::Result<(State, String)> {
    let over = *args.over;
    anyhow::ensure!(over <= LONGEST, "--over: at most {LONGEST:?}");
    let clock = Clock::start();
    let before = match over {
        Duration::ZERO => None,
        _ => Some(look(&args.admin, clock)?),
    };
    thread::sleep(over);
    let after = look(&args.admin, clock)?;
    let facts = Facts::of(before.as_ref(), after);
    let conditions = judge::judge(&facts);
    let state = judge::state(&conditions);
    let text = if args.json {
        let document = Document {
            state,
            exit_status: state.exit_status(),
            conditions: &conditions,
            facts: &facts,
        };
        serde_json::to_string_pretty(&document)? + "\n"
    } else {
        tell::tell(state, &conditions, &facts, paint)
    };
    Ok((state, text))
}

/// So many of them.
fn count(number: impl Into<u128>, what: &str) -> String {
    match number.into() {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    }
}

fn look(admin: &Admin, clock: Clock) -> anyhow::Result<Look> {
    let metrics = admin.ask(Method::GET, "/metrics", None)?;
    // Rates are over the time between two pages of metrics.
    let at = clock.now();
    let node: NodeView = serde_json::from_str(&admin.ask(Method::GET, "/node", None)?)?;
    let fleet: Option<FleetView> = match node.store {
        Some(_) => admin
            .ask_if_there("/fleet")?
            .map(|text| serde_json::from_str(&text))
            .transpose()?,
        None => None,
    };
    Ok(Look {
        at,
        metrics: Page::read(&metrics),
        node,
        fleet,
    })
}
