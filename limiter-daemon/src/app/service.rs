//! Envoy's rate limit service: what it answers by, and its threads.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;

use super::privileges;
use super::sockets::Sockets;
use crate::engine::domain::Domains;
use crate::engine::state::State;
use crate::l7::clock::Clock;
use crate::policy::plan::{DaemonConfig, Plan};
use crate::rls::{Counters, Server, Service};

/// The service, which is there also where it is not served.
pub(super) struct RateLimitService {
    domains: Arc<ArcSwap<Domains>>,
    counters: Arc<Counters>,
    server: Option<Server>,
}

impl RateLimitService {
    /// Binds the address, if there is one, and serves on `threads` threads.
    pub(super) async fn start(
        plan: &Plan,
        config: &DaemonConfig,
        sockets: &mut Sockets,
        threads: usize,
        state: &Arc<State>,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let domains = Domains::compile(&plan.domains, state);
        let mut started = Self {
            domains: Arc::new(ArcSwap::from_pointee(domains)),
            counters: Arc::default(),
            server: None,
        };
        let Some(rls) = &config.rls else {
            return Ok(started);
        };
        let opened = sockets.open(&HashSet::from([rls.listen]), threads)?;
        let own = sockets.keep(opened);
        let service = Service {
            domains: Arc::clone(&started.domains),
            clock: Arc::new(move || clock.both()),
            counters: Arc::clone(&started.counters),
            response_headers: rls.response_headers,
        };
        let server =
            privileges::without(|| Server::start(own, &service).map_err(std::io::Error::other))
                .context("cannot start the rate limit service")?;
        server.say_serving(true).await;
        tracing::info!(address = %rls.listen, threads, "rate limit service");
        started.server = Some(server);
        Ok(started)
    }

    pub(super) const fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Puts the domains of a plan in force; requests under way are not touched.
    pub(super) fn follow(&self, plan: &Plan, state: &State) {
        self.domains
            .store(Arc::new(Domains::compile(&plan.domains, state)));
    }

    /// Returns when a thread has ended that was not told to.
    pub(super) async fn died(&mut self) {
        match &mut self.server {
            Some(server) => server.died().await,
            None => std::future::pending().await,
        }
    }

    /// Finishes what is in flight, until `cut`; `false`: a thread panicked.
    pub(super) fn drain<F: Future<Output = ()>>(
        &mut self,
        shared: bool,
        within: Duration,
        cut: F,
    ) -> impl Future<Output = bool> + use<F> {
        let server = self.server.take();
        async move {
            match server {
                Some(server) => server.drain(shared, within, cut).await,
                None => true,
            }
        }
    }

    /// Says by gRPC health that it is going to end.
    pub(super) async fn leave(&self) {
        if let Some(server) = &self.server {
            server.say_serving(false).await;
        }
    }
}

/// Says that its limits are per node: there is no store yet that nodes share.
pub(super) fn warn_of_domains(plan: &Plan) {
    if plan.daemon.rls.is_some() && !plan.domains.is_empty() {
        tracing::warn!("the rate limit service counts on this node for itself: no store is shared");
    }
}
