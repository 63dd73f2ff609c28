//! Policy files: read, checked, compiled to one [`plan`].
//!
//! `source` (files and documents) → `yaml` (trees) → `decode` (structs that mirror the files) → the
//! dialects (each resource checked by itself) → `compile` (references, attachment, precedence) →
//! [`Plan`] and [`status`]. Findings are collected all the way. A resource with an error in it is not
//! used; its last good version goes on, if there is one, and so do all others.

mod compile;
mod core;
mod decode;
pub mod diagnostic;
mod envoy_gateway;
mod findings;
mod gateway_api;
mod gloo;
mod kinds;
mod native;
pub mod plan;
mod quantity;
mod ratelimit_service;
mod resource;
mod resources;
mod source;
pub mod status;
mod suggest;
mod timestamp;
mod units;
mod yaml;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

pub use decode::{Field, Type};
pub use diagnostic::{Diagnostic, Severity};
pub use plan::Plan;
pub use source::SourceFile;

use findings::Findings;
use resources::{Reader, Resources};
use status::{ResourceStatus, Statuses};

/// What loading a policy directory comes to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// `None`: nothing to begin with (see [`load`]).
    pub plan: Option<Plan>,
    /// Sorted by file, line and column.
    pub diagnostics: Vec<Diagnostic>,
    /// Sorted by kind, namespace and name.
    pub statuses: Vec<ResourceStatus>,
    /// Resources seen, by kind.
    pub counts: BTreeMap<&'static str, usize>,
    /// The files as they were read, in order of name.
    pub sources: Vec<SourceFile>,
    /// Resources that cannot be used as they are in the files and whose last good version goes on,
    /// as `Kind namespace/name`.
    pub kept: Vec<String>,
    /// What the next one falls back on.
    resources: Arc<Resources>,
}

impl Outcome {
    /// How many diagnostics are this bad.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.diagnostics
            .iter()
            .filter(|found| found.severity == severity)
            .count()
    }
}

/// A certificate chain and its key, in PEM; `name` says in errors what it is.
///
/// # Errors
/// When they are none, or do not belong together: what is wrong, in words.
pub fn certificate(name: &str, chain: &[u8], key: &[u8]) -> Result<plan::Certificate, String> {
    core::pem::pair(name.to_owned(), chain, key).map_err(|problem| format!("{name}: {problem}"))
}

/// The fields of a kind of resource.
#[derive(Clone, Debug)]
pub struct KindFields {
    pub kind: &'static str,
    /// Empty: of Kubernetes' core, and of files of the rate limit service.
    pub group: &'static str,
    /// All but those that every resource has, parents before their children.
    pub fields: Vec<Field>,
}

/// Which fields each kind has, as the decoder of the files has them.
#[must_use]
pub fn fields() -> Vec<KindFields> {
    kinds::Kind::ALL
        .into_iter()
        .chain([kinds::Kind::Domain])
        .map(|kind| KindFields {
            kind: kind.title(),
            group: kind.group(),
            fields: resources::fields::of(kind),
        })
        .collect()
}

/// Loads the policy directory `dir` (or a single file).
///
/// Every `*.yaml` and `*.yml` in it is read, in order of name; subdirectories and hidden entries are
/// not. It does not fail: what is wrong is in the diagnostics, as much of it as can be found at once.
///
/// Resources with errors are left out of the plan, and rules whose policy has errors are broken in
/// it. There is no plan at all where a limit could be missing without a trace, or nothing is left:
/// a file cannot be read or is no YAML, a LimiterConfig has errors, the targets of a policy with
/// errors are not known, or there are errors and no listener, no network policy and no domain.
#[must_use]
pub fn load(dir: &Path) -> Outcome {
    read(dir, None)
}

/// Loads the policy directory again: what cannot be used as it is now stays as it was in `previous`,
/// resource by resource. Of files that cannot be read everything stays. What is no longer there is
/// gone. If `previous` has a plan, so has the outcome.
#[must_use]
pub fn reload(dir: &Path, previous: &Outcome) -> Outcome {
    let good = previous.plan.is_some().then_some(&*previous.resources);
    read(dir, good)
}

fn read(dir: &Path, good: Option<&Resources>) -> Outcome {
    let mut findings = Findings::default();
    let sources = source::read(dir, &mut findings);
    let mut reader = Reader::new(good);
    for file in &sources.files {
        for document in source::documents(&file.text) {
            reader.read(&file.path, document, &mut findings);
        }
    }
    let (mut resources, drafts) = reader.finish();
    for file in &sources.lost {
        resources.lose(file);
    }
    let usable = match good {
        Some(good) => {
            resources.recover(good, sources.all_lost, &mut findings);
            compile::strays::keep(&mut resources, good, &mut findings);
            true
        }
        None => !sources.all_lost && !resources.is_incomplete(),
    };
    if let Some(drafts) = drafts {
        // What else is wrong with resources that have errors; not even a draft of them is used.
        compile::compile(&drafts, &mut Statuses::default(), &mut findings);
    }
    let mut statuses = Statuses::default();
    let plan = compile::compile(&resources, &mut statuses, &mut findings);
    let listens = !plan.listeners.is_empty() || !plan.tcp.is_empty();
    let nothing = !listens && plan.network.is_empty() && plan.domains.is_empty();
    let usable = usable && (good.is_some() || !nothing || findings.errors() == 0);
    // One that runs goes on with the store that it has.
    let usable = usable && (good.is_some() || !plan.daemon.store_unusable);
    Outcome {
        plan: usable.then_some(plan),
        diagnostics: findings.into_sorted(),
        statuses: statuses.into_sorted(),
        counts: resources.counts.clone(),
        sources: sources.files,
        kept: resources.kept(),
        resources: Arc::new(resources),
    }
}
