//! How an address goes out of service, as its connections see it.
//!
//! First connections are asked to go, over a time, while new ones are still taken: HTTP/1.1 ones by
//! `connection: close` on their next response, HTTP/2 ones by GOAWAY, each at a moment of its own, so
//! that clients do not come back all at once (as Envoy's gradual drain). Then nothing more is
//! accepted, and what is in flight is finished.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How long a connection may take to its first request once its address closes: that it was accepted
/// says to its client that it is served.
pub(super) const FIRST_REQUEST: Duration = Duration::from_secs(2);

/// How far an address is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Open,
    /// Connections are asked to go, over this time; new ones are taken.
    Leaving(Duration),
    /// None is taken; those that are there finish.
    Closing {
        /// What is there after this time is cut off.
        within: Duration,
        /// Somebody else accepts from the same sockets, so what waits in their queues is not lost.
        shared: bool,
    },
    /// Everything ends now.
    Cut,
}

impl Stage {
    pub(super) const fn is_closing(&self) -> bool {
        matches!(self, Self::Closing { .. } | Self::Cut)
    }
}

/// What a connection is told of the stage of its address.
#[derive(Clone, Debug)]
pub(super) struct Draining {
    stage: watch::Receiver<Stage>,
    /// When the first request must have come.
    until: Option<Instant>,
}

impl Draining {
    pub(super) const fn new(stage: watch::Receiver<Stage>) -> Self {
        Self { stage, until: None }
    }

    /// Waits until the address is no longer just open; the time over which its connections are asked
    /// to go, if there is one.
    pub(super) async fn leaving(&mut self) -> Option<Duration> {
        match self.stage.wait_for(|stage| *stage != Stage::Open).await {
            Ok(stage) => match *stage {
                Stage::Leaving(time) => Some(time),
                _ => None,
            },
            // The sender is gone if the worker is: that too is the end.
            Err(_gone) => None,
        }
    }

    /// Waits until the address closes.
    pub(super) async fn closing(&mut self) {
        let _gone = self.stage.wait_for(Stage::is_closing).await;
    }

    /// Waits until it is too late for a connection's first request.
    pub(super) async fn too_late(&mut self) {
        self.closing().await;
        let until = *self
            .until
            .get_or_insert_with(|| Instant::now() + FIRST_REQUEST);
        sleep_until(until).await;
    }
}
