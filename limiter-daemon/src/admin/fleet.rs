//! Metrics of the fleet.

use std::fmt;

use super::blocks::Blocking;
use super::metrics::Page;
use crate::engine::fleet::Event;
use crate::global::fleet::Fleet;

pub(super) fn encode(blocking: &Blocking, page: &mut Page<'_, '_>) -> fmt::Result {
    let number = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let (node, fleet) = blocking.blocks.numbers();
    page.gauges(
        "limiterd_fleet_blocks",
        "Networks blocked here, by who blocks them.",
        [
            ([("scope", "node")], number(node)),
            ([("scope", "fleet")], number(fleet)),
        ],
    )?;
    page.counters(
        "limiterd_fleet_events",
        "What came of blocks on this node.",
        Event::ALL.map(|event| {
            (
                [("event", event.name())],
                blocking.blocks.counts().of(event),
            )
        }),
    )?;
    let fleet = blocking.fleet.as_deref();
    page.gauge(
        "limiterd_fleet_connected",
        "1 if the other nodes can be reached through the store.",
        u64::from(fleet.is_some_and(|fleet| fleet.view().connected)),
    )?;
    page.gauge(
        "limiterd_fleet_nodes",
        "Nodes last seen alive, this one among them.",
        u64::from(fleet.map_or(1, Fleet::nodes)),
    )
}
