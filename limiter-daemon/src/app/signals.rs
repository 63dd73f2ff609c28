//! The signals that end the daemon.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Those that say to stop.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// One has come.
    pub(super) told: bool,
}

impl Signals {
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            told: false,
        })
    }

    /// Waits for one. Nothing is lost if the wait is given up.
    pub(super) async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        self.told = true;
    }
}
