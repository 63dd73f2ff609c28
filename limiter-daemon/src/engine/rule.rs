//! A rule of a policy on one route, ready to decide.

use std::fmt::Write as _;
use std::hash::Hasher;
use std::sync::Arc;

use super::condition::Matcher;
use super::meter::{Meter, Standing};
use super::request::RequestView;
use super::spread::Spread;
use super::state::{Account, Admits, Place, Reach, Scope, ScopeName, State};
use super::store::ledger::Lease;
use super::time::Now;
use crate::policy::plan::{
    Candidate, Condition, LimitRule, OnStoreFailure, PolicyLimits, Quota, RefundOn, ResponseCost,
};

/// A rule.
#[derive(Debug)]
pub struct Rule {
    /// `namespace/name` of the policy.
    pub policy: String,
    pub scope: Arc<Scope>,
    conditions: Vec<Matcher>,
    distinct: bool,
    /// Each connection has a bucket of its own.
    per_connection: bool,
    /// Which of the values that its bucket is for say where in a cluster it lies.
    pub spread: Spread,
    pub measure: Measure,
    /// Seconds of the limit's unit, or of its window; 0: unknown.
    pub window: u64,
    /// Would deny, and does not.
    pub shadow: bool,
    /// `X-RateLimit-*` for this rule; `None`: as the listener has it.
    pub headers: Option<bool>,
    /// Tokens that a request takes; 0: it is only checked that there is one.
    pub request_cost: u64,
    pub response_cost: Option<ResponseCost>,
    pub refund_on: RefundOn,
    pub candidates: Vec<Tried>,
    /// Of a global limit, while its store does not answer; `None`: as the store has it.
    pub on_store_failure: Option<OnStoreFailure>,
    /// Of a global limit: what a node may hold of it.
    pub lease: Option<Lease>,
}

/// How much a rule admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    Nothing,
    Everything,
    Metered(Meter),
}

/// A limit that is tried beside the one in force.
#[derive(Debug)]
pub struct Tried {
    pub scope: Arc<Scope>,
    pub meter: Meter,
}

impl Rule {
    /// The rule on `route`, with the state that it has under its name.
    pub(super) fn compile(
        rule: &LimitRule,
        reach: Reach,
        limits: &PolicyLimits,
        route: &str,
        state: &State,
    ) -> Self {
        let debts = rule.response_cost.is_some();
        let distinct = rule.conditions.iter().any(Condition::is_distinct);
        let (measure, window, candidates) = match rule.quota {
            Quota::Blocked { window } => (Measure::Nothing, window, [].as_slice()),
            Quota::Unlimited => (Measure::Everything, 0, [].as_slice()),
            Quota::Limited {
                limit,
                algorithm,
                window,
            } => {
                let meter = Meter::new(limit, algorithm, window, debts);
                (Measure::Metered(meter), window, rule.candidates.as_slice())
            }
        };
        let scope = |candidate: &str, meter: Option<&Meter>| {
            let name = ScopeName {
                reach,
                rule: rule.name.clone(),
                route: if rule.shared { "" } else { route }.to_owned(),
                candidate: candidate.to_owned(),
            };
            state.scope(name, meter, distinct)
        };
        let tried = |candidate: &Candidate| {
            let algorithm = match rule.quota {
                Quota::Limited { algorithm, .. } => algorithm,
                Quota::Blocked { .. } | Quota::Unlimited => return None,
            };
            let meter = Meter::new(candidate.limit, algorithm, window, debts);
            let scope = scope(&candidate.name, Some(&meter));
            scope.set_admits(Some(meter.admits()));
            Some(Tried { scope, meter })
        };
        let (own, admits) = match &measure {
            Measure::Metered(meter) => (scope("", Some(meter)), Some(meter.admits())),
            Measure::Nothing => (scope("", None), Some(Admits::NOTHING)),
            Measure::Everything => (scope("", None), None),
        };
        own.set_admits(admits);
        Self {
            policy: limits.policy.clone(),
            scope: own,
            conditions: rule.conditions.iter().map(Matcher::compile).collect(),
            distinct,
            per_connection: rule.per_connection,
            spread: Spread::default(),
            measure,
            window,
            shadow: rule.shadow,
            headers: rule.headers,
            request_cost: rule.request_cost,
            response_cost: rule.response_cost.clone(),
            refund_on: rule.refund_on,
            candidates: candidates.iter().filter_map(tried).collect(),
            on_store_failure: rule.on_store_failure,
            lease: rule.lease.map(|lease| Lease {
                size: lease.size,
                max_age: u64::try_from(lease.max_age.as_nanos()).unwrap_or(u64::MAX),
            }),
        }
    }

    /// `namespace/name/rule/index`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.scope.name.rule
    }

    #[must_use]
    pub fn reach(&self) -> Reach {
        self.scope.name.reach
    }

    /// Tokens of a full bucket; `None`: without number.
    #[must_use]
    pub const fn quota(&self) -> Option<u64> {
        match &self.measure {
            Measure::Nothing => Some(0),
            Measure::Everything => None,
            Measure::Metered(meter) => Some(meter.capacity()),
        }
    }

    /// Whether the rule is for this request.
    #[must_use]
    pub fn holds(&self, request: &RequestView<'_>) -> bool {
        self.conditions.iter().all(|one| one.holds(request))
    }

    /// What identifies the request's bucket among the rule's: `name=value`, joined by commas; empty
    /// for a rule with one bucket. Values are escaped, and cut after 128 bytes; those of headers that
    /// are secrets are left out.
    #[must_use]
    pub fn descriptor(&self, request: &RequestView<'_>) -> String {
        let mut text = String::new();
        for entry in self.conditions.iter().filter_map(|one| one.entry(request)) {
            let comma = if text.is_empty() { "" } else { "," };
            // Writing to a String does not fail.
            let _infallible = write!(text, "{comma}{entry}");
        }
        text
    }

    /// The names in [`Self::descriptor`].
    pub fn descriptor_names(&self) -> impl Iterator<Item = &str> {
        self.conditions.iter().filter_map(Matcher::entry_name)
    }

    /// What is left of the limit for a request that the rule is for; `None`: there is none to count.
    #[must_use]
    pub fn standing(&self, request: &RequestView<'_>, now: Now) -> Option<Standing> {
        match &self.measure {
            Measure::Nothing => Some(Standing::default()),
            Measure::Everything => None,
            Measure::Metered(meter) => {
                let place = self.place(&self.scope, meter, request);
                let account = Account {
                    scope: &self.scope,
                    place: &place,
                };
                Some(meter.standing(&account, now))
            }
        }
    }

    /// Which of the buckets of `scope`, the rule's or a candidate's, a request draws from.
    pub(super) fn place(&self, scope: &Scope, meter: &Meter, request: &RequestView<'_>) -> Place {
        if self.per_connection {
            let own = request.connection.map(|buckets| buckets.of(scope.seed()));
            return Place::Own(own.unwrap_or_default());
        }
        if !self.distinct {
            return Place::Single;
        }
        scope.keyed(meter, |mut hasher| self.feed(request, &mut hasher))
    }

    /// Whether each connection has a bucket of its own.
    #[must_use]
    pub const fn is_per_connection(&self) -> bool {
        self.per_connection
    }

    /// Whether each value has a bucket of its own.
    #[must_use]
    pub const fn is_distinct(&self) -> bool {
        self.distinct
    }

    /// Writes the values of `request` that have a bucket of their own, in full, the same on every
    /// node.
    pub fn feed(&self, request: &RequestView<'_>, hasher: &mut impl Hasher) {
        for condition in &self.conditions {
            condition.feed(request, hasher);
        }
    }

    /// Writes the values that say where in a cluster the bucket lies, the same on every node and for all
    /// rules with the same ones.
    pub fn feed_spread(&self, request: &RequestView<'_>, hasher: &mut impl Hasher) {
        for index in self.spread.conditions() {
            self.conditions[*index].feed_value(request, hasher);
        }
    }

    /// Whether anything can be left to do about a request after it was decided.
    #[must_use]
    pub const fn settles(&self) -> bool {
        let RefundOn {
            upstream_failure,
            server_error,
            overload,
        } = self.refund_on;
        matches!(self.measure, Measure::Metered(_))
            && (upstream_failure || server_error || overload || self.response_cost.is_some())
    }

    pub(super) fn conditions(&self) -> &[Matcher] {
        &self.conditions
    }
}
