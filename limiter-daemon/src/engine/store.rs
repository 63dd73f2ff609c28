//! What counts global limits: a store that nodes share, or this node's memory.

pub mod breaker;
#[cfg(test)]
mod fake;
pub mod fallback;
mod key;
pub mod lease;
pub mod ledger;
pub mod over_limit;
pub mod parts;
mod shared;
pub mod slot;
mod told;

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use super::charge::{self, Draw, Handle, Receipt, Verdicts};
use super::meter::Meter;
use super::request::RequestView;
use super::rule::{Measure, Rule};
use super::state::{Account, Scope};
use super::time::Now;
pub(in crate::engine) use key::hex_of;
pub use shared::{SharedStore, Without};

/// Counts global limits.
///
/// A request is asked about once, with all the limits that it meets: they admit it together, and are
/// charged together or not at all. The answer may come at once, or later; who asks need not know
/// which.
pub trait Store: Debug + Send + Sync {
    /// Takes what the request costs from the buckets of all draws that are enforced, if they all have
    /// it; and then asks those that are not, and the candidates (see [`Verdicts`]).
    fn charge(&self, request: &ChargeRequest<'_>) -> Answer;

    /// Changes a bucket that [`Store::charge`] drew from, by the receipt it gave. Does not wait: what
    /// cannot be done at once is done later, or lost with the store.
    fn adjust(&self, rule: &Arc<Rule>, receipt: &Receipt, adjustment: Adjustment, now: Now);

    /// To be called once on each thread that will ask, inside its runtime: a store may keep a
    /// connection for each.
    fn join(&self) {}

    /// What the bucket of `request` under a rule is called where it is counted: that of `scope`, the
    /// rule's own or a candidate's. `None`: it is counted in the state of this node.
    fn key_of(
        &self,
        _rule: &Rule,
        _scope: &Scope,
        _meter: &Meter,
        _request: &RequestView<'_>,
    ) -> Option<String> {
        None
    }

    /// Whether it counts in the state of this node, where others may look at it.
    fn counts_here(&self) -> bool {
        false
    }
}

/// All global limits that a request meets.
#[derive(Clone, Copy, Debug)]
pub struct ChargeRequest<'a> {
    /// Never empty.
    pub draws: &'a [Draw<&'a Arc<Rule>>],
    /// The request, whose values the names of buckets are made of ([`Rule::descriptor`]).
    pub request: &'a RequestView<'a>,
    pub now: Now,
}

/// When a store answers.
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the usual one, and is not to be allocated"
)]
pub enum Answer {
    Ready(Verdicts),
    Pending(Pin<Box<dyn Future<Output = Verdicts> + Send>>),
}

/// A change of a bucket after the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adjustment {
    /// The tokens of the request come back.
    GiveBack,
    /// So many tokens more are taken, into debt if need be.
    Charge(u64),
}

impl Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ready(verdicts) => f.debug_tuple("Ready").field(verdicts).finish(),
            Self::Pending(_) => f.write_str("Pending"),
        }
    }
}

/// Counts in the memory of this node, where local limits are counted as well: each node admits what
/// the limit says.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryStore;

impl Store for MemoryStore {
    fn charge(&self, request: &ChargeRequest<'_>) -> Answer {
        let &ChargeRequest { draws, now, .. } = request;
        let mut verdicts = charge::charge(draws, now);
        charge::observe(draws, &mut verdicts.drawn, verdicts.denied, now);
        Answer::Ready(verdicts)
    }

    fn adjust(&self, rule: &Arc<Rule>, receipt: &Receipt, adjustment: Adjustment, now: Now) {
        adjust_here(rule, receipt, adjustment, now);
    }

    fn counts_here(&self) -> bool {
        true
    }
}

/// Changes a bucket in this node's memory, and those of the candidates that drew with it.
pub(super) fn adjust_here(rule: &Rule, receipt: &Receipt, adjustment: Adjustment, now: Now) {
    if let (Measure::Metered(meter), Handle::Here(place)) = (&rule.measure, &receipt.account) {
        let account = Account {
            scope: &rule.scope,
            place,
        };
        let meter = meter.divided(receipt.nodes, rule.request_cost);
        adjust_one(&meter, account, rule, receipt.mark, adjustment, now);
    }
    for (index, place, mark) in &receipt.tried {
        if let Some(tried) = rule.candidates.get(usize::from(*index)) {
            let account = Account {
                scope: &tried.scope,
                place,
            };
            let meter = tried.meter.divided(receipt.nodes, rule.request_cost);
            adjust_one(&meter, account, rule, *mark, adjustment, now);
        }
    }
}

fn adjust_one(
    meter: &Meter,
    account: Account<'_>,
    rule: &Rule,
    mark: u64,
    adjustment: Adjustment,
    now: Now,
) {
    match adjustment {
        Adjustment::GiveBack => meter.give_back(&account, rule.request_cost, mark, now),
        Adjustment::Charge(tokens) => meter.charge(&account, tokens, now),
    }
}
