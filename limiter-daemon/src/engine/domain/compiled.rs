//! A domain, ready to decide.

use std::fmt::Write as _;
use std::hash::Hasher;
use std::sync::Arc;

use limiter_common as common;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::sets::Sets;
use super::stats::{Detailed, LimitStats};
use super::stored::{Names, Stored};
use super::tree::Level;
use super::{Asked, Override};
use crate::engine::meter::Meter;
use crate::engine::state::{Admits, Place, Scope, State};
use crate::engine::store::ledger::Form;
use crate::policy::plan::{
    self, Algorithm, Amount, Descriptor, DomainLimit, EntryValue, Metadata, SET_MARK, SetRule,
    TimeUnit, Written,
};

const SECOND: u64 = 1_000_000_000;
/// What has a meaning of its own in the path of a key.
const SPECIAL: &AsciiSet = &CONTROLS
    .add(b'%')
    .add(b'/')
    .add(b'=')
    .add(b'~')
    .add(b'#')
    .add(b'(')
    .add(b'{')
    .add(b'}');

/// A domain.
#[derive(Debug)]
pub struct Domain {
    pub name: String,
    tree: Level<Arc<Limit>>,
    /// `None`: no descriptor is a set.
    pub(super) sets: Option<Sets<Arc<Limit>>>,
    algorithm: Algorithm,
    brought: Arc<Brought>,
    /// Millionths of a limit that are near it.
    near: u64,
    /// Says what it would deny, denies nothing.
    pub(super) shadow: bool,
    /// `None`: it is counted in this node's memory.
    pub(super) stored: Option<Arc<Stored>>,
}

/// A limit of a domain.
#[derive(Debug)]
pub struct Limit {
    /// `domain.key_value.key`, as the files have it.
    pub rule: String,
    /// Told to clients.
    pub name: Option<String>,
    /// Told with requests that conform.
    pub metadata: Option<Metadata>,
    /// Where it is written, if anywhere.
    pub written: Option<Arc<Written>>,
    pub(super) replaces: Vec<String>,
    pub(super) shadow: bool,
    pub(super) quota: bool,
    pub(super) weight: u32,
    /// It applies whatever its weight.
    pub(super) always: bool,
    of_sets: bool,
    pub(super) amount: Amount,
    pub(super) meter: Option<Meter>,
    scope: Arc<Scope>,
    /// For each entry, what counts for it.
    shares: Vec<Share>,
    /// The names of its place in the tree, or of its entries, for keys.
    path: String,
    pub(super) stats: Arc<LimitStats>,
    detailed: Option<Arc<Detailed>>,
}

/// Limits that requests bring along.
#[derive(Debug)]
pub struct Brought {
    domain: String,
    scopes: Vec<(TimeUnit, Arc<Scope>)>,
    stats: Arc<LimitStats>,
}

/// Which values of an entry are counted together.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Share {
    /// There is one.
    One,
    /// All that match the pattern.
    Pattern(String),
    None,
}

/// What a descriptor is limited by.
#[derive(Clone, Debug)]
pub enum Limited {
    ByDomain(Arc<Limit>),
    ByRequest {
        of: Arc<Brought>,
        limit: Override,
        /// `None`: it admits nothing.
        meter: Option<Meter>,
    },
}

impl Domain {
    pub(super) fn compile(domain: &plan::Domain, state: &State) -> Self {
        let algorithm = domain.algorithm;
        let mut make = |limit: &DomainLimit, path: &[&Descriptor]| {
            Arc::new(Limit::compile(
                domain,
                limit,
                path,
                &Called::in_tree(domain, path),
                state,
            ))
        };
        let make_of_set = |rule: &SetRule, same: usize| {
            let entries: Vec<Descriptor> = rule.entries.iter().map(as_descriptor).collect();
            let path: Vec<&Descriptor> = entries.iter().collect();
            let called = Called::of_set(domain, &path, same);
            Arc::new(Limit::compile(domain, &rule.limit, &path, &called, state))
        };
        let scopes = TimeUnit::ALL.into_iter().filter_map(|unit| {
            let meter = meter(Override { requests: 1, unit }, algorithm)?;
            let rule = format!("{} (limits of requests, a {})", domain.name, unit.name());
            Some((unit, state.service_scope(rule, Some(&meter), true)))
        });
        let stats = LimitStats::new(&domain.name, vec!["(limits of requests)".to_owned()]);
        Self {
            name: domain.name.clone(),
            tree: Level::new(&domain.descriptors, &mut Vec::new(), &mut make),
            sets: domain
                .sets
                .as_ref()
                .map(|rules| Sets::new(rules, make_of_set)),
            algorithm,
            brought: Arc::new(Brought {
                domain: domain.name.clone(),
                scopes: scopes.collect(),
                stats: state.limit_stats(stats),
            }),
            near: u64::from(domain.near),
            shadow: domain.shadow,
            stored: Stored::of(domain, state),
        }
    }

    /// What a descriptor is limited by that is no set; `None`: nothing.
    #[must_use]
    pub fn limit(&self, asked: &Asked<'_>) -> Option<Limited> {
        let Some(limit) = asked.limit else {
            if self.set(asked).is_some() {
                return None;
            }
            let found = self.tree.find(asked.entries);
            return found.map(Arc::clone).map(Limited::ByDomain);
        };
        Some(Limited::ByRequest {
            of: Arc::clone(&self.brought),
            limit,
            meter: meter(limit, self.algorithm),
        })
    }

    /// The rules of sets, and what a descriptor is a set of, if it is one and brings no limit along.
    pub(super) fn set<'s, 'a>(&'s self, asked: &Asked<'a>) -> Option<SetAsked<'s, 'a>> {
        let sets = self.sets.as_ref().filter(|_| asked.limit.is_none())?;
        let (mark, entries) = asked.entries.split_first()?;
        (*mark == SET_MARK).then_some((sets, entries))
    }

    /// How each entry is matched, in words.
    pub(super) fn trace(&self, entries: &[(&str, &str)]) -> Vec<String> {
        self.tree.trace(entries)
    }

    /// Tokens of a limit of so many beyond which hits are near it.
    pub(super) fn near(&self, limit: u64) -> u64 {
        limit.saturating_mul(self.near) / 1_000_000
    }
}

/// `None`: nothing is admitted.
fn meter(limit: Override, algorithm: Algorithm) -> Option<Meter> {
    let requests = u64::from(limit.requests);
    let seconds = limit.unit.seconds();
    let bucket = common::Limit::new(requests, requests, seconds.saturating_mul(SECOND)).ok()?;
    Some(Meter::new(bucket, algorithm, seconds, false))
}

/// The rules of sets, and the entries of one.
type SetAsked<'s, 'a> = (&'s Sets<Arc<Limit>>, &'a [(&'a str, &'a str)]);

/// What a limit is called.
struct Called {
    /// Of each level.
    labels: Vec<String>,
    rule: String,
    path: String,
    of_sets: bool,
}

impl Called {
    fn in_tree(domain: &plan::Domain, path: &[&Descriptor]) -> Self {
        let labels: Vec<String> = path.iter().map(|one| one.label()).collect();
        Self {
            rule: format!("{}.{}", domain.name, labels.join(".")),
            labels,
            path: path_of(path),
            of_sets: false,
        }
    }

    /// By its entries, so that rules may change places; `same`: how many rules before it have the
    /// same ones.
    fn of_set(domain: &plan::Domain, path: &[&Descriptor], same: usize) -> Self {
        let labels: Vec<String> = path.iter().map(|one| one.label()).collect();
        let mut label = format!("{{{}}}", labels.join(","));
        let mut place = format!("(set)/{}", path_of(path));
        if same > 0 {
            let number = format!("({})", same + 1);
            label.push_str(&number);
            place.push_str(&number);
        }
        Self {
            rule: format!("{}.{label}", domain.name),
            labels: vec![label],
            path: place,
            of_sets: true,
        }
    }
}

fn as_descriptor((key, value): &(String, Option<String>)) -> Descriptor {
    Descriptor {
        key: key.clone(),
        value: value.clone().map_or(EntryValue::Any, EntryValue::Is),
        share_threshold: false,
        value_to_metric: false,
        limit: None,
        descriptors: Vec::new(),
    }
}

impl Limit {
    fn compile(
        domain: &plan::Domain,
        limit: &DomainLimit,
        path: &[&Descriptor],
        called: &Called,
        state: &State,
    ) -> Self {
        let rule = &called.rule;
        let meter = match limit.amount {
            Amount::Unlimited | Amount::Nothing(_) => None,
            Amount::PerUnit { unit, limit, .. } => {
                Some(Meter::new(limit, domain.algorithm, unit.seconds(), false))
            }
        };
        let stats = state.limit_stats(LimitStats::new(&domain.name, called.labels.clone()));
        stats.set_admits(match limit.amount {
            Amount::Unlimited => None,
            Amount::Nothing(_) => Some(Admits::NOTHING),
            Amount::PerUnit { .. } => meter.as_ref().map(Meter::admits),
        });
        let shares = path.iter().map(|one| match &one.value {
            EntryValue::Is(_) => Share::One,
            EntryValue::Like(pattern) if one.share_threshold => Share::Pattern(pattern.clone()),
            EntryValue::Like(_) | EntryValue::Any => Share::None,
        });
        let shares: Vec<Share> = shares.collect();
        let distinct = shares.contains(&Share::None);
        let detailed = limit.detailed || path.iter().any(|one| one.value_to_metric);
        Self {
            name: limit.name.clone(),
            metadata: limit.metadata.clone(),
            written: limit.written.clone(),
            replaces: limit.replaces.clone(),
            shadow: limit.shadow,
            quota: limit.quota || domain.quota,
            amount: limit.amount,
            scope: state.service_scope(rule.clone(), meter.as_ref(), distinct),
            meter,
            shares,
            path: called.path.clone(),
            stats,
            detailed: detailed.then(|| state.detailed(&domain.name, rule, limit, path)),
            weight: limit.weight,
            always: limit.always,
            of_sets: called.of_sets,
            rule: called.rule.clone(),
        }
    }

    /// The values that it has counts of their own for.
    fn feed(&self, entries: &[(&str, &str)], hasher: &mut dyn Hasher) {
        for ((_, value), share) in entries.iter().zip(&self.shares) {
            if *share == Share::None {
                hasher.write(value.as_bytes());
                hasher.write_u8(0xff);
            }
        }
    }

    fn is_distinct(&self) -> bool {
        self.shares.contains(&Share::None)
    }
}

/// `key=value/key~pattern/key`, so that no two places have one.
fn path_of(path: &[&Descriptor]) -> String {
    let quoted = |text| utf8_percent_encode(text, SPECIAL);
    let mut all = String::new();
    for one in path {
        if !all.is_empty() {
            all.push('/');
        }
        // Writing to a String does not fail.
        let _infallible = match &one.value {
            EntryValue::Any => write!(all, "{}", quoted(&one.key)),
            EntryValue::Is(value) => write!(all, "{}={}", quoted(&one.key), quoted(value)),
            EntryValue::Like(like) => write!(all, "{}~{}", quoted(&one.key), quoted(like)),
        };
    }
    all
}

/// All keys and values, of limits that are not of the tree.
fn feed_all(entries: &[(&str, &str)], hasher: &mut dyn Hasher) {
    for (key, value) in entries {
        hasher.write(key.as_bytes());
        hasher.write_u8(0xff);
        hasher.write(value.as_bytes());
        hasher.write_u8(0xff);
    }
}

impl Limited {
    /// How it is counted, and where in this node's memory; `None`: it admits all or nothing, which
    /// [`Limited::amount`] says.
    pub(super) fn counted(&self, entries: &[(&str, &str)]) -> Option<(Meter, Place)> {
        let meter = self.meter()?;
        let scope = self.scope()?;
        let place = match self {
            Self::ByDomain(limit) if limit.is_distinct() => {
                scope.keyed(&meter, |hasher| limit.feed(entries, hasher))
            }
            Self::ByDomain(_) => Place::Single,
            Self::ByRequest { .. } => scope.keyed(&meter, |hasher| feed_all(entries, hasher)),
        };
        Some((meter, place))
    }

    pub(super) fn meter(&self) -> Option<Meter> {
        match self {
            Self::ByDomain(limit) => limit.meter,
            Self::ByRequest { meter, .. } => *meter,
        }
    }

    pub(super) fn scope(&self) -> Option<&Scope> {
        match self {
            Self::ByDomain(limit) => Some(&limit.scope),
            Self::ByRequest { of, limit, .. } => {
                let mut scopes = of.scopes.iter();
                let (_, scope) = scopes.find(|(unit, _)| *unit == limit.unit)?;
                Some(scope)
            }
        }
    }

    /// The key of its count in a store.
    pub(super) fn key(&self, names: &Names, meter: &Meter, entries: &[(&str, &str)]) -> String {
        match (names, self) {
            (_, Self::ByDomain(limit)) if limit.of_sets || matches!(names, Names::Own { .. }) => {
                let values = limit.is_distinct().then_some(|hasher: &mut dyn Hasher| {
                    limit.feed(entries, hasher);
                });
                names.own(&limit.path, meter, values)
            }
            (Names::Own { .. }, Self::ByRequest { limit, .. }) => {
                let path = format!("(request)/{}", limit.unit.name());
                let values = |hasher: &mut dyn Hasher| feed_all(entries, hasher);
                names.own(&path, meter, Some(values))
            }
            (Names::Own { .. } | Names::Reference { .. }, Self::ByDomain(limit)) => {
                let shares = limit.shares.iter().map(|share| match share {
                    Share::Pattern(pattern) => Some(pattern.as_str()),
                    Share::One | Share::None => None,
                });
                names.reference(entries, shares)
            }
            (Names::Reference { .. }, Self::ByRequest { .. }) => {
                names.reference(entries, std::iter::repeat(None))
            }
        }
    }

    /// How its count is kept in a store: the reference service has nothing like sets.
    pub(super) fn form(&self, names: &Names) -> Form {
        match self {
            Self::ByDomain(limit) if limit.of_sets => Form::Own,
            Self::ByDomain(_) | Self::ByRequest { .. } => names.form(),
        }
    }

    /// Its weight among the limits of the tree, and whether it applies whatever others weigh.
    pub(super) fn weight(&self) -> Option<(u32, bool)> {
        match self {
            Self::ByDomain(limit) => Some((limit.weight, limit.always)),
            Self::ByRequest { .. } => None,
        }
    }

    /// Requests and their unit; `None`: without number.
    #[must_use]
    pub fn amount(&self) -> Option<Override> {
        match self {
            Self::ByRequest { limit, .. } => Some(*limit),
            Self::ByDomain(limit) => match limit.amount {
                Amount::Unlimited => None,
                Amount::Nothing(unit) => Some(Override { requests: 0, unit }),
                Amount::PerUnit { requests, unit, .. } => Some(Override { requests, unit }),
            },
        }
    }

    /// What clients call it.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::ByDomain(limit) => limit.name.as_deref(),
            Self::ByRequest { .. } => None,
        }
    }

    /// What is told with requests that conform.
    #[must_use]
    pub fn metadata(&self) -> Option<&Metadata> {
        match self {
            Self::ByDomain(limit) => limit.metadata.as_ref(),
            Self::ByRequest { .. } => None,
        }
    }

    /// `domain.key_value.key`, as the files have it.
    #[must_use]
    pub fn rule(&self) -> &str {
        match self {
            Self::ByDomain(limit) => &limit.rule,
            Self::ByRequest { of, .. } => &of.domain,
        }
    }

    /// Where it is written; `None`: the request brought it along.
    #[must_use]
    pub fn written(&self) -> Option<&Written> {
        match self {
            Self::ByDomain(limit) => limit.written.as_deref(),
            Self::ByRequest { .. } => None,
        }
    }

    /// Counts what it would deny, denies nothing.
    #[must_use]
    pub fn shadow(&self) -> bool {
        matches!(self, Self::ByDomain(limit) if limit.shadow)
    }

    /// Denies only together with others.
    #[must_use]
    pub fn quota(&self) -> bool {
        matches!(self, Self::ByDomain(limit) if limit.quota)
    }

    pub(super) fn replaces(&self) -> &[String] {
        match self {
            Self::ByDomain(limit) => &limit.replaces,
            Self::ByRequest { .. } => &[],
        }
    }

    /// Where hits of these entries are counted.
    pub(super) fn stats(&self, entries: &[(&str, &str)]) -> Arc<LimitStats> {
        match self {
            Self::ByDomain(limit) => {
                let of_values = limit.detailed.as_ref().and_then(|all| all.of(entries));
                of_values.unwrap_or_else(|| Arc::clone(&limit.stats))
            }
            Self::ByRequest { of, .. } => Arc::clone(&of.stats),
        }
    }
}
