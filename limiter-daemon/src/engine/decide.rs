//! The limits of a route: which a request meets, and whether it conforms to all of them.
//!
//! Envoy Gateway's semantics where its users rely on them: every rule whose conditions hold is
//! charged, any that is over denies, the strictest one is told, and the rule without conditions (a
//! policy's default bucket) is charged only if no other of its policy matched. Local limits come
//! first, then global ones; both must admit. Better where it is known to hurt: a denied request
//! charges nothing, over all of them together.
//!
//! - A rule in **shadow** mode is asked about every request that the others admit, and is charged
//!   for those that it would admit. It never denies, and no header tells of it.
//! - A **candidate** is asked about every request that its rule is asked about and that no other
//!   rule denies, also about those that its own rule denies: so what it counts is what it would do
//!   in its rule's place. GCRA's state is a time and no count, of no use to another rate; so a
//!   candidate has buckets of its own, that the same values lead to, and that the same costs and
//!   refunds reach.
//! - `Blocked` denies and there is no waiting for it; `Unlimited` admits, and counts as a match.

use std::borrow::Borrow;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::charge::{self, Denial, Draw, Drawn, Few, Verdicts};
use super::index::RuleIndex;
use super::meter::NEVER;
use super::outcome::{Decisive, Denied, Outcome, Status};
use super::request::RequestView;
use super::rule::Rule;
use super::settle::Settlement;
use super::spread;
use super::state::{Reach, RouteStats, State};
use super::store::{Answer, ChargeRequest, Store};
use super::time::Now;
use crate::policy::plan::{LimitRule, PolicyLimits, RateLimits};

/// The limits of a route, ready to decide.
#[derive(Debug)]
pub struct Limits {
    local: Vec<Policy>,
    global: Vec<Policy>,
    store: Arc<dyn Store>,
    stats: Arc<RouteStats>,
    /// Somebody else may deny what they admit: everything can be given back then.
    held: bool,
}

/// Those of one policy.
#[derive(Debug)]
struct Policy {
    rules: RuleIndex,
    default: Option<Arc<Rule>>,
}

/// When it is decided.
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the usual one, and is not to be allocated"
)]
pub enum Decision {
    Ready(Outcome),
    /// When the store of the global limits answers. What local limits were charged comes back if
    /// this is dropped before.
    Pending(Pin<Box<dyn Future<Output = Outcome> + Send>>),
}

impl Decision {
    /// The outcome, whenever it comes.
    pub async fn outcome(self) -> Outcome {
        match self {
            Self::Ready(outcome) => outcome,
            Self::Pending(outcome) => outcome.await,
        }
    }
}

impl fmt::Debug for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(outcome) => f.debug_tuple("Ready").field(outcome).finish(),
            Self::Pending(_) => f.write_str("Pending"),
        }
    }
}

impl Limits {
    /// The limits on `route`, with the buckets and counters that `state` has under their names.
    /// `None`: there are none.
    #[must_use]
    pub fn compile(limits: &RateLimits, route: &str, state: &State) -> Option<Self> {
        let policies = |policies: &[PolicyLimits], reach| {
            let compile = |limits| Policy::compile(limits, reach, route, state);
            policies.iter().map(compile).collect()
        };
        (!limits.is_empty()).then(|| Self {
            local: policies(&limits.local, Reach::Local),
            global: policies(&limits.global, Reach::Global),
            store: Arc::clone(state.store()),
            stats: state.route_stats(route),
            held: false,
        })
    }

    /// The same; with `held`, everything that a request is charged can be given back by
    /// [`Settlement::withdraw`], until [`Settlement::confirm`] says that nobody else denies it.
    #[must_use]
    pub fn held(self, held: bool) -> Self {
        Self { held, ..self }
    }

    /// The rule of this name under a policy.
    #[must_use]
    pub fn rule(&self, reach: Reach, policy: &str, name: &str) -> Option<Arc<Rule>> {
        let policies = match reach {
            Reach::Local => &self.local,
            Reach::Global => &self.global,
        };
        let rules = policies
            .iter()
            .flat_map(|one| one.rules.rules().iter().chain(&one.default));
        let mut rules = rules.filter(|rule| rule.policy == policy && rule.name() == name);
        rules.next().cloned()
    }

    /// Charges `request` at `now` against every rule that it meets, or against none if any is over
    /// its limit.
    pub fn decide(&self, request: &RequestView<'_>, now: Now) -> Decision {
        let local = meet(&self.local, request);
        let mut first = charge::charge(&local, now);
        let global = meet(&self.global, request);
        if first.denied.is_some() || global.is_empty() {
            let mut none = Verdicts::default();
            let (local, global) = ((&*local, &mut first), (&[][..], &mut none));
            return Decision::Ready(finish(local, global, self.side(), now));
        }
        let asked = ChargeRequest {
            draws: &global,
            request,
            now,
        };
        match self.store.charge(&asked) {
            Answer::Ready(mut second) => {
                let (local, global) = ((&*local, &mut first), (&*global, &mut second));
                Decision::Ready(finish(local, global, self.side(), now))
            }
            Answer::Pending(answer) => {
                let mut held = Held {
                    draws: local.into_iter().map(Draw::owned).collect(),
                    verdicts: first,
                    now,
                };
                let global: Few<_> = global.into_iter().map(Draw::owned).collect();
                let (store, stats) = (Arc::clone(&self.store), Arc::clone(&self.stats));
                let keep = self.held;
                Decision::Pending(Box::pin(async move {
                    let mut second = answer.await;
                    let (draws, mut first) = held.release();
                    let (local, global) = ((&*draws, &mut first), (&*global, &mut second));
                    let side = Side {
                        store: &store,
                        stats: &stats,
                        held: keep,
                    };
                    finish(local, global, side, now)
                }))
            }
        }
    }

    fn side(&self) -> Side<'_> {
        Side {
            store: &self.store,
            stats: &self.stats,
            held: self.held,
        }
    }

    /// Every rule, local ones first, in the order in which they are asked; `true` for defaults.
    pub fn rules(&self) -> impl Iterator<Item = (&Arc<Rule>, bool)> {
        self.local.iter().chain(&self.global).flat_map(|policy| {
            let rules = policy.rules.rules().iter().map(|rule| (rule, false));
            rules.chain(policy.default.iter().map(|rule| (rule, true)))
        })
    }

    /// The rules that a request meets, without charging anything.
    #[must_use]
    pub fn met(&self, request: &RequestView<'_>) -> Vec<&Arc<Rule>> {
        let policies = self.local.iter().chain(&self.global);
        let mut met = Vec::new();
        policies.for_each(|policy| policy.meet(request, |rule| met.push(rule)));
        met
    }
}

impl Policy {
    fn compile(limits: &PolicyLimits, reach: Reach, route: &str, state: &State) -> Self {
        let rule = |rule: &LimitRule| Rule::compile(rule, reach, limits, route, state);
        let mut rules: Vec<Rule> = limits.rules.iter().map(rule).collect();
        let mut default = limits.default.as_ref().map(rule);
        if reach == Reach::Global {
            // The default is only met where no other is.
            spread::together(&mut rules);
            spread::together(default.as_mut_slice());
        }
        Self {
            rules: RuleIndex::new(rules.into_iter().map(Arc::new).collect()),
            default: default.map(Arc::new),
        }
    }

    fn meet<'a>(&'a self, request: &RequestView<'_>, mut met: impl FnMut(&'a Arc<Rule>)) {
        let mut any = false;
        self.rules.each(request, |rule| {
            any = true;
            met(rule);
        });
        if let Some(default) = self
            .default
            .as_ref()
            .filter(|rule| !any && rule.holds(request))
        {
            met(default);
        }
    }
}

fn meet<'a>(policies: &'a [Policy], request: &RequestView<'_>) -> Few<Draw<&'a Arc<Rule>>> {
    let mut draws = Few::new();
    for policy in policies {
        policy.meet(request, |rule| draws.push(Draw::of(rule, request)));
    }
    draws
}

/// Tokens of local limits while the store is asked. They come back if nobody waits for it any more.
struct Held {
    draws: Few<Draw<Arc<Rule>>>,
    verdicts: Verdicts,
    now: Now,
}

impl Held {
    fn release(&mut self) -> (Few<Draw<Arc<Rule>>>, Verdicts) {
        (
            std::mem::take(&mut self.draws),
            std::mem::take(&mut self.verdicts),
        )
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        charge::give_all_back(&self.draws, &mut self.verdicts.drawn, self.now);
    }
}

/// What a decision needs besides its draws.
#[derive(Clone, Copy)]
struct Side<'a> {
    store: &'a Arc<dyn Store>,
    stats: &'a RouteStats,
    held: bool,
}

/// Counts the request for its route.
fn tally<R>(stats: &RouteStats, local: &[Draw<R>], (first, second): (&Verdicts, &Verdicts)) {
    let limits = &stats.limits;
    if !local.is_empty() {
        let watched = first.drawn.iter().any(|drawn| drawn.shadow_over);
        if first.denied.is_some() || watched {
            add(&limits.over);
        } else {
            add(&limits.ok);
        }
    }
    if first.denied.is_some() {
        add(&limits.refused);
    } else if second.denied.is_some_and(|denial| !denial.unknown) {
        add(&limits.refused_by_store);
    }
}

/// Brings local and global together: gives back, observes, counts, and says what came of it.
fn finish<R: Borrow<Arc<Rule>>>(
    (local, first): (&[Draw<R>], &mut Verdicts),
    (global, second): (&[Draw<R>], &mut Verdicts),
    side: Side<'_>,
    now: Now,
) -> Outcome {
    let Side { store, stats, held } = side;
    let elsewhere = second.denied.map(|denial| Denial {
        by: usize::MAX,
        alone: false,
        ..denial
    });
    if elsewhere.is_some() {
        charge::give_all_back(local, &mut first.drawn, now);
    }
    charge::observe(local, &mut first.drawn, first.denied.or(elsewhere), now);
    tally(stats, local, (first, second));
    let denied = match (first.denied, second.denied) {
        (Some(denial), _) => local.get(denial.by).map(|draw| (draw, denial)),
        (None, Some(denial)) => global.get(denial.by).map(|draw| (draw, denial)),
        (None, None) => None,
    };
    let denied = denied.map(|(draw, denial)| Denied {
        wait: (denial.wait != NEVER).then_some(denial.wait),
        rule: Arc::clone(draw.rule.borrow()),
        unknown: denial.unknown,
    });
    let unknown = denied.as_ref().is_some_and(|denied| denied.unknown);
    if let Some(denied) = &denied
        && !unknown
    {
        add(&denied.rule.scope.counters.limited);
    }
    let mut statuses = Few::new();
    let mut decisive: Option<(&Arc<Rule>, u64)> = None;
    let mut settlement = Settlement::default();
    let drawn = first.drawn.iter_mut().chain(&mut second.drawn);
    for (draw, drawn) in local.iter().chain(global).zip(drawn) {
        let rule = draw.rule.borrow();
        count(rule, drawn, denied.is_none());
        if let Some(status) = status(rule, drawn).filter(|_| !unknown) {
            if decisive.is_none_or(|(_, least)| status.remaining < least) {
                decisive = Some((rule, status.remaining));
            }
            statuses.push(status);
        }
        if denied.is_none() {
            settlement.add(rule, drawn, (store, held), now);
        }
    }
    let decisive = match &denied {
        Some(denied) => Some((&denied.rule, 0)),
        None => decisive,
    };
    Outcome {
        statuses,
        decisive: decisive.map(|(rule, remaining)| Decisive {
            rule: Arc::clone(rule),
            remaining,
        }),
        denied,
        settlement,
    }
}

fn status(rule: &Rule, drawn: &Drawn) -> Option<Status> {
    let standing = drawn.standing.filter(|_| !rule.shadow)?;
    Some(Status {
        quota: rule.quota()?,
        window: rule.window,
        remaining: standing.remaining,
        reset: standing.reset,
        headers: rule.headers,
    })
}

fn count(rule: &Rule, drawn: &Drawn, admitted: bool) {
    let counters = &rule.scope.counters;
    if drawn.shadow_over {
        add(&counters.shadow_limited);
    } else if admitted {
        add(&counters.admitted);
    }
    for (index, tried) in (0u32..64).zip(&rule.candidates) {
        let (would_admit, would_deny) = drawn.tried;
        if would_admit >> index & 1 == 1 {
            add(&tried.scope.counters.admitted);
        }
        if would_deny >> index & 1 == 1 {
            add(&tried.scope.counters.limited);
        }
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
