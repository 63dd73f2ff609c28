//! What the limits say of a request.

use std::sync::Arc;

use super::charge::Few;
use super::request::RequestView;
use super::rule::Rule;
use super::settle::Settlement;

/// What the limits say of a request.
#[derive(Debug, Default)]
pub struct Outcome {
    /// One for each rule in force that the request met and that has a limit: local ones first, in the
    /// order of policies and rules.
    pub statuses: Few<Status>,
    /// Set if the request is over a limit.
    pub denied: Option<Denied>,
    /// The rule that an access log tells of; `None`: the request met none with a limit.
    pub decisive: Option<Decisive>,
    /// What is left to do when the answer is there.
    pub settlement: Settlement,
}

/// The state of one rule's bucket after the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Tokens of a full bucket.
    pub quota: u64,
    /// Seconds of the limit's unit; 0: unknown.
    pub window: u64,
    /// Whole tokens left.
    pub remaining: u64,
    /// Nanoseconds until the bucket is full again.
    pub reset: u64,
    /// Whether the rule wants to be told of; `None`: as the listener has it.
    pub headers: Option<bool>,
}

/// A request over a limit.
#[derive(Clone, Debug)]
pub struct Denied {
    /// Nanoseconds after which it would conform; `None`: it never will.
    pub wait: Option<u64>,
    /// The rule that makes it wait longest.
    pub rule: Arc<Rule>,
    /// It is not known whether the request is over the limit: the store does not answer.
    pub unknown: bool,
}

/// The rule that denied a request, or the one with the fewest tokens left of those that admitted it.
#[derive(Clone, Debug)]
pub struct Decisive {
    pub rule: Arc<Rule>,
    /// Whole tokens left.
    pub remaining: u64,
}

impl Decisive {
    /// The values that the rule has a bucket of its own for, as `name=value`; for `request`, the one
    /// that was decided.
    #[must_use]
    pub fn descriptor(&self, request: &RequestView<'_>) -> String {
        self.rule.descriptor(request)
    }
}
