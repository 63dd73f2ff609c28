//! Out of service and still there: what an operator asks for before he works on a node.
//!
//! Load balancers are told that it is not ready, clients are asked to go, and who comes all the same
//! is served. The kernel half goes on. It ends by SIGTERM, as ever.

use std::time::Duration;

use super::Daemon;

impl Daemon {
    /// Goes out of service. Once more changes nothing.
    pub(super) async fn drain(&mut self) {
        if self.left.is_some() {
            return;
        }
        self.left = Some(self.clock.now());
        let over = self.config.drain_delay;
        tracing::info!(
            ?over,
            "told to drain: not ready any more, and serving who comes"
        );
        self.status.draining();
        self.service.leave().await;
        self.workers.leave(over).await;
    }

    /// How long it goes on accepting after SIGTERM: what is left of `drainDelay`, for load balancers
    /// that have not been told before.
    pub(super) fn delay(&self) -> Duration {
        let since = self.left.map_or(0, |left| self.clock.now() - left);
        let passed = Duration::from_nanos(since);
        self.config.drain_delay.saturating_sub(passed)
    }
}
