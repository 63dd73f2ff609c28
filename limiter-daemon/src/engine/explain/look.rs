//! Looking at the buckets of the running daemon.

use std::sync::Arc;

use super::{BucketState, Look, Place};
use crate::engine::charge;
use crate::engine::request::RequestView;
use crate::engine::rule::Rule;
use crate::engine::state::{Reach, State};
use crate::engine::time::Now;

const MILLISECOND: u64 = 1_000_000;

impl Look for State {
    fn look(&self, at: &Place<'_>, request: &RequestView<'_>, now: Now) -> Option<BucketState> {
        if at.reach == Reach::Global && !self.store().counts_here() {
            // What this node has counted without the store is not what will be asked.
            return None;
        }
        let rule = Rule::compile(at.rule, at.reach, at.policy, at.route, self);
        let standing = rule.standing(request, now)?;
        let wait = charge::wait(&Arc::new(rule), request, now);
        Some(BucketState {
            remaining: standing.remaining,
            reset_ms: standing.reset.div_ceil(MILLISECOND),
            admits: wait.is_none(),
            wait_ms: wait.unwrap_or(0).div_ceil(MILLISECOND),
        })
    }
}
