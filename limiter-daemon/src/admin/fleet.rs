//! Metrics of the fleet.

use super::blocks::Blocking;
use super::metrics::{Page, catalogue};
use crate::engine::fleet::Event;
use crate::global::fleet::Fleet;

pub(super) fn encode(blocking: &Blocking, page: &mut Page) {
    let number = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let (node, fleet) = blocking.blocks.numbers();
    page.rows(
        &catalogue::FLEET_BLOCKS,
        [(["node"], number(node)), (["fleet"], number(fleet))],
    );
    page.rows(
        &catalogue::FLEET_EVENTS,
        Event::ALL.map(|event| ([event.name()], blocking.blocks.counts().of(event))),
    );
    let fleet = blocking.fleet.as_deref();
    page.value(
        &catalogue::FLEET_CONNECTED,
        u64::from(fleet.is_some_and(|fleet| fleet.view().connected)),
    );
    page.value(
        &catalogue::FLEET_NODES,
        u64::from(fleet.map_or(1, Fleet::nodes)),
    );
}
