//! `GET /config`: which policy is in force, since when, and what was found in the files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use serde::Serialize;

use super::FindingView;
use super::node::LastReadView;
use super::plan::PlanView;
use crate::policy::plan::DaemonConfig;
use crate::policy::status::ResourceStatus;
use crate::policy::{Diagnostic, Outcome, Plan};

/// Findings told in short; `/config` has all.
const MAX_FINDINGS: usize = 20;

/// Why the policy files were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    Start,
    Signal,
    FileChange,
}

impl Trigger {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Signal => "signal",
            Self::FileChange => "file change",
        }
    }
}

/// The policy in force, and how the last reading of the files went.
#[derive(Debug)]
pub struct Loads {
    directory: PathBuf,
    in_force: ArcSwap<InForce>,
    last: ArcSwap<LastLoad>,
    watching: AtomicBool,
    /// Policies put in force so far.
    generation: AtomicU64,
    /// What the daemon was started with.
    started: (SystemTime, DaemonConfig),
}

#[derive(Debug)]
struct InForce {
    plan: Plan,
    since: SystemTime,
}

#[derive(Debug)]
struct LastLoad {
    at: SystemTime,
    trigger: Trigger,
    /// Why it was refused.
    rejected: Option<String>,
    findings: Vec<FindingView>,
    statuses: Vec<ResourceStatus>,
    /// See [`Outcome::kept`].
    kept: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ConfigView<'a> {
    directory: String,
    /// Whether changes of the files are noticed.
    watching: bool,
    /// RFC 3339, UTC.
    in_force_since: String,
    last_load: LastLoadView<'a>,
    plan: PlanView,
}

#[derive(Debug, Serialize)]
struct LastLoadView<'a> {
    /// RFC 3339, UTC.
    at: String,
    trigger: &'static str,
    /// Whether what was read is in force.
    applied: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected: Option<&'a str>,
    findings: &'a [FindingView],
    /// Resources that are not valid now and whose last good version goes on.
    kept: &'a [String],
}

impl Loads {
    /// The first policy, read from `directory` at `at`.
    #[must_use]
    pub fn new(directory: &Path, plan: Plan, outcome: &Outcome, at: SystemTime) -> Self {
        Self {
            directory: directory.to_owned(),
            generation: AtomicU64::new(1),
            started: (at, plan.daemon.clone()),
            in_force: ArcSwap::from_pointee(InForce { plan, since: at }),
            last: ArcSwap::from_pointee(LastLoad {
                at,
                trigger: Trigger::Start,
                rejected: None,
                findings: views(&outcome.diagnostics),
                statuses: outcome.statuses.clone(),
                kept: outcome.kept.clone(),
            }),
            watching: AtomicBool::new(false),
        }
    }

    /// `plan` is in force since `at`.
    pub fn applied(&self, plan: Plan, outcome: &Outcome, trigger: Trigger, at: SystemTime) {
        self.in_force.store(Arc::new(InForce { plan, since: at }));
        self.generation.fetch_add(1, Ordering::Relaxed);
        self.read(None, outcome, trigger, at);
    }

    /// What was read at `at` was refused for `reason`; what was in force stays.
    pub fn rejected(&self, reason: String, outcome: &Outcome, trigger: Trigger, at: SystemTime) {
        self.read(Some(reason), outcome, trigger, at);
    }

    fn read(&self, rejected: Option<String>, outcome: &Outcome, trigger: Trigger, at: SystemTime) {
        self.last.store(Arc::new(LastLoad {
            at,
            trigger,
            rejected,
            findings: views(&outcome.diagnostics),
            statuses: outcome.statuses.clone(),
            kept: outcome.kept.clone(),
        }));
    }

    /// Whether changes of the files are noticed.
    pub fn set_watching(&self, watching: bool) {
        self.watching.store(watching, Ordering::Relaxed);
    }

    /// Whether changes of the files are noticed.
    #[must_use]
    pub fn watching(&self) -> bool {
        self.watching.load(Ordering::Relaxed)
    }

    /// How many policies have been put in force, that of the start among them.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// When the daemon started (RFC 3339), and by which configuration it goes until it ends.
    #[must_use]
    pub fn started(&self) -> (String, &DaemonConfig) {
        (time(self.started.0), &self.started.1)
    }

    /// How the files were last read, in short.
    #[must_use]
    pub fn last_read(&self) -> LastReadView {
        let last = self.last.load();
        let number = |severity| {
            let found = last.findings.iter();
            found.filter(|one| one.severity == severity).count()
        };
        let mut findings = last.findings.clone();
        findings.sort_by_key(|one| one.severity != "error");
        findings.truncate(MAX_FINDINGS);
        LastReadView {
            at: time(last.at),
            trigger: last.trigger.name().to_owned(),
            applied: last.rejected.is_none(),
            rejected: last.rejected.clone(),
            errors: number("error"),
            warnings: number("warning"),
            kept: last.kept.clone(),
            findings,
        }
    }

    /// Gives the plan in force to `ask`.
    pub fn with_plan<T>(&self, ask: impl FnOnce(&Plan) -> T) -> T {
        ask(&self.in_force.load().plan)
    }

    /// Where the policy in force was read, its fingerprint (64 bits of SHA-256 of what is shown of
    /// it, in hexadecimal), and since when it is in force (RFC 3339).
    ///
    /// # Errors
    /// None in practice: the view is plain data.
    pub fn in_force(&self) -> serde_json::Result<(String, String, String)> {
        let in_force = self.in_force.load();
        let plan = serde_json::to_vec(&PlanView::from(&in_force.plan))?;
        let digest = ring::digest::digest(&ring::digest::SHA256, &plan);
        let used = digest.as_ref().first_chunk().copied().unwrap_or_default();
        let fingerprint = format!("{:016x}", u64::from_be_bytes(used));
        let directory = self.directory.display().to_string();
        Ok((directory, fingerprint, time(in_force.since)))
    }

    /// The conditions of every resource as it was last read.
    ///
    /// # Errors
    /// None in practice: they are plain data.
    pub fn statuses(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(&self.last.load().statuses)
    }

    /// The document.
    ///
    /// # Errors
    /// None in practice: the views are plain data.
    pub fn json(&self) -> serde_json::Result<String> {
        let in_force = self.in_force.load();
        let last = self.last.load();
        serde_json::to_string_pretty(&ConfigView {
            directory: self.directory.display().to_string(),
            watching: self.watching(),
            in_force_since: time(in_force.since),
            last_load: LastLoadView {
                at: time(last.at),
                trigger: last.trigger.name(),
                applied: last.rejected.is_none(),
                rejected: last.rejected.as_deref(),
                findings: &last.findings,
                kept: &last.kept,
            },
            plan: PlanView::from(&in_force.plan),
        })
    }
}

fn views(findings: &[Diagnostic]) -> Vec<FindingView> {
    findings.iter().map(FindingView::from).collect()
}

fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}
