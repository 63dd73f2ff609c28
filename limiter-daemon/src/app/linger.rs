//! After another process has taken this one's place: supervisors that start again whatever ends (the
//! kubelet does) must not find it ended, or the two would take each other's place for ever. So it stays,
//! without sockets and without work, until it is told to stop.
//!
//! Or until nobody is in its place any more: then it ends, and is started again, to serve.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Signals, handover};

/// How often it looks whether another one is there.
const LOOK: Duration = Duration::from_secs(1);

/// Waits for the end, of this process or of the one that has the admin address.
pub(super) async fn linger(admin: SocketAddr, signals: &mut Signals) {
    if signals.told {
        return;
    }
    tracing::info!("another process serves: waiting to be told to stop");
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            () = signals.stop() => return,
            _ = look.tick() => match handover::is_served(admin) {
                Ok(true) => {}
                Ok(false) => {
                    tracing::warn!("nobody serves any more: ending, to be started again");
                    return;
                }
                Err(error) => tracing::warn!(%error, "cannot see who serves"),
            },
        }
    }
}
