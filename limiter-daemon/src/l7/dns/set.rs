//! Which names are due when, and what is known of them. Nothing here waits or reads a clock; times
//! are nanoseconds of the data plane's.
//!
//! A name is looked up again after its refresh interval, or sooner if a record's TTL is shorter and is
//! respected; after a failure or an empty answer after a second, then two, four, and so on, up to a
//! minute or the refresh interval, whichever is shorter. Between two lookups lies a second at least.
//! Up to a tenth is added by chance, so that names do not stay in step.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::resolver::{Answer, Failure};
use super::{BackendCounts, MAX_IN_FLIGHT};
use crate::policy::plan::Dns;

/// Between two lookups of a name, at least; and after the first failure.
const SHORTEST: Duration = Duration::from_secs(1);
/// After many failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A name to resolve, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    host: Arc<str>,
    dns: Dns,
}

impl Question {
    pub(super) fn new(host: &str, dns: Dns) -> Self {
        Self {
            host: host.into(),
            dns,
        }
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) const fn dns(&self) -> &Dns {
        &self.dns
    }
}

/// What a name resolves to.
#[derive(Debug, Default)]
pub struct Addresses(ArcSwapOption<Vec<IpAddr>>);

impl Addresses {
    /// So many are used of one name.
    pub const MAX: usize = 64;

    /// In ascending order, never empty. `None`: there has been no answer yet.
    #[must_use]
    pub fn get(&self) -> Option<Arc<Vec<IpAddr>>> {
        self.0.load_full()
    }
}

/// How often names were looked up, and what came of it. Empty answers are neither successes nor
/// failures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub attempts: u64,
    pub successes: u64,
    /// Of the successes: those with the addresses that were known.
    pub unchanged: u64,
    pub failures: u64,
    /// There is no such name, or it has no addresses.
    pub empty: u64,
    /// Addresses that were left out because a name had too many.
    pub left_out: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.attempts += other.attempts;
        self.successes += other.successes;
        self.unchanged += other.unchanged;
        self.failures += other.failures;
        self.empty += other.empty;
        self.left_out += other.left_out;
    }
}

#[derive(Debug)]
struct Entry {
    addresses: Arc<Addresses>,
    due: u64,
    in_flight: bool,
    /// Without a good answer, in a row.
    failures: u32,
    counts: Counts,
}

impl Entry {
    fn new(due: u64) -> Self {
        Self {
            addresses: Arc::default(),
            due,
            in_flight: false,
            failures: 0,
            counts: Counts::default(),
        }
    }

    /// After how long it is due again; `ttl` of the answer, if it was a good one.
    fn pause(&mut self, dns: &Dns, ttl: Option<Duration>) -> Duration {
        let refresh = dns.refresh.max(SHORTEST);
        match ttl {
            Some(ttl) => {
                self.failures = 0;
                if dns.respect_ttl {
                    refresh.min(ttl).max(SHORTEST)
                } else {
                    refresh
                }
            }
            None => {
                let doubled = SHORTEST.saturating_mul(1 << self.failures.min(30));
                self.failures = self.failures.saturating_add(1);
                doubled.min(LONGEST_PAUSE).min(refresh)
            }
        }
    }
}

/// The names of the plan in force.
#[derive(Debug, Default)]
pub(super) struct Set {
    entries: HashMap<Question, Entry>,
    backends: BTreeMap<String, HashSet<Question>>,
}

impl Set {
    /// These are the names, by backend. New ones are due at once.
    pub(super) fn apply(&mut self, backends: BTreeMap<&str, HashSet<Question>>, now: u64) {
        let wanted: HashSet<_> = backends.values().flatten().collect();
        self.entries.retain(|question, _| wanted.contains(question));
        for question in wanted {
            if !self.entries.contains_key(question) {
                self.entries.insert(question.clone(), Entry::new(now));
            }
        }
        let owned = |(name, questions): (&str, _)| (name.to_owned(), questions);
        self.backends = backends.into_iter().map(owned).collect();
    }

    pub(super) fn addresses(&self, question: &Question) -> Option<Arc<Addresses>> {
        let entry = self.entries.get(question)?;
        Some(Arc::clone(&entry.addresses))
    }

    /// What is to be looked up now, the longest due first, at most `room`; each is to be answered.
    pub(super) fn due(&mut self, now: u64, room: usize) -> Vec<Question> {
        let waiting = self.entries.iter_mut().filter(|(_, e)| !e.in_flight);
        let mut due: Vec<_> = waiting.filter(|(_, e)| e.due <= now).collect();
        due.sort_by_key(|(_, entry)| entry.due);
        let start = |(question, entry): (&Question, &mut Entry)| {
            entry.in_flight = true;
            entry.counts.attempts += 1;
            question.clone()
        };
        due.into_iter()
            .take(room.min(MAX_IN_FLIGHT))
            .map(start)
            .collect()
    }

    /// When something is due next; `None`: there is nothing.
    pub(super) fn wake(&self) -> Option<u64> {
        let waiting = self.entries.values().filter(|entry| !entry.in_flight);
        waiting.map(|entry| entry.due).min()
    }

    /// Takes an answer. The addresses, if they are others than before.
    pub(super) fn answered(
        &mut self,
        question: &Question,
        answer: Result<Answer, Failure>,
        now: u64,
        random: u64,
    ) -> Option<Arc<Vec<IpAddr>>> {
        // A reload may have taken the name away.
        let entry = self.entries.get_mut(question)?;
        entry.in_flight = false;
        let ttl = answer.as_ref().ok().map(|answer| answer.ttl);
        let pause = entry.pause(&question.dns, ttl);
        entry.due = now.saturating_add(nanoseconds(pause + jitter(pause, random)));
        let counts = &mut entry.counts;
        match answer {
            Ok(answer) => {
                counts.successes += 1;
                counts.left_out += answer.left_out as u64;
                let known = entry.addresses.get();
                if known.is_some_and(|known| *known == answer.addresses) {
                    counts.unchanged += 1;
                    return None;
                }
                let addresses = Arc::new(answer.addresses);
                entry.addresses.0.store(Some(Arc::clone(&addresses)));
                Some(addresses)
            }
            Err(Failure::Empty) => {
                counts.empty += 1;
                None
            }
            Err(_) => {
                counts.failures += 1;
                None
            }
        }
    }

    pub(super) fn counts(&self) -> Vec<BackendCounts> {
        let sum = |questions: &HashSet<Question>| {
            let mut sum = Counts::default();
            for entry in questions.iter().filter_map(|q| self.entries.get(q)) {
                sum += entry.counts;
            }
            sum
        };
        self.backends
            .iter()
            .map(|(backend, questions)| BackendCounts {
                backend: backend.clone(),
                counts: sum(questions),
            })
            .collect()
    }
}

/// Up to a tenth of `pause`.
fn jitter(pause: Duration, random: u64) -> Duration {
    Duration::from_nanos(random % (nanoseconds(pause) / 10 + 1))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
