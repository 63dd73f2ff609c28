//! Hearing what the fleet blocks and lifts.

use std::time::Duration;

use super::asking::{Change, Error, Heard};
use super::{Connection, Shared};

/// How long the server waits for an event before it says that there is none.
const WAIT: Duration = Duration::from_secs(1);

/// Applies events as they come, of which `count` are known, until the store does not answer any more or
/// one was missed.
pub(super) async fn follow(
    shared: &Shared,
    connection: &mut Connection,
    mut count: u64,
) -> Result<std::convert::Infallible, Error> {
    loop {
        let position = shared.blocks.position();
        let events = shared
            .asking
            .events_after(connection, position, WAIT)
            .await?;
        let now = (shared.clock)();
        for Heard { id, number, change } in events {
            if let Some(number) = number {
                if number != count + 1 {
                    return Err(Error::Changed("there are events that were not heard"));
                }
                count = number;
            }
            match change {
                Some((net, Change::Block(remote))) => {
                    shared
                        .blocks
                        .blocked(net, &remote, id, &shared.server(), now);
                }
                Some((net, Change::Lift(by))) => shared.blocks.lifted(net, &by, id),
                None => tracing::debug!(%id, "an event of the fleet that says nothing here"),
            }
            shared.blocks.heard(id);
        }
    }
}
