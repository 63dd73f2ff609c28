//! What is left to do about a request that was admitted: tokens come back if it failed in a way
//! that its rules do not charge for, and its response is paid for.
//!
//! A [`Settlement`] goes with the request and is told what becomes of it: first that there is no
//! answer ([`Settlement::failed`]), or the answer's head ([`Settlement::answered`]), its body piece
//! by piece ([`Settlement::data`]), and its end ([`Settlement::finished`]). Each charge is settled
//! once, when it is dropped at the latest. A request that nobody waits for any more keeps what it was
//! charged, for the upstream has worked for it.
//!
//! | | tokens of the request | cost of the response |
//! |---|---|---|
//! | no answer, refund on that | come back | none |
//! | no answer, otherwise | stay | none |
//! | 5xx, refund on that | come back | none |
//! | the upstream broke off, refund on that | come back | none |
//! | any other end | stay | taken, as far as it was seen |

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{HeaderMap, StatusCode};
use smallvec::SmallVec;

use super::charge::{Drawn, Receipt};
use super::cost::{self, Watch};
use super::rule::Rule;
use super::state::Reach;
use super::store::{self, Adjustment, Store};
use super::time::Now;
use crate::policy::plan::ResponseCost;

/// Tokens that one response costs at most; more is not believed.
const MAX_COST: u64 = 1 << 40;

/// The open charges of one request.
#[derive(Debug, Default)]
pub struct Settlement {
    charges: SmallVec<[Charge; 1]>,
    store: Option<Arc<dyn Store>>,
    watch: Option<Watch>,
    answered: bool,
    /// When it was last told anything.
    told: Now,
}

#[derive(Debug)]
struct Charge {
    rule: Arc<Rule>,
    receipt: Receipt,
    /// What the response costs, once that is known.
    cost: Option<u64>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The upstream could not be reached, broke off or took too long.
    Upstream,
    /// A circuit breaker refused the request.
    Overload,
}

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All of it was passed on.
    Complete,
    /// The client went away.
    Abandoned,
    /// The upstream broke off.
    Broken,
}

impl Settlement {
    pub(super) fn add(
        &mut self,
        rule: &Arc<Rule>,
        drawn: &mut Drawn,
        (store, held): (&Arc<dyn Store>, bool),
        now: Now,
    ) {
        self.told = now;
        if let Some(receipt) = drawn.taken.take_if(|_| held || rule.settles()) {
            if rule.reach() == Reach::Global {
                self.store.get_or_insert_with(|| Arc::clone(store));
            }
            self.charges.push(Charge {
                rule: Arc::clone(rule),
                receipt,
                cost: None,
            });
        }
    }

    /// Whether there is nothing to settle: it need not be told anything then.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.charges.is_empty()
    }

    /// Somebody else denies the request: everything is given back.
    pub fn withdraw(mut self, now: Now) {
        self.told = now;
        self.refund(|_| true);
    }

    /// Nobody else denies the request: what is not settled later stays charged.
    pub fn confirm(&mut self) {
        self.charges.retain(|charge| charge.rule.settles());
    }

    /// There is no answer from an upstream.
    pub fn failed(mut self, failure: Failure, now: Now) {
        self.told = now;
        self.refund(|rule| match failure {
            Failure::Upstream => rule.refund_on.upstream_failure,
            Failure::Overload => rule.refund_on.overload,
        });
        self.charges.clear();
    }

    /// The head of the upstream's answer, as it came.
    pub fn answered(&mut self, status: StatusCode, headers: &HeaderMap, now: Now) {
        self.told = now;
        self.answered = true;
        if status.is_server_error() {
            self.refund(|rule| rule.refund_on.server_error);
        }
        let mut longest = None;
        for charge in &mut self.charges {
            match &charge.rule.response_cost {
                Some(ResponseCost::Number(tokens)) => charge.cost = Some(*tokens),
                Some(ResponseCost::Header(name)) => {
                    let value = headers.get(name).and_then(|value| value.to_str().ok());
                    charge.cost = value.and_then(|value| value.trim().parse().ok());
                }
                Some(ResponseCost::JsonField { max_bytes, .. }) => {
                    longest = longest.max(Some(*max_bytes));
                }
                None => {}
            }
        }
        self.watch = longest.and_then(|longest| Watch::for_response(headers, longest));
    }

    /// A piece of the answer's body, as it came.
    pub fn data(&mut self, data: &[u8]) {
        if let Some(watch) = &mut self.watch {
            let charges = &mut self.charges;
            watch.feed(data, &mut |document| look(charges, document));
        }
    }

    /// The answer's end; without an answer, the request's.
    pub fn finished(mut self, ending: Ending, now: Now) {
        self.told = now;
        if !self.answered {
            self.charges.clear();
            return;
        }
        if ending == Ending::Broken {
            self.refund(|rule| rule.refund_on.upstream_failure);
        }
        self.pay();
    }

    /// Settles the charges of the rules that give the tokens back now.
    fn refund(&mut self, gives_back: impl Fn(&Rule) -> bool) {
        let mut open = std::mem::take(&mut self.charges);
        open.retain(|charge| {
            let refunded = gives_back(&charge.rule);
            if refunded {
                self.adjust(charge, Adjustment::GiveBack);
                let counters = &charge.rule.scope.counters;
                let tokens = charge.rule.request_cost;
                counters.refunded.fetch_add(tokens, Ordering::Relaxed);
            }
            !refunded
        });
        self.charges = open;
    }

    /// Settles all charges that are open.
    fn pay(&mut self) {
        let charges = &mut self.charges;
        if let Some(watch) = &mut self.watch {
            watch.end(&mut |document| look(charges, document));
        }
        let open = std::mem::take(&mut self.charges);
        for charge in open.iter().filter(|c| c.rule.response_cost.is_some()) {
            let counters = &charge.rule.scope.counters;
            match charge.cost {
                Some(tokens) => {
                    let tokens = tokens.min(MAX_COST);
                    self.adjust(charge, Adjustment::Charge(tokens));
                    counters
                        .response_tokens
                        .fetch_add(tokens, Ordering::Relaxed);
                }
                None => {
                    counters.unmetered.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn adjust(&self, charge: &Charge, adjustment: Adjustment) {
        match &self.store {
            Some(store) if charge.rule.reach() == Reach::Global => {
                store.adjust(&charge.rule, &charge.receipt, adjustment, self.told);
            }
            _ => store::adjust_here(&charge.rule, &charge.receipt, adjustment, self.told),
        }
    }
}

/// Takes from a document what it says of the cost. Later ones win.
fn look(charges: &mut [Charge], document: &[u8]) {
    for charge in charges {
        if let Some(ResponseCost::JsonField { path, .. }) = &charge.rule.response_cost
            && let Some(tokens) = cost::number_at(document, path)
        {
            charge.cost = Some(tokens);
        }
    }
}

impl Drop for Settlement {
    fn drop(&mut self) {
        // Without an answer there is nothing to pay for.
        if self.answered && !self.charges.is_empty() {
            self.pay();
        }
    }
}

#[cfg(test)]
mod tests;
