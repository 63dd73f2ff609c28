//! What is counted of a limit, under the reference service's names.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::engine::state::Admits;
use crate::policy::plan;

/// The names, in the order of [`LimitStats::counts`].
pub const STATISTICS: [&str; 6] = [
    "total_hits",
    "over_limit",
    "near_limit",
    "over_limit_with_local_cache",
    "within_limit",
    "shadow_mode",
];

/// The counts of one limit.
#[derive(Debug, Default)]
pub struct LimitStats {
    pub domain: String,
    /// `key_value` of each level that leads to the limit, as the files have it; a value that only
    /// requests have where the files say so ([`Detailed`]).
    pub path: Vec<String>,
    total: AtomicU64,
    over: AtomicU64,
    near: AtomicU64,
    within: AtomicU64,
    shadow: AtomicU64,
    remembered: AtomicU64,
    /// What the plan in force admits, for who wants to know.
    admits: Mutex<Option<Admits>>,
}

impl LimitStats {
    pub(super) fn new(domain: &str, path: Vec<String>) -> Self {
        Self {
            domain: domain.to_owned(),
            path,
            ..Self::default()
        }
    }

    /// Hits so far. Only what a store counts is answered from a memory of limits that are over: this
    /// node's own counts are as near.
    #[must_use]
    pub fn counts(&self) -> [u64; 6] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            read(&self.total),
            read(&self.over),
            read(&self.near),
            read(&self.remembered),
            read(&self.within),
            read(&self.shadow),
        ]
    }

    /// Takes note of what the limit admits; `None`: everything.
    pub(super) fn set_admits(&self, admits: Option<Admits>) {
        *self.admits.lock().unwrap_or_else(PoisonError::into_inner) = admits;
    }

    /// What the limit admits by the plan in force; `None`: everything, or these are statistics of
    /// values of requests, or of limits that requests bring along.
    #[must_use]
    pub fn admits(&self) -> Option<Admits> {
        *self.admits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn asked(&self, hits: u64) {
        self.total.fetch_add(hits, Ordering::Relaxed);
    }

    /// It was known, without the store.
    pub(super) fn remembered(&self, hits: u64) {
        self.remembered.fetch_add(hits, Ordering::Relaxed);
    }

    pub(super) fn over(&self, hits: u64, shadow: bool) {
        self.over.fetch_add(hits, Ordering::Relaxed);
        if shadow {
            self.shadow.fetch_add(hits, Ordering::Relaxed);
        }
    }

    /// `used` of the limit's tokens are, with these hits; beyond `near` is near it.
    pub(super) fn within(&self, hits: u64, used: u64, near: u64) {
        self.within.fetch_add(hits, Ordering::Relaxed);
        let near = used.saturating_sub(near).min(hits);
        self.near.fetch_add(near, Ordering::Relaxed);
    }
}

/// How many values of requests have statistics of their own, over all limits. The reference service
/// keeps all that it ever saw.
const MAX_DETAILED: usize = 10_000;

/// What all [`Detailed`] share: how many there still may be.
#[derive(Debug)]
pub(in crate::engine) struct DetailedBound {
    left: AtomicUsize,
    refused: AtomicU64,
}

impl Default for DetailedBound {
    fn default() -> Self {
        Self {
            left: AtomicUsize::new(MAX_DETAILED),
            refused: AtomicU64::new(0),
        }
    }
}

impl DetailedBound {
    fn one(&self) -> bool {
        let less = |left: usize| left.checked_sub(1);
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        if taken.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        taken.is_ok()
    }

    /// Questions about values for which there was no room.
    pub(in crate::engine) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Statistics of one limit by values of requests (`detailed_metric`, `value_to_metric`).
#[derive(Debug)]
pub struct Detailed {
    domain: String,
    levels: Vec<Told>,
    by_path: RwLock<HashMap<Vec<String>, Arc<LimitStats>>>,
    bound: Arc<DetailedBound>,
}

/// What is told of an entry.
#[derive(Debug)]
enum Told {
    /// This, whatever its value.
    Label(String),
    /// Key and value.
    Value,
}

impl Detailed {
    /// `detailed`: values of all levels are told, but of those whose values share a count.
    pub(in crate::engine) fn new(
        domain: &str,
        detailed: bool,
        path: &[&plan::Descriptor],
        bound: Arc<DetailedBound>,
    ) -> Self {
        let told = |one: &&plan::Descriptor| {
            if one.share_threshold || !(detailed || one.value_to_metric) {
                Told::Label(one.label())
            } else {
                Told::Value
            }
        };
        Self {
            domain: domain.to_owned(),
            levels: path.iter().map(told).collect(),
            by_path: RwLock::default(),
            bound,
        }
    }

    /// A name that two of the same kind have in common.
    pub(in crate::engine) fn kind(&self) -> String {
        let letter = |told: &Told| match told {
            Told::Label(_) => 'l',
            Told::Value => 'v',
        };
        self.levels.iter().map(letter).collect()
    }

    /// The statistics of these entries; `None`: there is no room for more.
    pub(super) fn of(&self, entries: &[(&str, &str)]) -> Option<Arc<LimitStats>> {
        let label = |((key, value), told): (&(&str, &str), &Told)| match told {
            Told::Label(label) => label.clone(),
            Told::Value if value.is_empty() => (*key).to_owned(),
            Told::Value => format!("{key}_{value}"),
        };
        let path: Vec<String> = entries.iter().zip(&self.levels).map(label).collect();
        let known = self.by_path.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(stats) = known.get(&path) {
            return Some(Arc::clone(stats));
        }
        drop(known);
        let mut all = self.by_path.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(stats) = all.get(&path) {
            return Some(Arc::clone(stats));
        }
        if !self.bound.one() {
            return None;
        }
        let stats = Arc::new(LimitStats::new(&self.domain, path.clone()));
        all.insert(path, Arc::clone(&stats));
        Some(stats)
    }

    /// All of them.
    pub(in crate::engine) fn all(&self) -> Vec<Arc<LimitStats>> {
        let all = self.by_path.read().unwrap_or_else(PoisonError::into_inner);
        all.values().map(Arc::clone).collect()
    }
}

impl Drop for Detailed {
    fn drop(&mut self) {
        let all = self
            .by_path
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        self.bound.left.fetch_add(all.len(), Ordering::Relaxed);
    }
}
