//! Envoy's rate limit service: what it answers by, and its threads.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::ServerConfig;

use super::privileges;
use super::sockets::Sockets;
use crate::engine::domain::Domains;
use crate::engine::state::State;
use crate::l7::clock::Clock;
use crate::l7::tls;
use crate::policy::plan::{DaemonConfig, Plan, ServerTls};
use crate::rls::{Counters, Server, Service, Telling};
use crate::traces::Tracer;

/// The service, which is there also where it is not served.
pub(super) struct RateLimitService {
    domains: Arc<ArcSwap<Domains>>,
    counters: Arc<Counters>,
    tls: Arc<ArcSwapOption<ServerConfig>>,
    server: Option<Server>,
}

impl RateLimitService {
    /// Puts the domains in force, which limiterd may ask itself about. Binds the address, if there is
    /// one, and serves on `threads` threads.
    pub(super) async fn start(
        plan: &Plan,
        config: &DaemonConfig,
        sockets: &mut Sockets,
        threads: usize,
        (state, domains, tracer): (&Arc<State>, Arc<ArcSwap<Domains>>, Option<Arc<Tracer>>),
        clock: Clock,
    ) -> anyhow::Result<Self> {
        domains.store(Arc::new(Domains::compile(&plan.domains, state)));
        let mut started = Self {
            domains,
            counters: Arc::default(),
            tls: Arc::default(),
            server: None,
        };
        let Some(rls) = &config.rls else {
            return Ok(started);
        };
        started.tls.store(server_config(plan)?);
        let opened = sockets.open(&HashSet::from([rls.listen]), threads)?;
        let own = sockets.keep(opened);
        let service = Service {
            domains: Arc::clone(&started.domains),
            clock: Arc::new(move || clock.both()),
            counters: Arc::clone(&started.counters),
            tls: Arc::clone(&started.tls),
            telling: Arc::new(Telling {
                response_headers: rls.response_headers.clone(),
                request_headers: rls.request_headers.clone(),
                echo: rls.echo,
            }),
            store: state.domain_store().map(Arc::clone),
            tracer,
        };
        let server =
            privileges::without(|| Server::start(own, &service).map_err(std::io::Error::other))
                .context("cannot start the rate limit service")?;
        server.say_serving(true).await;
        tracing::info!(address = %rls.listen, threads, "rate limit service");
        started.server = Some(server);
        Ok(started)
    }

    pub(super) const fn domains(&self) -> &Arc<ArcSwap<Domains>> {
        &self.domains
    }

    pub(super) const fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Puts the domains and certificates of a plan in force; requests under way are not touched, and
    /// connections keep the certificate they began with. What TLS needs and is not there leaves what
    /// there was.
    pub(super) fn follow(&self, plan: &Plan, state: &State) {
        match server_config(plan) {
            Ok(config) if config.is_some() == self.tls.load().is_some() => self.tls.store(config),
            Ok(_) => tracing::warn!("`rls.tls` comes and goes at the next start"),
            Err(error) => {
                tracing::error!(%error, "rate limit service: the certificates before go on");
            }
        }
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

fn server_config(plan: &Plan) -> anyhow::Result<Option<Arc<ServerConfig>>> {
    match &plan.rls_tls {
        ServerTls::None => Ok(None),
        ServerTls::As(tls) => Ok(Some(tls::server(tls).context("`rls.tls`")?)),
        ServerTls::Broken(why) => bail!("{why}"),
    }
}

/// Says that its limits are per node, where there is no store that nodes share.
pub(super) fn warn_of_domains(plan: &Plan) {
    if plan.daemon.rls.is_some() && !plan.domains.is_empty() {
        tracing::warn!(
            "the rate limit service counts on this node for itself: name a store in rateLimit of the \
             EnvoyGateway or LimiterConfig"
        );
    }
}
