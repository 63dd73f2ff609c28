//! Access logs and captures, replayed against policy files: who would have been limited, when, and by
//! which rule.
//!
//! One thread reads: it decompresses, parses, merges several logs by their times, and hands requests
//! over in batches through a bounded queue. The caller's thread decides them, in the order in which
//! they began, by the engine that the daemon has, with the log's times as its clock; so a day is
//! replayed as fast as it can be read. Nothing grows with the length of a log: the requests that wait
//! to be put in order, the clients that are counted and the steps of the charts are bounded.
//!
//! Global limits are counted in memory, as if one node had seen all that the logs have. What a log
//! does not say (headers that a rule looks at, what a response says of its cost) cannot be guessed:
//! the report says what is missing, and of how many requests.

mod compare;
mod entry;
mod feed;
mod html;
mod line;
mod order;
mod packets;
mod player;
mod report;
mod series;
mod source;
mod tally;
mod wanted;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use entry::{Entry, Logged};
use feed::Feed;
pub use html::html;
use order::InOrder;
use player::{Fate, Player};
pub use report::{
    Agreement, Comparison, DroppedSource, LimitedBucket, LimitedClient, LineCounts, OnlyOne,
    PacketReason, PacketReport, PolicyReport, Ranking, Report, RuleReport, Steps,
};
use source::Kind;
pub use source::SourceError;
use tally::Tally;
use wanted::Wanted;

use crate::l4::L4Error;
use crate::policy::Plan;

/// A policy directory and what it comes to.
#[derive(Debug)]
pub struct Policy {
    pub name: String,
    pub plan: Plan,
}

/// What to replay.
#[derive(Debug)]
pub struct Settings<'a> {
    pub policy: &'a Policy,
    /// A policy to compare with.
    pub against: Option<&'a Policy>,
    /// Logs and captures, also compressed by gzip; `-`: standard input.
    pub logs: &'a [PathBuf],
    /// Of requests whose log does not name one.
    pub host: &'a str,
    /// Clients and buckets that are told.
    pub top: usize,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("cannot start the thread that reads: {0}")]
    Thread(std::io::Error),
    #[error("the thread that reads broke off")]
    Broke,
    #[error("{}: {reason}", path.display())]
    Capture { path: PathBuf, reason: String },
    #[error("cannot run the kernel's program on the packets of a capture: {0}")]
    Kernel(#[from] L4Error),
}

/// How far it has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Bytes of the files that were read.
    pub bytes: u64,
    /// Requests and packets that were decided.
    pub decided: u64,
}

/// Replays logs and captures. `progress` is told now and then how far it has come.
///
/// # Errors
/// When a file cannot be read, or the kernel's program cannot be run for a capture.
pub fn run(
    settings: &Settings<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, SimulateError> {
    let bytes = Arc::new(AtomicU64::new(0));
    let mut logs = Vec::new();
    let mut captures = Vec::new();
    for path in settings.logs {
        let opened = source::open(path, &bytes)?;
        match opened.kind {
            Kind::Lines => logs.push((path.clone(), opened.reader)),
            Kind::Packets => captures.push((path.clone(), opened.reader)),
        }
    }
    let plans = || std::iter::once(settings.policy).chain(settings.against);
    let wanted = Wanted::new(plans().map(|policy| &policy.plan));
    let mut replay = Replay::new(settings, &wanted);
    let reads = !logs.is_empty();
    let mut feed = Feed::start(logs, &wanted)?;
    let told = |decided| Progress {
        bytes: bytes.load(Ordering::Relaxed),
        decided,
    };
    while let Some(batch) = feed.next() {
        for entry in batch {
            if let Some(entry) = replay.order.push(entry) {
                replay.decide(&entry);
            }
        }
        progress(told(replay.requests));
    }
    while let Some(entry) = replay.order.pop() {
        replay.decide(&entry);
    }
    let read = feed.finish()?;
    let mut report = replay.report(settings, &wanted, reads);
    report.lines = LineCounts {
        read: read.lines,
        connections: read.connections,
        unreadable: read.unreadable,
        first_unreadable: read.named,
        ..report.lines
    };
    if !captures.is_empty() {
        let before = report.lines.requests;
        let packets = packets::replay(captures, settings, &mut |packets| {
            progress(told(before + packets));
        })?;
        report.packets = Some(packets);
    }
    Ok(report)
}

/// A header that policies look at, and how many requests have it.
type Present = (http::HeaderName, u64);

struct Replay {
    order: InOrder,
    players: Vec<(Player, Tally)>,
    difference: compare::Difference,
    agreement: Agreement,
    present: Vec<Present>,
    requests: u64,
    without_host: u64,
    without_local: u64,
    from: u64,
    to: u64,
}

impl Replay {
    fn new(settings: &Settings<'_>, wanted: &Wanted) -> Self {
        let policies = std::iter::once(settings.policy).chain(settings.against);
        let player = |policy: &Policy| (Player::new(&policy.plan, settings.host), Tally::default());
        Self {
            order: InOrder::default(),
            players: policies.map(player).collect(),
            difference: compare::Difference::default(),
            agreement: Agreement::default(),
            present: wanted.all().map(|(name, _)| (name.clone(), 0)).collect(),
            requests: 0,
            without_host: 0,
            without_local: 0,
            from: 0,
            to: 0,
        }
    }

    fn decide(&mut self, entry: &Entry) {
        if self.requests == 0 {
            self.from = entry.at;
        }
        self.to = entry.at;
        self.requests += 1;
        self.without_host += u64::from(entry.host.is_none());
        self.without_local += u64::from(entry.local.is_none());
        for (name, count) in &mut self.present {
            *count += u64::from(entry.headers.contains_key(&*name));
        }
        let mut first = None;
        for (player, tally) in &mut self.players {
            let fate = player.play(entry);
            tally.add(entry, &fate);
            match &first {
                None => {
                    if let Some(logged) = &entry.logged {
                        agree(&mut self.agreement, logged, &fate);
                    }
                    first = Some(fate);
                }
                Some(first) => self.difference.add(entry, first, &fate),
            }
        }
    }

    fn report(mut self, settings: &Settings<'_>, wanted: &Wanted, reads: bool) -> Report {
        let mut policies = Vec::new();
        let named = std::iter::once(settings.policy).chain(settings.against);
        for ((player, tally), policy) in self.players.iter_mut().zip(named) {
            player.finish();
            let name = policy.name.clone();
            policies.push(tally.report(name, &player.state, settings.top));
        }
        let mut policies = policies.into_iter();
        let time = |at: u64| (self.requests > 0).then(|| line::rfc3339(at));
        let display = |path: &PathBuf| Path::new(path).display().to_string();
        Report {
            logs: settings.logs.iter().map(display).collect(),
            from: time(self.from),
            to: time(self.to),
            lines: LineCounts {
                requests: self.requests,
                late: self.order.late,
                ..LineCounts::default()
            },
            notes: if reads {
                self.notes(settings, wanted)
            } else {
                Vec::new()
            },
            logged: (self.agreement.requests > 0).then(|| self.agreement.clone()),
            policy: policies.next().unwrap_or_default(),
            against: policies.next(),
            comparison: settings
                .against
                .map(|_| self.difference.report(settings.top)),
            packets: None,
        }
    }

    /// What the logs do not say of requests, and what is left out.
    fn notes(&self, settings: &Settings<'_>, wanted: &Wanted) -> Vec<String> {
        let mut notes = Vec::new();
        for ((name, count), (_, by)) in self.present.iter().zip(wanted.all()) {
            let without = self.requests - count;
            // A log that has it of some requests has it of all that sent it.
            if *count == 0 && without > 0 {
                let by = by.iter().map(String::as_str).take(3);
                let by = by.collect::<Vec<_>>().join(", ");
                notes.push(format!(
                    "the logs never have the header {name}, which {by} looks at: requests are decided as if none had sent it"
                ));
            }
        }
        if self.without_host > 0 {
            notes.push(format!(
                "{} requests have no host in the log, and count as sent to `{}` (--host says otherwise)",
                self.without_host, settings.host
            ));
        }
        let policies = std::iter::once(settings.policy).chain(settings.against);
        for policy in policies {
            let left_out = wanted::not_replayed(&policy.plan).into_iter();
            let prefix = match settings.against {
                Some(_) => format!("{}: ", policy.name),
                None => String::new(),
            };
            notes.extend(left_out.map(|note| format!("{prefix}{note}")));
        }
        notes
    }
}

/// Compares what a daemon decided with what the policy decides now.
fn agree(agreement: &mut Agreement, logged: &Logged, fate: &Fate) {
    let (limited, rule) = match fate {
        Fate::Limited(limited) => (true, Some(limited.rule.name())),
        Fate::Admitted(rule) => (false, rule.as_ref().map(|rule| rule.name())),
        Fate::NoRoute | Fate::BadRequest | Fate::Broken | Fate::Refused => (false, None),
    };
    agreement.requests += 1;
    match (logged.over_limit, limited) {
        (true, false) => agreement.only_log += 1,
        (false, true) => agreement.only_simulated += 1,
        _ if logged.rule.as_deref() == rule => agreement.same += 1,
        _ => agreement.other_rule += 1,
    }
}
