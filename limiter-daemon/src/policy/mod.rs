//! Policy files: read, checked, compiled to one [`plan`].
//!
//! `source` (files and documents) → `yaml` (trees) → `decode` (structs that mirror the files) → the
//! dialects (each resource checked by itself) → `compile` (references, attachment, precedence) →
//! [`Plan`]. Findings are collected all the way, and only their end decides whether there is a plan.

mod compile;
mod decode;
pub mod diagnostic;
mod envoy_gateway;
mod findings;
mod gateway_api;
mod kinds;
mod native;
pub mod plan;
mod quantity;
mod resource;
mod resources;
mod source;
mod suggest;
mod timestamp;
mod units;
mod yaml;

use std::collections::BTreeMap;
use std::path::Path;

pub use diagnostic::{Diagnostic, Severity};
pub use plan::Plan;
pub use source::SourceFile;

use findings::Findings;
use resources::Resources;

/// What loading a policy directory comes to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// `None` if there is any error among the diagnostics.
    pub plan: Option<Plan>,
    /// Sorted by file, line and column.
    pub diagnostics: Vec<Diagnostic>,
    /// Resources seen, by kind.
    pub counts: BTreeMap<&'static str, usize>,
    /// The files as they were read, in order of name.
    pub sources: Vec<SourceFile>,
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

/// Loads the policy directory `dir` (or a single file).
///
/// Every `*.yaml` and `*.yml` in it is read, in order of name; subdirectories and hidden entries are
/// not. It does not fail: what is wrong is in the diagnostics, as much of it as can be found at once.
#[must_use]
pub fn load(dir: &Path) -> Outcome {
    let mut findings = Findings::default();
    let sources = source::read(dir, &mut findings);
    let mut resources = Resources::default();
    for file in &sources {
        for document in source::documents(&file.text) {
            resources.read(&file.path, document, &mut findings);
        }
    }
    let plan = compile::compile(&resources, &mut findings);
    Outcome {
        plan: (!findings.has_errors()).then_some(plan),
        diagnostics: findings.into_sorted(),
        counts: resources.counts,
        sources,
    }
}
