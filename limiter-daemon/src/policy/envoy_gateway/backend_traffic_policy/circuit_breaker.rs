//! `circuitBreaker`: bounds on what is under way to a backend at once.

use serde::Deserialize;

use super::merge::by_field;
use super::numbers::{self, RawFraction};
use crate::policy::decode::At;
use crate::policy::findings::Scope;
use crate::policy::plan::{self, Fraction};

/// Envoy's.
const BUDGET: Fraction = Fraction::percent(20);
/// Envoy Gateway's.
const MIN_CONCURRENCY: u32 = 3;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawCircuitBreaker {
    max_connections: Option<At<u32>>,
    max_pending_requests: Option<At<u32>>,
    max_parallel_requests: Option<At<u32>>,
    max_parallel_retries: Option<At<u32>>,
    max_requests_per_connection: Option<At<u32>>,
    per_endpoint: Option<RawPerEndpoint>,
    retry_budget: Option<RawRetryBudget>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPerEndpoint {
    max_connections: Option<At<u32>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRetryBudget {
    percent: At<RawFraction>,
    min_retry_concurrency: Option<u32>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct CircuitBreaker {
    max_connections: Option<u32>,
    max_pending_requests: Option<u32>,
    max_parallel_requests: Option<u32>,
    max_parallel_retries: Option<u32>,
    max_requests_per_connection: Option<u32>,
    max_connections_per_endpoint: Option<u32>,
    retry_budget: Option<RetryBudget>,
}

by_field!(CircuitBreaker {
    max_connections,
    max_pending_requests,
    max_parallel_requests,
    max_parallel_retries,
    max_requests_per_connection,
    max_connections_per_endpoint,
    retry_budget,
});

#[derive(Clone, Debug)]
struct RetryBudget {
    share: Option<Fraction>,
    min_concurrency: Option<u32>,
}

by_field!(RetryBudget {
    share,
    min_concurrency
});

/// Checks `circuitBreaker`.
pub(super) fn lower(raw: RawCircuitBreaker, scope: &mut Scope<'_>) -> CircuitBreaker {
    let per_endpoint = raw.per_endpoint.and_then(|one| one.max_connections);
    let bounds = [
        &raw.max_connections,
        &raw.max_parallel_requests,
        &per_endpoint,
    ];
    for at in bounds.into_iter().flatten().filter(|at| at.value == 0) {
        scope.warning(
            &at.mark,
            "with 0 every request is answered with 503",
            "write 1 or more",
        );
    }
    if let (Some(at), Some(_)) = (&raw.max_parallel_retries, &raw.retry_budget) {
        scope.warning(
            &at.mark,
            "`maxParallelRetries` has no effect beside `retryBudget`",
            "remove one of them",
        );
    }
    let value = |at: Option<At<u32>>| at.map(|at| at.value);
    CircuitBreaker {
        max_requests_per_connection: raw.max_requests_per_connection.and_then(|at| {
            numbers::at_least_one(&at, "write 1 or more, or remove it for no bound", scope)
        }),
        max_connections: value(raw.max_connections),
        max_pending_requests: value(raw.max_pending_requests),
        max_parallel_requests: value(raw.max_parallel_requests),
        max_parallel_retries: value(raw.max_parallel_retries),
        max_connections_per_endpoint: value(per_endpoint),
        retry_budget: raw.retry_budget.map(|budget| RetryBudget {
            share: numbers::fraction(budget.percent, scope),
            min_concurrency: budget.min_retry_concurrency,
        }),
    }
}

impl CircuitBreaker {
    pub(super) fn plan(&self) -> plan::CircuitBreaker {
        let default = plan::CircuitBreaker::default();
        let or = |own: Option<u32>, default| own.unwrap_or(default);
        plan::CircuitBreaker {
            max_connections: or(self.max_connections, default.max_connections),
            max_pending_requests: or(self.max_pending_requests, default.max_pending_requests),
            max_parallel_requests: or(self.max_parallel_requests, default.max_parallel_requests),
            max_parallel_retries: or(self.max_parallel_retries, default.max_parallel_retries),
            max_requests_per_connection: self.max_requests_per_connection,
            max_connections_per_endpoint: or(
                self.max_connections_per_endpoint,
                default.max_connections_per_endpoint,
            ),
            retry_budget: self.retry_budget.as_ref().map(|own| plan::RetryBudget {
                share: own.share.unwrap_or(BUDGET),
                min_concurrency: or(own.min_concurrency, MIN_CONCURRENCY),
            }),
        }
    }
}
