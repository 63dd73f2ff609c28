//! What blocks, and this node's part in the fleet: the table of blocks, the kernel half that enforces
//! it, and the task that follows the store.

use std::sync::{Arc, Mutex};

use ipnet::IpNet;
use rustix::system::uname;
use tokio::task::JoinSet;

use super::escalation::Outcome;
use super::kernel::lock;
use crate::admin::Blocking;
use crate::engine::fleet::{Alive, Blocks, Cause, Event, Gate, GateError, Scope, Sentence, Told};
use crate::engine::time::Now;
use crate::global::RedisLedger;
use crate::global::fleet::{Clock, Fleet, Me};
use crate::l4::{self, Kernel};
use crate::l7::clock::wall;
use crate::policy::plan::DaemonConfig;

/// The name of this node: the host's.
pub(super) fn name() -> String {
    uname().nodename().to_string_lossy().into_owned()
}

/// The store that the nodes of the fleet share.
#[derive(Clone, Copy)]
pub(super) struct Shared<'a> {
    pub(super) ledger: &'a Arc<RedisLedger>,
    /// Where is told how many nodes live.
    pub(super) alive: &'a Arc<Alive>,
}

/// Starts what blocks; `None`: there is neither a kernel half to enforce it nor a store to tell.
pub(super) fn start(
    config: &DaemonConfig,
    store: Option<Shared<'_>>,
    kernel: Option<&Arc<Mutex<Kernel>>>,
    told: Arc<Outcome>,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<Option<Blocking>> {
    if store.is_none() && kernel.is_none() {
        return Ok(None);
    }
    let clock: Clock = Arc::new(now);
    let gate = Arc::new(KernelGate {
        kernel: kernel.cloned(),
        told,
    });
    let blocks = Arc::new(Blocks::adopt(gate, store.is_some(), now()));
    let fleet = match store {
        None => None,
        Some(Shared { ledger, alive }) => {
            let prefix = config.store.as_ref().map_or("", |store| &store.prefix);
            let me = Me {
                name: name(),
                address: config.admin.to_string(),
                version: env!("CARGO_PKG_VERSION"),
            };
            let (fleet, driver) = Fleet::join(
                (ledger, prefix),
                Arc::clone(alive),
                me,
                Arc::clone(&blocks),
                Arc::clone(&clock),
            )?;
            tasks.spawn(async move {
                driver.run().await;
                // It has left, and the daemon ends when it has drained.
                std::future::pending().await
            });
            Some(Arc::new(fleet))
        }
    };
    Ok(Some(Blocking {
        blocks,
        fleet,
        clock,
        name: name(),
        enforced: kernel.is_some(),
    }))
}

/// By the kernel's clock and the time of day.
fn now() -> Now {
    let unix = wall().duration_since(std::time::UNIX_EPOCH);
    let unix = unix.map_or(0, |since| since.as_nanos());
    Now {
        mono: l4::clock::now(),
        unix: u64::try_from(unix).unwrap_or(u64::MAX),
    }
}

/// The kernel half, if there is one.
#[derive(Debug)]
struct KernelGate {
    kernel: Option<Arc<Mutex<Kernel>>>,
    /// Tells on what comes of blocks.
    told: Arc<Outcome>,
}

impl Gate for KernelGate {
    fn block(&self, sentence: Sentence) -> Result<(), GateError> {
        let Some(kernel) = &self.kernel else {
            return Ok(());
        };
        let blocked = lock(kernel).block(&sentence);
        blocked.map_err(|error| GateError(error.to_string()))
    }

    fn lift(&self, net: IpNet) -> Result<(), GateError> {
        let Some(kernel) = &self.kernel else {
            return Ok(());
        };
        // One that a wider one hid is not there.
        let lifted = lock(kernel).unblock(net).map(|_was_there| ());
        lifted.map_err(|error| GateError(error.to_string()))
    }

    fn served(&self) -> Vec<Sentence> {
        let kernel = self.kernel.as_ref();
        kernel.map_or_else(Vec::new, |kernel| lock(kernel).sentences())
    }

    fn note(&self, event: Event, told: Told<'_>) {
        self.told.saw(event, &told);
        let Told {
            net, scope, cause, ..
        } = told;
        let scope = match scope {
            Scope::Node => "node",
            Scope::Fleet => "fleet",
        };
        let Cause { by, why, rule } = cause;
        match event {
            Event::Failed => {
                tracing::error!(%net, error = why, "a block cannot be changed in the kernel");
            }
            Event::GaveWay => tracing::warn!(%net, scope, why, "a block gives way"),
            Event::Blocked | Event::Lifted | Event::Sent | Event::Resynced => {
                tracing::info!(%net, scope, by, why, rule, "{}", event.name());
            }
        }
    }
}
