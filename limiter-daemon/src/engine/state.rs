//! What outlives a plan: buckets and counters, found again by name when the plan changes.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::buckets::{BucketKey, BucketTable, Tat};

/// Aggregate buckets of a rule with a bucket a value, for values that find no room in the table.
const AGGREGATES: usize = 256;

/// Buckets and counters of the process.
#[derive(Debug)]
pub struct State {
    table: Arc<BucketTable>,
    scopes: Mutex<HashMap<String, Weak<Scope>>>,
    routes: Mutex<HashMap<String, Weak<RouteStats>>>,
}

/// One limit on one route: its buckets and its counters.
#[derive(Debug)]
pub struct Scope {
    /// Rule, as `namespace/name/rule/index`.
    pub rule: String,
    /// Route, as `namespace/name`.
    pub route: String,
    table: Arc<BucketTable>,
    /// The single bucket of a rule without distinct values, or the aggregates of one with.
    cells: Box<[Tat]>,
    pub admitted: AtomicU64,
    pub limited: AtomicU64,
}

/// Requests of one route by the class of the answer's status code.
#[derive(Debug, Default)]
pub struct RouteStats {
    pub route: String,
    /// `[0]`: 1xx, to `[4]`: 5xx.
    pub responses: [AtomicU64; 5],
}

impl RouteStats {
    /// Counts an answer.
    pub fn count(&self, status: http::StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5);
        self.responses[class - 1].fetch_add(1, Ordering::Relaxed);
    }
}

impl Scope {
    /// The single bucket.
    #[must_use]
    pub fn single(&self) -> &Tat {
        &self.cells[0]
    }

    /// The aggregate buckets.
    #[must_use]
    pub fn aggregates(&self) -> &[Tat] {
        &self.cells
    }

    /// The table of the buckets of distinct values.
    #[must_use]
    pub fn table(&self) -> &BucketTable {
        &self.table
    }

    /// Key of the bucket for the values that `feed` writes into the hasher.
    pub fn key(&self, feed: impl FnOnce(&mut dyn Hasher)) -> BucketKey {
        let mut hasher = self.table.hasher();
        self.rule.hash(&mut hasher);
        self.route.hash(&mut hasher);
        feed(&mut hasher);
        self.table.key(&hasher)
    }
}

impl State {
    /// A state whose table holds at least `max_buckets` buckets.
    #[must_use]
    pub fn new(max_buckets: usize) -> Self {
        Self {
            table: Arc::new(BucketTable::new(max_buckets)),
            scopes: Mutex::default(),
            routes: Mutex::default(),
        }
    }

    /// The table of the buckets of distinct values.
    #[must_use]
    pub fn table(&self) -> &BucketTable {
        &self.table
    }

    /// The scope of `rule` on `route`: the one in use if there is one.
    pub fn scope(&self, rule: &str, route: &str, distinct: bool) -> Arc<Scope> {
        let cells = if distinct { AGGREGATES } else { 1 };
        named(&self.scopes, format!("{rule}@{route}#{cells}"), || Scope {
            rule: rule.to_owned(),
            route: route.to_owned(),
            table: Arc::clone(&self.table),
            cells: (0..cells).map(|_| Tat::default()).collect(),
            admitted: AtomicU64::new(0),
            limited: AtomicU64::new(0),
        })
    }

    /// The counters of `route`: those in use if there are.
    pub fn route_stats(&self, route: &str) -> Arc<RouteStats> {
        named(&self.routes, route.to_owned(), || RouteStats {
            route: route.to_owned(),
            responses: Default::default(),
        })
    }

    /// Every scope of the plan in force, by name.
    #[must_use]
    pub fn scopes(&self) -> Vec<Arc<Scope>> {
        living(&self.scopes)
    }

    /// Counters of every route of the plan in force, by name.
    #[must_use]
    pub fn routes(&self) -> Vec<Arc<RouteStats>> {
        living(&self.routes)
    }
}

/// The living value under `name`, or a new one.
fn named<T>(
    map: &Mutex<HashMap<String, Weak<T>>>,
    name: String,
    make: impl FnOnce() -> T,
) -> Arc<T> {
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(living) = map.get(&name).and_then(Weak::upgrade) {
        return living;
    }
    let made = Arc::new(make());
    map.insert(name, Arc::downgrade(&made));
    made
}

/// The living values by name. What no plan holds any more is forgotten.
fn living<T>(map: &Mutex<HashMap<String, Weak<T>>>) -> Vec<Arc<T>> {
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    map.retain(|_, weak| weak.strong_count() > 0);
    let mut all: Vec<_> = map
        .iter()
        .filter_map(|(name, weak)| Some((name.clone(), weak.upgrade()?)))
        .collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all.into_iter().map(|(_, value)| value).collect()
}
