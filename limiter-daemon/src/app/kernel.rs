//! The kernel half, as the control thread looks after it.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::Daemon;
use crate::l4::offenders::Offenders;
use crate::l4::{self, Events, Kernel};
use crate::policy::plan::{DaemonConfig, Plan};

/// How often the samples of dropped packets are looked at.
const SAMPLING: Duration = Duration::from_millis(50);

impl Daemon {
    /// Says that the daemon lives, ends sentences that are served, and attaches to interfaces that
    /// have come back.
    pub(super) fn look_after_kernel(&self) {
        let Some(kernel) = &self.kernel else {
            return;
        };
        if let Some(blocking) = &self.blocking {
            blocking.blocks.expire((blocking.clock)());
        }
        if self.hand_over.is_under_way() {
            // What is attached is the new process' business from now on.
            if let Err(error) = lock(kernel).beat() {
                tracing::error!(%error, "the kernel half cannot be looked after");
            }
            return;
        }
        let notes = describe(kernel);
        let mut locked = lock(kernel);
        let mut look_after = || {
            locked.beat()?;
            locked.expire(l4::clock::now())?;
            let lost = locked.samples_lost()?;
            let mut offenders = self
                .offenders
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            offenders.note_lost(lost);
            locked.reattach()
        };
        if let Err(error) = look_after() {
            tracing::error!(%error, "the kernel half cannot be looked after");
        }
        drop(locked);
        let now = describe(kernel);
        if now != notes {
            self.status.note(now);
        }
    }
}

pub(super) fn lock(kernel: &Mutex<Kernel>) -> MutexGuard<'_, Kernel> {
    kernel.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts the samples of dropped packets. The ring holds far more than come between two looks. It is
/// for one reader: not while another process reads it.
pub(super) async fn sample(
    mut events: Events,
    offenders: Arc<Mutex<Offenders>>,
    not_sampling: Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let mut look = tokio::time::interval(SAMPLING);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        if not_sampling.load(Ordering::Relaxed) {
            continue;
        }
        let mut offenders = offenders.lock().unwrap_or_else(PoisonError::into_inner);
        events.drain(|event| offenders.record(event));
    }
}

/// Starts it, with what a daemon gave whose place is taken.
pub(super) fn start(
    config: &DaemonConfig,
    plan: &Plan,
    given: Option<File>,
) -> anyhow::Result<Option<Arc<Mutex<Kernel>>>> {
    match Kernel::take_over(config, &plan.network, given) {
        Ok(_nothing) if config.interfaces.is_empty() => Ok(None),
        Ok(kernel) => Ok(Some(Arc::new(Mutex::new(kernel)))),
        Err(error) if config.interfaces.is_empty() => {
            tracing::warn!(%error, "what an earlier run left in the kernel cannot be removed");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) fn describe(kernel: &Mutex<Kernel>) -> Vec<String> {
    let kernel = lock(kernel);
    let describe = |a: &l4::Attachment| {
        let adopted = if a.adopted {
            ", adopted from an earlier run"
        } else {
            ""
        };
        let renamed = a.renamed.as_ref();
        let renamed = renamed.map_or_else(String::new, |now| format!(", now called {now}"));
        format!("xdp: {} {}{adopted}{renamed}", a.interface, a.mode.name())
    };
    kernel.attachments().iter().map(describe).collect()
}
