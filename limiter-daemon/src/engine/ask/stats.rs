//! What became of questions about the requests to a backend, by Envoy's names.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// An event that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskStat {
    /// The service said that the request is not over a limit.
    Ok,
    /// The service said nothing.
    Error,
    /// The service said that the request is over a limit.
    OverLimit,
    /// The service said nothing, and the request passed.
    FailureModeAllowed,
}

impl AskStat {
    pub const ALL: [Self; 4] = [
        Self::Ok,
        Self::Error,
        Self::OverLimit,
        Self::FailureModeAllowed,
    ];

    /// The last part of the metric's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::OverLimit => "over_limit",
            Self::FailureModeAllowed => "failure_mode_allowed",
        }
    }
}

/// The counts of one backend and one prefix (`statPrefix` of filters; empty: none).
#[derive(Debug, Default)]
pub struct AskCounts {
    pub prefix: String,
    counts: [AtomicU64; AskStat::ALL.len()],
}

impl AskCounts {
    pub fn count(&self, stat: AskStat) {
        self.counts[stat as usize].fetch_add(1, Ordering::Relaxed);
    }

    #[must_use]
    pub fn get(&self, stat: AskStat) -> u64 {
        self.counts[stat as usize].load(Ordering::Relaxed)
    }
}

/// The counts of one backend, for each prefix that filters have had.
#[derive(Debug, Default)]
pub struct AskStats(RwLock<Vec<Arc<AskCounts>>>);

impl AskStats {
    /// The counts for a prefix.
    #[must_use]
    pub fn of(&self, prefix: &str) -> Arc<AskCounts> {
        let same = |one: &&Arc<AskCounts>| one.prefix == prefix;
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.iter().find(same) {
            return Arc::clone(found);
        }
        drop(known);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.iter().find(same) {
            return Arc::clone(found);
        }
        let made = Arc::new(AskCounts {
            prefix: prefix.to_owned(),
            ..AskCounts::default()
        });
        known.push(Arc::clone(&made));
        made
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<AskCounts>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
