//! What goes on beside the requests to backends: names are resolved, endpoints are checked.

use std::sync::Arc;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::Daemon;
use crate::engine::Engine;
use crate::engine::state::State;
use crate::engine::upstream::splitmix64;
use crate::l7::clock::Clock;
use crate::l7::dns::{self, Change, Resolver};
use crate::l7::health_check::HealthChecker;
use crate::l7::{Active, ActiveError, Surroundings};
use crate::policy::plan::{Dns, Plan};

/// The background of the backends in force.
pub(super) struct Backends {
    resolver: Arc<Resolver>,
    checker: HealthChecker,
    /// Names have other addresses.
    changed: Arc<Notify>,
}

impl Backends {
    /// Makes the first plan ready, and begins to resolve its names.
    pub(super) fn start(
        plan: &Plan,
        state: &Arc<State>,
        clock: Clock,
    ) -> Result<(Self, Arc<ArcSwap<Active>>), ActiveError> {
        let engine = Engine::compile(plan, state);
        let around = Surroundings {
            state,
            names: &|_, _| None,
            now: clock.now(),
        };
        let active = Active::new(plan, engine, &around, None)?;
        let active = Arc::new(ArcSwap::from_pointee(active));
        let changed = Arc::new(Notify::new());
        let on_change = {
            let (active, state) = (Arc::clone(&active), Arc::clone(state));
            let changed = Arc::clone(&changed);
            move |names: &Resolver, change: Change<'_>| {
                let known = |host: &str, dns: &Dns| names.addresses(host, dns);
                let around = Surroundings {
                    state: &state,
                    names: &known,
                    now: clock.now(),
                };
                resolve(&active.load(), Some(&change), &around);
                changed.notify_one();
            }
        };
        let resolver = Resolver::new(dns::Source::System, clock, Box::new(on_change));
        resolver.apply(plan);
        let mut backends = Self {
            resolver,
            checker: HealthChecker::new(clock),
            changed,
        };
        backends.look_after(&active.load(), state, clock);
        Ok((backends, active))
    }

    pub(super) const fn resolver(&self) -> &Arc<Resolver> {
        &self.resolver
    }

    /// Makes `plan` ready to follow `previous`.
    pub(super) fn follow(
        &self,
        plan: &Plan,
        state: &State,
        now: u64,
        previous: &Active,
    ) -> Result<Active, ActiveError> {
        let engine = Engine::compile(plan, state);
        let around = Surroundings {
            state,
            names: &|host, dns| self.resolver.addresses(host, dns),
            now,
        };
        Active::new(plan, engine, &around, Some(previous))
    }

    /// Resolves the names of `plan`, which is in force as `active` now. What they have become since
    /// that was made ready is taken over.
    pub(super) fn in_force(&self, plan: &Plan, active: &Active, state: &State, now: u64) {
        self.resolver.apply(plan);
        let around = Surroundings {
            state,
            names: &|host, dns| self.resolver.addresses(host, dns),
            now,
        };
        resolve(active, None, &around);
    }

    /// Checks the endpoints of `active` from now on.
    pub(super) fn look_after(&mut self, active: &Active, state: &State, clock: Clock) {
        let (checked, watched) = active.looked_after(state);
        self.checker
            .apply(checked, watched, splitmix64(clock.now()));
    }

    /// Returns when endpoints have changed.
    ///
    /// # Errors
    /// A task has died.
    pub(super) async fn event(&mut self) -> anyhow::Result<()> {
        tokio::select! {
            () = self.changed.notified() => Ok(()),
            died = self.checker.died() => {
                Err(anyhow::Error::from(died)).context("a health check died")
            }
        }
    }
}

fn resolve(active: &Active, change: Option<&Change<'_>>, around: &Surroundings<'_>) {
    if let Err(error) = active.resolve(change, around) {
        tracing::error!(%error, "what a name has become is of no use");
    }
}

impl Daemon {
    /// Checks the endpoints that there are now.
    pub(super) fn look_after_backends(&mut self) {
        let active = self.active.load();
        self.backends.look_after(&active, &self.state, self.clock);
    }
}
