//! Looking at the buckets of the running daemon.

use limiter_common::Step;

use super::{BucketState, Look};
use crate::engine::buckets::Bucket;
use crate::engine::decide;
use crate::engine::request::RequestView;
use crate::engine::state::State;
use crate::policy::plan::{Condition, LimitRule, Quota};

const MILLISECOND: u64 = 1_000_000;

impl Look for State {
    fn look(
        &self,
        rule: &LimitRule,
        route: &str,
        request: &RequestView<'_>,
        now: u64,
    ) -> Option<BucketState> {
        let Quota::Limited { limit, .. } = rule.quota else {
            return None;
        };
        let distinct = rule.conditions.iter().any(Condition::is_distinct);
        let scope = self.scope(&rule.name, route, distinct);
        let bucket = if distinct {
            let key = scope.key(|hasher| decide::feed(&rule.conditions, request.headers, hasher));
            // Looked for, not made.
            Bucket::Own {
                table: scope.table(),
                key,
            }
        } else {
            Bucket::Shared(scope.single())
        };
        let wait = match bucket.peek(limit, rule.request_cost.max(1), now) {
            Step::Admit { .. } => None,
            Step::Deny { wait } => Some(wait),
        };
        let tat = bucket.tat();
        let reset = tat.saturating_sub(now).min(limit.tolerance);
        Some(BucketState {
            remaining: limit.remaining(tat, now),
            reset_ms: reset.div_ceil(MILLISECOND),
            admits: wait.is_none(),
            wait_ms: wait.unwrap_or(0).div_ceil(MILLISECOND),
        })
    }
}
