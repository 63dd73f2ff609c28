//! Metrics of what a node holds and remembers of the store that nodes share.

use std::fmt;
use std::sync::Arc;

use super::metrics::Page;
use crate::engine::store::lease::table::Table;
use crate::engine::store::over_limit::Memory;

/// What is held and remembered.
#[derive(Debug)]
pub struct Holdings {
    pub leases: Arc<Table>,
    /// `None`: nothing is remembered.
    pub memory: Option<Arc<Memory>>,
}

pub(super) fn encode(held: &Holdings, page: &mut Page<'_, '_>) -> fmt::Result {
    let Holdings { leases, memory } = held;
    page.gauge(
        "limiterd_store_leases",
        "Tokens of leased limits that this node has in hand.",
        leases.in_hand(),
    )?;
    let counts = leases.counts();
    page.counter(
        "limiterd_store_lease_decisions",
        "Limits that were decided by a lease in hand, without a question to the store.",
        counts.decisions(),
    )?;
    page.counters(
        "limiterd_store_lease_tokens",
        "Tokens of leases: taken in advance (prefetched), given back unused (returned), and lost with the window that they were of.",
        counts.tokens().map(|(event, count)| ([("event", event)], count)),
    )?;
    page.counter(
        "limiterd_store_lease_untracked",
        "Questions about leased limits whose key found no room among those that leases are held of.",
        counts.untracked(),
    )?;
    let Some(memory) = memory else {
        return Ok(());
    };
    page.counters(
        "limiterd_store_over_limit_memory",
        "Keys over their limit: requests answered from memory, denials remembered, not remembered for lack of room (full), forgotten because of a refund.",
        memory.counts().map(|(result, count)| ([("result", result)], count)),
    )
}
