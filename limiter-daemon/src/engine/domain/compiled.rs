//! A domain, ready to decide.

use std::sync::Arc;

use limiter_common as common;

use super::stats::LimitStats;
use super::tree::Level;
use super::{Asked, Override};
use crate::engine::meter::Meter;
use crate::engine::state::{Account, Place, Scope, State};
use crate::policy::plan::{self, Algorithm, Amount, DomainLimit, EntryValue, TimeUnit};

const SECOND: u64 = 1_000_000_000;

/// A domain.
#[derive(Debug)]
pub struct Domain {
    pub name: String,
    tree: Level<Arc<Limit>>,
    algorithm: Algorithm,
    /// Of limits that requests bring along, by unit.
    overrides: Vec<(TimeUnit, Arc<Scope>)>,
    overridden: Arc<LimitStats>,
}

/// A limit of a domain.
#[derive(Debug)]
pub struct Limit {
    /// `domain.key_value.key`, as the files have it.
    pub rule: String,
    /// Told to clients.
    pub name: Option<String>,
    pub(super) replaces: Vec<String>,
    pub(super) shadow: bool,
    pub(super) quota: bool,
    pub(super) amount: Amount,
    meter: Option<Meter>,
    scope: Arc<Scope>,
    /// For each entry, what counts for it; `None`: there is one count.
    key: Option<Vec<Share>>,
    pub(super) stats: Arc<LimitStats>,
}

/// Which values of an entry are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    /// All that lead here.
    All,
    None,
}

/// What a descriptor is limited by.
#[derive(Clone, Debug)]
pub enum Limited<'d> {
    ByDomain(&'d Arc<Limit>),
    ByRequest {
        domain: &'d Domain,
        limit: Override,
        /// `None`: it admits nothing.
        meter: Option<(Meter, &'d Arc<Scope>)>,
    },
}

impl Domain {
    pub(super) fn compile(domain: &plan::Domain, state: &State) -> Self {
        let algorithm = domain.algorithm;
        let mut make = |limit: &DomainLimit, path: &[&plan::Descriptor]| {
            Arc::new(Limit::compile(&domain.name, algorithm, limit, path, state))
        };
        let overrides = TimeUnit::ALL.into_iter().filter_map(|unit| {
            let meter = meter(Override { requests: 1, unit }, algorithm)?;
            let rule = format!("{} (limits of requests, a {})", domain.name, unit.name());
            Some((unit, state.service_scope(rule, Some(&meter), true)))
        });
        let stats = LimitStats::new(&domain.name, vec!["(limits of requests)".to_owned()]);
        Self {
            name: domain.name.clone(),
            tree: Level::new(&domain.descriptors, &mut Vec::new(), &mut make),
            algorithm,
            overrides: overrides.collect(),
            overridden: state.limit_stats(stats),
        }
    }

    /// What a descriptor is limited by; `None`: nothing.
    pub fn limit(&self, asked: &Asked<'_>) -> Option<Limited<'_>> {
        let Some(limit) = asked.limit else {
            return self.tree.find(asked.entries).map(Limited::ByDomain);
        };
        let scope = self.overrides.iter().find(|(unit, _)| *unit == limit.unit);
        Some(Limited::ByRequest {
            domain: self,
            limit,
            meter: meter(limit, self.algorithm).zip(scope.map(|(_, scope)| scope)),
        })
    }
}

/// `None`: nothing is admitted.
fn meter(limit: Override, algorithm: Algorithm) -> Option<Meter> {
    let requests = u64::from(limit.requests);
    let seconds = limit.unit.seconds();
    let bucket = common::Limit::new(requests, requests, seconds.saturating_mul(SECOND)).ok()?;
    Some(Meter::new(bucket, algorithm, seconds, false))
}

impl Limit {
    fn compile(
        domain: &str,
        algorithm: Algorithm,
        limit: &DomainLimit,
        path: &[&plan::Descriptor],
        state: &State,
    ) -> Self {
        let labels: Vec<String> = path.iter().map(|one| one.label()).collect();
        let rule = format!("{domain}.{}", labels.join("."));
        let meter = match limit.amount {
            Amount::Unlimited | Amount::Nothing(_) => None,
            Amount::PerUnit { unit, limit, .. } => {
                Some(Meter::new(limit, algorithm, unit.seconds(), false))
            }
        };
        let shares = path.iter().map(|one| match one.value {
            EntryValue::Is(_) => Share::All,
            EntryValue::Like(_) if one.share_threshold => Share::All,
            EntryValue::Like(_) | EntryValue::Any => Share::None,
        });
        let shares: Vec<Share> = shares.collect();
        let distinct = shares.contains(&Share::None);
        Self {
            name: limit.name.clone(),
            replaces: limit.replaces.clone(),
            shadow: limit.shadow,
            quota: limit.quota,
            amount: limit.amount,
            scope: state.service_scope(rule.clone(), meter.as_ref(), distinct),
            meter,
            key: distinct.then_some(shares),
            stats: state.limit_stats(LimitStats::new(domain, labels)),
            rule,
        }
    }

    fn place(&self, meter: &Meter, entries: &[(&str, &str)]) -> Place {
        let Some(shares) = &self.key else {
            return Place::Single;
        };
        self.scope.keyed(meter, |hasher| {
            for ((_, value), share) in entries.iter().zip(shares) {
                if *share == Share::None {
                    hasher.write(value.as_bytes());
                    hasher.write_u8(0xff);
                }
            }
        })
    }
}

impl Limited<'_> {
    /// How it is counted, and where; `None`: it admits all or nothing, which [`Limited::amount`] says.
    pub(super) fn account(&self, entries: &[(&str, &str)]) -> Option<(Meter, Account<'_>)> {
        match self {
            Self::ByDomain(limit) => {
                let meter = limit.meter?;
                let place = limit.place(&meter, entries);
                let scope = &limit.scope;
                Some((meter, Account { scope, place }))
            }
            Self::ByRequest { meter, .. } => {
                let (meter, scope) = (*meter)?;
                let place = scope.keyed(&meter, |hasher| {
                    for (key, value) in entries {
                        hasher.write(key.as_bytes());
                        hasher.write_u8(0xff);
                        hasher.write(value.as_bytes());
                        hasher.write_u8(0xff);
                    }
                });
                Some((meter, Account { scope, place }))
            }
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

    /// `domain.key_value.key`, as the files have it.
    #[must_use]
    pub fn rule(&self) -> &str {
        match self {
            Self::ByDomain(limit) => &limit.rule,
            Self::ByRequest { domain, .. } => &domain.name,
        }
    }

    pub(super) fn shadow(&self) -> bool {
        matches!(self, Self::ByDomain(limit) if limit.shadow)
    }

    pub(super) fn quota(&self) -> bool {
        matches!(self, Self::ByDomain(limit) if limit.quota)
    }

    pub(super) fn replaces(&self) -> &[String] {
        match self {
            Self::ByDomain(limit) => &limit.replaces,
            Self::ByRequest { .. } => &[],
        }
    }

    pub(super) fn stats(&self) -> &LimitStats {
        match self {
            Self::ByDomain(limit) => &limit.stats,
            Self::ByRequest { domain, .. } => &domain.overridden,
        }
    }
}
