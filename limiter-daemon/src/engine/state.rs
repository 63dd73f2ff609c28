//! What outlives a plan: buckets and counters, found again by name when the plan changes.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use smallvec::SmallVec;

use super::ask::{Nobody, Services};
use super::buckets::{Bucket, BucketKey, BucketTable, Single, Word};
use super::connection::OwnWords;
use super::domain::{Detailed, DetailedBound, DomainStore, LimitStats as ServiceStats};
use super::escalation::{Judges, Offenders, Tallies};
use super::meter::{Meter, Words};
use super::named::Named;
use super::runtime::Runtime;
use super::store::{MemoryStore, Store};
use super::tcp::TcpStats;
use super::time::Now;
use super::upstream::Registry;
use crate::policy::plan::{Descriptor, DomainLimit, Escalation};

/// Aggregate buckets of a rule with a bucket a value, for values that find no room in the table.
const AGGREGATES: usize = 256;

/// Buckets and counters of the process.
#[derive(Debug)]
pub struct State {
    table: Arc<BucketTable>,
    scopes: Named<Scope>,
    /// Of limits that others ask about, by the rate limit service.
    service_scopes: Named<Scope>,
    routes: Named<RouteStats>,
    tcp: Named<TcpStats>,
    limits: Named<ServiceStats>,
    detailed: Named<Detailed>,
    detailed_bound: Arc<DetailedBound>,
    upstreams: Registry,
    store: Arc<dyn Store>,
    domain_store: Option<Arc<DomainStore>>,
    services: Arc<dyn Services>,
    runtime: Runtime,
    offenders: Arc<Offenders>,
    tallies: Named<Tallies>,
}

/// Whose counting a limit goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reach {
    /// This node's.
    Local,
    /// That of the store that nodes share.
    Global,
}

impl Reach {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Global => "global",
        }
    }
}

/// Which limit a [`Scope`] is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScopeName {
    pub reach: Reach,
    /// Rule, as `namespace/name/rule/index`.
    pub rule: String,
    /// Route, as `namespace/name`; empty: all routes share it.
    pub route: String,
    /// The limit that is tried beside the rule's; empty: the rule's own.
    pub candidate: String,
}

/// One limit on one route: its buckets and its counters.
#[derive(Debug)]
pub struct Scope {
    pub name: ScopeName,
    table: Arc<BucketTable>,
    /// Stands for the name in keys.
    seed: u64,
    /// Words of a bucket.
    words: usize,
    cells: Cells,
    pub counters: ScopeCounters,
    /// What the plan in force admits, for who wants to know.
    admits: Mutex<Option<Admits>>,
}

/// Words that belong to a limit.
#[derive(Debug)]
enum Cells {
    /// Of its single bucket, for the next process as well.
    Kept(SmallVec<[Single; 2]>),
    /// The same, or of the aggregates of a rule with distinct values.
    Own(Box<[Word]>),
}

impl Cells {
    fn word(&self, index: usize) -> &Word {
        match self {
            Self::Kept(singles) => singles[index].word(),
            Self::Own(words) => &words[index],
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Kept(singles) => singles.len(),
            Self::Own(words) => words.len(),
        }
    }
}

/// What a limit admits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Admits {
    /// Tokens at once at most.
    pub tokens: u64,
    /// Tokens that come back in a second.
    pub per_second: f64,
}

impl Admits {
    pub const NOTHING: Self = Self {
        tokens: 0,
        per_second: 0.0,
    };
}

/// What became of the requests that met a limit.
#[derive(Debug, Default)]
pub struct ScopeCounters {
    /// Admitted by all limits.
    pub admitted: AtomicU64,
    /// Denied, with this limit as the one that decided.
    pub limited: AtomicU64,
    /// Admitted although over this limit: it is in shadow mode.
    pub shadow_limited: AtomicU64,
    /// Tokens given back.
    pub refunded: AtomicU64,
    /// Tokens taken for responses.
    pub response_tokens: AtomicU64,
    /// Responses whose cost could not be told.
    pub unmetered: AtomicU64,
}

/// Requests of one route by the class of the answer's status code.
#[derive(Debug, Default)]
pub struct RouteStats {
    pub route: String,
    /// `[0]`: 1xx, to `[4]`: 5xx.
    pub responses: [AtomicU64; 5],
    pub limits: LimitStats,
}

/// What limits made of the requests of a route, each counted once however many limits it met.
#[derive(Debug, Default)]
pub struct LimitStats {
    /// Under all local limits.
    pub ok: AtomicU64,
    /// Over a local limit, also if it only watches.
    pub over: AtomicU64,
    /// Refused by a local limit.
    pub refused: AtomicU64,
    /// Refused by a global limit.
    pub refused_by_store: AtomicU64,
}

impl RouteStats {
    /// Counts an answer.
    pub fn count(&self, status: http::StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5);
        self.responses[class - 1].fetch_add(1, Ordering::Relaxed);
    }
}

/// Which bucket of a scope.
#[derive(Clone, Debug)]
pub enum Place {
    /// The only one.
    Single,
    /// That of some values.
    Keyed(BucketKey),
    /// That of a connection.
    Own(OwnWords),
}

/// A bucket of a scope.
#[derive(Clone, Copy, Debug)]
pub struct Account<'a> {
    pub scope: &'a Scope,
    pub place: &'a Place,
}

impl Words for Account<'_> {
    fn word(&self, index: usize, now: Now) -> Bucket<'_> {
        match self.place {
            Place::Single => Bucket::Shared(self.scope.cells.word(index)),
            Place::Keyed(key) => {
                let spare = self.scope.aggregate(*key, index);
                self.scope.table.bucket(nth(*key, index), now, spare)
            }
            Place::Own(words) => Bucket::Shared(&words[index]),
        }
    }

    fn existing(&self, index: usize, now: Now) -> Bucket<'_> {
        match self.place {
            Place::Single => Bucket::Shared(self.scope.cells.word(index)),
            Place::Keyed(key) => {
                let spare = self.scope.aggregate(*key, index);
                self.scope.table.existing(nth(*key, index), now, spare)
            }
            Place::Own(words) => Bucket::Shared(&words[index]),
        }
    }
}

/// The key of the word with this index, which is 0 or 1.
const fn nth(key: BucketKey, index: usize) -> BucketKey {
    if index == 0 { key } else { key.sibling() }
}

impl Scope {
    fn aggregate(&self, key: BucketKey, index: usize) -> &Word {
        let aggregates = self.cells.len() / self.words;
        self.cells.word(key.spread(aggregates) * self.words + index)
    }

    /// Takes note of what it admits; `None`: everything.
    pub(super) fn set_admits(&self, admits: Option<Admits>) {
        *self.admits.lock().unwrap_or_else(PoisonError::into_inner) = admits;
    }

    /// What the plan in force admits; `None`: everything.
    #[must_use]
    pub fn admits(&self) -> Option<Admits> {
        *self.admits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stands for its name, the same after a reload.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// The bucket for the values that `feed` writes into the hasher.
    pub fn keyed(&self, meter: &Meter, feed: impl FnOnce(&mut dyn Hasher)) -> Place {
        let mut hasher = self.table.hasher();
        hasher.write_u64(self.seed);
        feed(&mut hasher);
        Place::Keyed(self.table.key(&hasher, meter.timeline()))
    }
}

impl State {
    /// A state whose table holds at least `max_buckets` words of distinct values, and ends with the
    /// process.
    #[must_use]
    pub fn new(max_buckets: usize) -> Self {
        Self::of(BucketTable::new(max_buckets))
    }

    /// A state whose buckets are in `table`.
    #[must_use]
    pub fn of(table: BucketTable) -> Self {
        Self {
            table: Arc::new(table),
            scopes: Named::default(),
            service_scopes: Named::default(),
            routes: Named::default(),
            tcp: Named::default(),
            limits: Named::default(),
            detailed: Named::default(),
            detailed_bound: Arc::default(),
            upstreams: Registry::default(),
            store: Arc::new(MemoryStore),
            domain_store: None,
            services: Arc::new(Nobody),
            runtime: Runtime::default(),
            offenders: Arc::default(),
            tallies: Named::default(),
        }
    }

    /// The same, with global limits counted by `store`.
    #[must_use]
    pub fn with_store(self, store: Arc<dyn Store>) -> Self {
        Self { store, ..self }
    }

    /// The same, with the limits of domains counted by `store`.
    #[must_use]
    pub fn with_domain_store(self, store: Arc<DomainStore>) -> Self {
        let domain_store = Some(store);
        Self {
            domain_store,
            ..self
        }
    }

    /// What counts the limits of domains; `None`: this node's memory.
    #[must_use]
    pub const fn domain_store(&self) -> Option<&Arc<DomainStore>> {
        self.domain_store.as_ref()
    }

    /// The same, with `services` to ask about requests.
    #[must_use]
    pub fn with_services(self, services: Arc<dyn Services>) -> Self {
        Self { services, ..self }
    }

    /// Whom filters ask about requests.
    #[must_use]
    pub fn services(&self) -> &dyn Services {
        &*self.services
    }

    /// Settings that may be changed while running.
    #[must_use]
    pub const fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// What counts global limits.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// What is known of backends and their endpoints.
    #[must_use]
    pub const fn upstreams(&self) -> &Registry {
        &self.upstreams
    }

    /// The table of the buckets of distinct values.
    #[must_use]
    pub fn table(&self) -> &BucketTable {
        &self.table
    }

    /// The scope of this name for `meter`: the one in use if there is one whose state the meter can
    /// go on with.
    pub fn scope(&self, name: ScopeName, meter: Option<&Meter>, distinct: bool) -> Arc<Scope> {
        self.scope_in(&self.scopes, name, meter, distinct)
    }

    /// The same for the limit `rule` of the rate limit service; what it is asked is counted apart.
    pub(super) fn service_scope(
        &self,
        rule: String,
        meter: Option<&Meter>,
        distinct: bool,
    ) -> Arc<Scope> {
        let name = ScopeName {
            reach: Reach::Local,
            rule,
            route: "(service)".to_owned(),
            candidate: String::new(),
        };
        self.scope_in(&self.service_scopes, name, meter, distinct)
    }

    fn scope_in(
        &self,
        scopes: &Named<Scope>,
        name: ScopeName,
        meter: Option<&Meter>,
        distinct: bool,
    ) -> Arc<Scope> {
        let words = meter.map_or(1, Meter::words);
        let cells = words * if distinct { AGGREGATES } else { 1 };
        let kind = meter.map_or_else(|| "none".to_owned(), Meter::kind);
        let ScopeName {
            reach,
            rule,
            route,
            candidate,
        } = &name;
        let id = format!("{}:{rule}@{route}+{candidate}#{kind}/{cells}", reach.name());
        let mut hasher = self.table.hasher();
        id.hash(&mut hasher);
        let seed = hasher.finish();
        let own = meter.filter(|_| !distinct).and_then(|meter| {
            let key = self.table.key(&hasher, meter.timeline());
            let singles = (0..words).map(|word| self.table.single(nth(key, word)));
            singles.collect()
        });
        let new = || Cells::Own((0..cells).map(|_| Word::default()).collect());
        scopes.get(id, || Scope {
            name,
            table: Arc::clone(&self.table),
            seed,
            words,
            cells: own.map_or_else(new, Cells::Kept),
            counters: ScopeCounters::default(),
            admits: Mutex::default(),
        })
    }

    /// The counters of `route`: those in use if there are.
    pub fn route_stats(&self, route: &str) -> Arc<RouteStats> {
        self.routes.get(route.to_owned(), || RouteStats {
            route: route.to_owned(),
            ..RouteStats::default()
        })
    }

    /// The counters of the listener `name` that passes connections on: those in use if there are.
    pub fn tcp_stats(&self, name: &str) -> Arc<TcpStats> {
        self.tcp.get(name.to_owned(), || TcpStats::new(name))
    }

    /// The counts of a limit of the rate limit service: those in use if there are.
    pub(super) fn limit_stats(&self, new: ServiceStats) -> Arc<ServiceStats> {
        let name = format!("{}\0{}", new.domain, new.path.join("\0"));
        self.limits.get(name, || new)
    }

    /// The statistics of the limit `rule` by values: those in use if there are.
    pub(super) fn detailed(
        &self,
        domain: &str,
        rule: &str,
        limit: &DomainLimit,
        path: &[&Descriptor],
    ) -> Arc<Detailed> {
        let bound = Arc::clone(&self.detailed_bound);
        let new = Detailed::new(domain, limit.detailed, path, bound);
        let name = format!("{rule}\0{}", new.kind());
        self.detailed.get(name, || new)
    }

    /// Questions of the rate limit service about values for which there was no room for statistics.
    #[must_use]
    pub fn details_refused(&self) -> u64 {
        self.detailed_bound.refused()
    }

    /// The counts of every limit of the rate limit service in force.
    #[must_use]
    pub fn service_limits(&self) -> Vec<Arc<ServiceStats>> {
        let mut all = self.limits.living();
        let mut detailed: Vec<_> = self
            .detailed
            .living()
            .iter()
            .flat_map(|one| one.all())
            .collect();
        detailed.sort_by(|a, b| (&a.domain, &a.path).cmp(&(&b.domain, &b.path)));
        all.extend(detailed);
        all
    }

    /// Every scope of the plan in force, by name.
    #[must_use]
    pub fn scopes(&self) -> Vec<Arc<Scope>> {
        self.scopes.living()
    }

    /// Counters of every listener of the plan in force that passes connections on, by name.
    #[must_use]
    pub fn tcp(&self) -> Vec<Arc<TcpStats>> {
        self.tcp.living()
    }

    /// Counters of every route of the plan in force, by name.
    #[must_use]
    pub fn routes(&self) -> Vec<Arc<RouteStats>> {
        self.routes.living()
    }

    /// Who counts the offences that a plan tells of.
    pub(super) fn judges(&self, plan: &[Escalation]) -> Judges {
        Judges::compile(plan, &self.offenders, |policy| {
            let new = || Tallies::new(policy.to_owned());
            self.tallies.get(policy.to_owned(), new)
        })
    }

    /// What is known of offenders.
    #[must_use]
    pub const fn offenders(&self) -> &Arc<Offenders> {
        &self.offenders
    }

    /// What came of the offences of every policy in force, by name.
    #[must_use]
    pub fn tallies(&self) -> Vec<Arc<Tallies>> {
        self.tallies.living()
    }
}
