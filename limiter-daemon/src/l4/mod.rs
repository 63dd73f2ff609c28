//! The kernel half as the daemon sees it: the XDP program and its maps.
//!
//! What is in the kernel outlives the daemon. Maps and links are pinned under
//! `<pinPath>/v<ABI version>`; a daemon that dies leaves its last policies enforced, and the next
//! one adopts them: the maps by their pins, so that no source gets a fresh bucket, and the
//! attachments by an atomic update of their links, so that no packet goes unjudged.
//!
//! No task and no clock here: `app` calls in, and gets an answer.

mod attach;
mod device;
mod error;
mod load;
mod maps;
mod pins;
pub mod probe;
mod sync;
pub mod trial;

use aya::Ebpf;
use limiter_common::{Reason, Verdict};

pub use self::attach::{Attachment, Mode};
pub use self::error::L4Error;
use self::maps::Tables;
use self::pins::Pins;
use crate::policy::plan::{DaemonConfig, NetworkPolicy, OnExit};

/// A running kernel half. Dropping it leaves everything in force; see [`Kernel::stop`].
#[derive(Debug)]
pub struct Kernel {
    /// `None`: no interface is configured, and nothing is loaded.
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    /// Keeps the program and its links open.
    ebpf: Ebpf,
    tables: Tables,
    attachments: Vec<Attachment>,
    /// Keeps other daemons off the pin path.
    pins: Pins,
}

/// Packets with the same fate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// `namespace/name`; `None` for packets that no policy has a say in.
    pub policy: Option<String>,
    pub reason: Reason,
    pub packets: u64,
}

impl Kernel {
    /// Loads the program, puts `policies` in force and attaches to the interfaces, in this order.
    /// Adopts what an earlier daemon left under the same pin path, and removes what of it is out of
    /// date. Without interfaces, only the latter.
    ///
    /// # Errors
    /// What is missing or in the way; then nothing new stays attached.
    pub fn start(config: &DaemonConfig, policies: &[NetworkPolicy]) -> Result<Self, L4Error> {
        if config.interfaces.is_empty() {
            pins::clear(&config.pin_path)?;
            return Ok(Self { running: None });
        }
        let interfaces = attach::resolve(&config.interfaces)?;
        let pins = Pins::open(&config.pin_path)?;
        match enforce(config, policies, &interfaces, &pins) {
            Ok((ebpf, tables, attachments)) => Ok(Self {
                running: Some(Running {
                    ebpf,
                    tables,
                    attachments,
                    pins,
                }),
            }),
            Err(error) => {
                // Where nothing is attached, maps alone are of no use to anybody.
                if pins.linked()?.is_empty() {
                    pins.remove()?;
                }
                Err(error)
            }
        }
    }

    /// Puts `policies` in force instead of those before. Buckets keep their state, and every port
    /// changes in one step.
    ///
    /// # Errors
    /// Policies that do not fit are refused as a whole. If a map cannot be written, some ports may
    /// have changed and others not; calling again mends it.
    pub fn apply(&mut self, policies: &[NetworkPolicy]) -> Result<(), L4Error> {
        match &mut self.running {
            Some(running) => sync::sync(&mut running.tables, policies),
            None => Ok(()),
        }
    }

    /// Where the program is attached, and how.
    #[must_use]
    pub fn attachments(&self) -> &[Attachment] {
        self.running
            .as_ref()
            .map_or(&[], |running| &running.attachments)
    }

    /// Every packet seen so far, by policy and reason. Counts go on over reloads and restarts.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn counters(&self) -> Result<Vec<Counter>, L4Error> {
        self.running
            .as_ref()
            .map_or(Ok(Vec::new()), |running| read_counters(&running.tables))
    }

    /// Ends the daemon's part. With [`OnExit::Detach`] nothing is left in the kernel; with
    /// [`OnExit::Keep`] the last policies stay in force.
    ///
    /// # Errors
    /// The first pin that could not be removed.
    pub fn stop(&mut self, on_exit: OnExit) -> Result<(), L4Error> {
        let Some(running) = self.running.take() else {
            return Ok(());
        };
        match on_exit {
            OnExit::Keep => Ok(()),
            OnExit::Detach => {
                // Closes the links that were adopted; the pins hold them still.
                drop(running.ebpf);
                running.pins.remove()
            }
        }
    }
}

/// Loads, puts the policies in force, then attaches: the first packet meets the right limits.
fn enforce(
    config: &DaemonConfig,
    policies: &[NetworkPolicy],
    interfaces: &[attach::Target<'_>],
    pins: &Pins,
) -> Result<(Ebpf, Tables, Vec<Attachment>), L4Error> {
    pins.discard_misfits(config.max_sources)?;
    let mut ebpf = load::load(&load::Options {
        max_sources: config.max_sources,
        pins: Some(pins),
        test_clock: false,
        vary_sources: 0,
    })?;
    let mut tables = Tables::take(&mut ebpf)?;
    sync::sync(&mut tables, policies)?;
    let program = load::program(&mut ebpf, load::LIMITER)?;
    let attachments = attach::attach_all(program, interfaces, pins)?;
    Ok((ebpf, tables, attachments))
}

/// The counters of all ids in use; of those reasons only that can occur under the id.
fn read_counters(tables: &Tables) -> Result<Vec<Counter>, L4Error> {
    let mut counters = Vec::new();
    let mut add = |policy: Option<&String>, id, reasons: &[Reason]| {
        for &reason in reasons {
            let packets = tables.count(Verdict::new(id, reason))?;
            counters.push(Counter {
                policy: policy.cloned(),
                reason,
                packets,
            });
        }
        Ok(())
    };
    let (without, with) = Reason::ALL.split_at(Reason::Conforming as usize);
    add(None, 0, without)?;
    for (id, name) in &sync::names(tables)? {
        add(Some(name), *id, with)?;
    }
    Ok(counters)
}
