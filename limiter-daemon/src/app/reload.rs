//! Reading the policy files, at the start and again.

use std::path::Path;
use std::sync::Arc;

use anyhow::bail;

use super::kernel::lock;
use super::service::warn_of_domains;
use super::sockets::binds;
use super::{Daemon, notify, watch};
use crate::admin::Trigger;
use crate::l7::clock::wall;
use crate::policy::{self, Outcome, Plan, Severity};

/// Reads the policy files; findings are logged, errors only where there is something to go on with.
/// What is not valid stays as it was in `previous`.
pub(super) fn load(dir: &Path, previous: Option<&Outcome>) -> Outcome {
    let outcome = match previous {
        Some(previous) => policy::reload(dir, previous),
        None => policy::load(dir),
    };
    for finding in &outcome.diagnostics {
        match finding.severity {
            Severity::Warning => tracing::warn!("{finding}"),
            Severity::Error if outcome.plan.is_some() => tracing::error!("{finding}"),
            Severity::Error => {}
        }
    }
    outcome
}

/// Every error, a line each.
pub(super) fn errors(outcome: &Outcome) -> String {
    let errors = outcome
        .diagnostics
        .iter()
        .filter(|finding| finding.severity == Severity::Error);
    let lines: Vec<_> = errors.map(ToString::to_string).collect();
    lines.join("\n")
}

impl Daemon {
    /// Puts the policy files in force if they are others than those that were read last.
    pub(super) async fn files_changed(&mut self) {
        if watch::fingerprint(&self.dir) == self.fingerprint {
            tracing::debug!("the policy files are what they were");
        } else {
            self.reload(Trigger::FileChange).await;
        }
    }

    /// Puts the policy files as they are now in force; of what is not valid, the last good version
    /// stays.
    pub(super) async fn reload(&mut self, trigger: Trigger) {
        notify::reloading();
        self.lines.tell_left_out();
        // Before they are read: what changes meanwhile is another change.
        self.fingerprint = watch::fingerprint(&self.dir);
        let outcome = load(&self.dir, Some(&self.outcome));
        let errors = errors(&outcome);
        let result = match outcome.plan.clone() {
            Some(plan) => self.put_in_force(plan).await,
            None => Err(anyhow::anyhow!("{errors}")),
        };
        match result {
            Ok(plan) => {
                self.loads.applied(plan, &outcome, trigger, wall());
                if errors.is_empty() {
                    self.status.reloaded();
                    tracing::info!(trigger = trigger.name(), "policy reloaded");
                } else {
                    let kept = outcome.kept.join(", ");
                    tracing::error!(kept, "policy reloaded, without what is not valid");
                    self.status.rejected(errors);
                }
                self.outcome = outcome;
            }
            Err(error) => {
                let reason = format!("{error:#}");
                tracing::error!(%reason, "reload rejected, the previous policy goes on");
                self.loads
                    .rejected(reason.clone(), &outcome, trigger, wall());
                self.status.rejected(reason);
            }
        }
        notify::ready();
    }

    async fn put_in_force(&mut self, plan: Plan) -> anyhow::Result<Plan> {
        if self.config.store.is_none() {
            warn_of_global_limits(&plan);
            warn_of_domains(&plan);
        }
        let mut config = self.config.clone();
        config.log = plan.daemon.log;
        if plan.daemon != config {
            tracing::warn!(
                "changes of the LimiterConfig, and of the EnvoyGateway, take effect at the next start"
            );
        }
        if self.kernel.is_none() && !self.config.interfaces.is_empty() {
            bail!("the kernel half is not running");
        }
        let mut wanted = binds(&plan);
        wanted.extend(self.config.rls.as_ref().map(|rls| rls.listen));
        let opened = self.sockets.open(&wanted, self.worker_count)?;
        let now = self.clock.now();
        let active = self
            .backends
            .follow(&plan, &self.state, now, &self.active.load())?;
        if let Some(kernel) = &self.kernel {
            lock(kernel).apply(&plan.network)?;
        }
        // Whoever was let in at an address that goes is served by the policy that has it.
        self.sockets.close_others(&wanted, &self.workers).await;
        self.state.runtime().follow(&plan.runtime);
        self.guard.follow(&plan);
        if config.log != self.config.log {
            self.lines.follow(&config.log);
            self.config = config;
        }
        self.active.store(Arc::new(active));
        self.sentencing.safe.follow(&plan);
        self.service.follow(&plan, &self.state);
        let active = self.active.load();
        let now = self.clock.now();
        self.backends.in_force(&plan, &active, &self.state, now);
        self.look_after_backends();
        self.sockets.serve(opened, &self.workers).await;
        self.fd_store.follow(&self.sockets, &self.admin_socket);
        Ok(plan)
    }
}

/// Says that global limits are per node, where there is no store that nodes share.
pub(super) fn warn_of_global_limits(plan: &Plan) {
    let routes = plan.listeners.iter().flat_map(|listener| &listener.routes);
    let mut rules = routes.flat_map(|route| &route.rules);
    if rules.any(|rule| !rule.limits.global.is_empty()) {
        tracing::warn!(
            "global limits are counted by each node for itself: name a store in rateLimit of the \
             EnvoyGateway or LimiterConfig"
        );
    }
}
