//! The end: readiness fails first, clients are asked to go, and what is in flight is finished.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::kernel::lock;
use super::{Daemon, Ended, Signals, TICK, notify};
use crate::global::fleet::Fleet;
use crate::policy::plan::OnExit;

/// How long the writer of the access log may take for the last lines.
const LOG_PATIENCE: Duration = Duration::from_secs(2);
/// How long the last spans may take.
const TRACES_PATIENCE: Duration = Duration::from_secs(2);
/// How long answers of the admin listener may take that are under way at the very end.
const ADMIN_PATIENCE: Duration = Duration::from_secs(1);

impl Daemon {
    /// Drains, leaves in the kernel what the policy says, and passes on why.
    pub(super) async fn stop(mut self, ended: Ended, signals: &mut Signals) -> anyhow::Result<()> {
        notify::stopping();
        let mut tick = tokio::time::interval(TICK);
        let (mut cut, mut shared) = (false, Vec::new());
        // Who comes now to take over finds nobody, and binds as soon as the addresses are free.
        self.hand_over.close();
        let fleet = self.blocking.take().and_then(|blocking| blocking.fleet);
        match &ended {
            Ended::Told => {
                self.status.draining();
                self.service.leave().await;
                let delay = self.delay();
                if !delay.is_zero() {
                    tracing::info!(?delay, "not ready any more, and serving for a while");
                    self.workers.leave(delay).await;
                    let mut over = std::pin::pin!(sleep(delay));
                    loop {
                        tokio::select! {
                            () = &mut over => break,
                            () = signals.stop() => {
                                cut = true;
                                break;
                            }
                            // A daemon that asks for nothing new is still one that lives.
                            _ = tick.tick() => {
                                self.watchdog.alive();
                                self.look_after_kernel();
                            }
                        }
                    }
                }
            }
            Ended::Failed(_) => self.status.failed(),
            Ended::Taken(taken) => {
                // Whoever asks from now on is to be answered by the new process, which is ready: what is
                // asked here at this moment does not say otherwise.
                self.stop_admin.send_replace(true);
                shared = self.sockets.addresses();
                shared.retain(|address| !taken.left_over.contains(address));
                // The new process is a node of its own, and is counted already.
                let left = leave(fleet.as_deref());
                tokio::join!(self.workers.share(&shared), left);
            }
        }
        if !matches!(ended, Ended::Taken(_)) {
            // Who comes now waits for the next process.
            shared = self.sockets.addresses();
            shared.retain(|address| self.fd_store.keeps(address));
            self.workers.share(&shared).await;
        }
        let kernel_taken = matches!(&ended, Ended::Taken(taken) if taken.kernel);
        let within = if cut {
            Duration::ZERO
        } else {
            self.config.drain_timeout
        };
        tracing::info!(timeout = ?within, "draining");
        self.sockets.let_go(&shared);
        let workers = std::mem::take(&mut self.workers);
        let mut drained = workers.drain(within).await;
        let rls_shared = self
            .config
            .rls
            .as_ref()
            .is_some_and(|rls| shared.contains(&rls.listen));
        let cut_service = Notify::new();
        let serviced = self
            .service
            .drain(rls_shared, within, cut_service.notified());
        let mut serviced = std::pin::pin!(serviced);
        let mut service_well = None;
        let well = loop {
            tokio::select! {
                well = drained.ended(), if service_well.is_some() => break well,
                well = &mut serviced, if service_well.is_none() => service_well = Some(well),
                () = signals.stop() => {
                    tracing::warn!("told to stop once more: what is in flight is cut off");
                    cut_service.notify_one();
                    drained.cut().await;
                }
                _ = tick.tick() => {
                    self.watchdog.alive();
                    if !kernel_taken {
                        self.look_after_kernel();
                    }
                }
            }
        };
        if let Some(held) = &self.held {
            held.end(self.clock.both()).await;
        }
        if !matches!(ended, Ended::Taken(_)) {
            leave(fleet.as_deref()).await;
        }
        if let Some(log) = self.log
            && !log.finish(LOG_PATIENCE)
        {
            tracing::warn!("the last lines of the access log were not written");
        }
        if let Some(traces) = self.traces
            && !traces.finish(TRACES_PATIENCE)
        {
            tracing::warn!("the last spans were not exported");
        }
        if let Some(kernel) = self.kernel {
            let on_exit = if kernel_taken {
                OnExit::Keep
            } else {
                self.config.on_exit
            };
            lock(&kernel)
                .stop(on_exit)
                .context("cannot clean up in the kernel")?;
        }
        self.stop_admin.send_replace(true);
        if timeout(ADMIN_PATIENCE, self.stop_admin.closed())
            .await
            .is_err()
        {
            tracing::debug!("questions to the admin listener were cut off");
        }
        self.lines.tell_left_out();
        if let Ended::Failed(error) = ended {
            return Err(error);
        }
        if !well || service_well == Some(false) {
            bail!("a worker panicked");
        }
        tracing::info!("stopped");
        Ok(())
    }
}

/// Says to the fleet that this node goes.
async fn leave(fleet: Option<&Fleet>) {
    if let Some(fleet) = fleet {
        fleet.leave().await;
    }
}
