//! The kernel half as one object, for `app`.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use aya::Ebpf;
use ipnet::IpNet;
use limiter_common::{Address, Protocol};

use super::attach::{self, Attachment};
use super::counters::{self, Counter, Occupancy, Pressure};
use super::error::L4Error;
use super::events::Events;
use super::explain::{self, BucketState, Destination, Explanation, Place, PolicyState};
use super::maps::{self, Sizes, Tables};
use super::pins::{self, Pins};
use super::state::State;
use super::{clock, device, load, privilege, sentences};
use crate::engine::fleet::Sentence;
use crate::policy::plan::{DaemonConfig, Interface, NetworkPolicy, OnExit};

/// A running kernel half. Dropping it leaves everything in force; see [`Kernel::stop`].
#[derive(Debug)]
pub struct Kernel {
    /// `None`: no interface is configured, and nothing is loaded.
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    /// Keeps the programs open, for interfaces that come back.
    ebpf: Ebpf,
    state: State,
    events: Option<Events>,
    interfaces: Vec<Interface>,
    attachments: Vec<Attachment>,
    /// Keeps other daemons off the pin path.
    pins: Pins,
}

impl Kernel {
    /// Loads the program, puts `policies` in force and attaches to the interfaces, in this order.
    /// Adopts what an earlier daemon left under the same pin path, and removes what of it is out of
    /// date. Without interfaces, only the latter.
    ///
    /// # Errors
    /// What is missing or in the way; then nothing new stays attached.
    pub fn start(config: &DaemonConfig, policies: &[NetworkPolicy]) -> Result<Self, L4Error> {
        Self::take_over(config, policies, None)
    }

    /// As [`Kernel::start`], beside a daemon that runs and gave away a copy of its [`Kernel::lock`].
    ///
    /// # Errors
    /// As there.
    pub fn take_over(
        config: &DaemonConfig,
        policies: &[NetworkPolicy],
        lock: Option<File>,
    ) -> Result<Self, L4Error> {
        if config.interfaces.is_empty() {
            pins::clear(&config.pin_path)?;
            return Ok(Self { running: None });
        }
        load::check_kernel()?;
        privilege::check().map_err(L4Error::Unprivileged)?;
        let targets = attach::resolve(&config.interfaces)?;
        let pins = Pins::open(&config.pin_path, lock)?;
        match enforce(config, policies, &targets, &pins) {
            Ok((ebpf, state, events, attachments)) => Ok(Self {
                running: Some(Running {
                    ebpf,
                    state,
                    events: Some(events),
                    interfaces: config.interfaces.clone(),
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

    /// What keeps other daemons off the pin path, for as long as any process has a copy of it open.
    /// `None`: nothing is loaded.
    #[must_use]
    pub fn lock(&self) -> Option<BorrowedFd<'_>> {
        let running = self.running.as_ref()?;
        Some(running.pins.lock())
    }

    /// Puts `policies` in force instead of those before, for every packet at once. Buckets keep their
    /// state.
    ///
    /// # Errors
    /// Policies that do not fit are refused as a whole. If a map cannot be written, the policies
    /// before stay in force.
    pub fn apply(&mut self, policies: &[NetworkPolicy]) -> Result<(), L4Error> {
        let Some(running) = &mut self.running else {
            return Ok(());
        };
        let State {
            generations,
            tables,
            ..
        } = &mut running.state;
        let index = |name: &str| index_of(&running.attachments, name);
        generations.apply_on(tables, policies, index)
    }

    /// Attaches to configured interfaces that have come (back) since; for a timer. Those that are
    /// gone leave [`Kernel::attachments`]; one that was renamed stays there until another has the
    /// configured name.
    ///
    /// # Errors
    /// The first interface that could not be attached to; the others are.
    pub fn reattach(&mut self) -> Result<(), L4Error> {
        let Some(running) = &mut self.running else {
            return Ok(());
        };
        let result = attach::follow(
            &mut running.ebpf,
            &running.interfaces,
            &mut running.attachments,
            &running.pins,
        );
        let state = &mut running.state;
        let index = |name: &str| index_of(&running.attachments, name);
        state.generations.retarget(&mut state.tables, index)?;
        result
    }

    /// Where the program is attached, and how.
    #[must_use]
    pub fn attachments(&self) -> &[Attachment] {
        self.running
            .as_ref()
            .map_or(&[], |running| &running.attachments)
    }

    /// Says that the daemon lives. To be called well within the time that `onDaemonLost` states.
    ///
    /// # Errors
    /// If the kernel refuses the write.
    pub fn beat(&mut self) -> Result<(), L4Error> {
        self.with(|state| state.tables.beat(clock::now()))
    }

    /// Drops everything that comes from a network to what a policy targets, until a moment by
    /// [`clock::now`], except where the policy allows it. A network that is blocked for longer stays
    /// so, and is of the given origin; one inside a network that is blocked at least as long is not
    /// noted.
    ///
    /// # Errors
    /// If there are too many sentences already.
    pub fn block(&mut self, sentence: &Sentence) -> Result<(), L4Error> {
        self.with(|state| state.sentences.block(&mut state.tables, sentence))
    }

    /// Ends the sentence of `net`; `false` if it has none. Sentences of networks around it or inside
    /// it go on.
    ///
    /// # Errors
    /// If the kernel refuses the write.
    pub fn unblock(&mut self, net: IpNet) -> Result<bool, L4Error> {
        self.with(|state| state.sentences.unblock(&mut state.tables, &net))
    }

    /// The sentences, by network.
    #[must_use]
    pub fn sentences(&self) -> Vec<Sentence> {
        let state = self.running.as_ref().map(|running| &running.state);
        state.map_or_else(Vec::new, |state| state.sentences.list())
    }

    /// Forgets the sentences that are over at `now`; how many they were. They have no effect any
    /// more, but they take room.
    ///
    /// # Errors
    /// If the kernel refuses the write.
    pub fn expire(&mut self, now: u64) -> Result<usize, L4Error> {
        self.with(|state| state.sentences.expire(&mut state.tables, now))
    }

    /// Every packet seen so far, by policy, level and reason. Counts go on over reloads and restarts.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn counters(&self) -> Result<Vec<Counter>, L4Error> {
        self.read(counters::read)
    }

    /// The policies that have an id, by id.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn policy_names(&self) -> Result<BTreeMap<u32, String>, L4Error> {
        self.read(super::sync::names)
    }

    /// How hard the table of sources is pressed.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn pressure(&self) -> Result<Pressure, L4Error> {
        self.read(counters::pressure)
    }

    /// What the table of sources holds. Reads all of it: not for every scrape.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn occupancy(&self) -> Result<Occupancy, L4Error> {
        self.read(|tables| counters::occupancy(tables, clock::now()))
    }

    /// Drops of which no sample was sent: over the cap, or nobody took them in time.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn samples_lost(&self) -> Result<u64, L4Error> {
        self.read(Tables::lost)
    }

    /// The samples of dropped packets. Given away once.
    pub fn events(&mut self) -> Option<Events> {
        self.running.as_mut()?.events.take()
    }

    /// What the policy with this id says of `source` now; `None` if it is not in force.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn explain_policy(
        &self,
        policy: u32,
        source: Address,
    ) -> Result<Option<PolicyState>, L4Error> {
        let Some(Running { state, .. }) = &self.running else {
            return Ok(None);
        };
        let State {
            tables,
            generations,
            ..
        } = state;
        explain::explain_policy(tables, generations, policy, source, clock::now())
    }

    /// What the policy `name` says of `source` now; `None`: it is not in force.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn explain_named(
        &self,
        name: &str,
        source: IpAddr,
    ) -> Result<Option<PolicyState>, L4Error> {
        let names = self.policy_names()?;
        let source = sentences::address(source);
        for (id, _) in names.iter().filter(|(_, one)| *one == name) {
            if let Some(state) = self.explain_policy(*id, source)? {
                return Ok(Some(state));
            }
        }
        Ok(None)
    }

    /// Makes those of the buckets full that have a place of their own; how many they were. Cells of the
    /// sketch are other sources' as well.
    ///
    /// # Errors
    /// If the kernel refuses the write.
    pub fn refill(&mut self, buckets: &[BucketState]) -> Result<usize, L4Error> {
        self.with(|state| {
            let own = buckets.iter().filter(|one| one.place == Place::Table);
            let mut filled = 0;
            for bucket in own {
                explain::refill(&mut state.tables, bucket)?;
                filled += 1;
            }
            Ok(filled)
        })
    }

    /// What would become of packets from `source` to a port (0 for ICMP) now, and why. `None` if
    /// nothing is loaded.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn explain(
        &self,
        source: IpAddr,
        protocol: Protocol,
        port: u16,
    ) -> Result<Option<Explanation>, L4Error> {
        let Some(running) = &self.running else {
            return Ok(None);
        };
        let destination = Destination {
            protocol,
            port,
            ifindex: running.attachments.first().map(|a| a.ifindex),
        };
        running
            .state
            .explain(source, destination, clock::now())
            .map(Some)
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
                running.attachments.iter().for_each(Attachment::let_go);
                running.pins.remove()
            }
        }
    }

    fn with<T: Default>(
        &mut self,
        change: impl FnOnce(&mut State) -> Result<T, L4Error>,
    ) -> Result<T, L4Error> {
        match &mut self.running {
            Some(running) => change(&mut running.state),
            None => Ok(T::default()),
        }
    }

    fn read<T: Default>(
        &self,
        read: impl FnOnce(&Tables) -> Result<T, L4Error>,
    ) -> Result<T, L4Error> {
        match &self.running {
            Some(running) => read(&running.state.tables),
            None => Ok(T::default()),
        }
    }
}

/// The interface that a name in the configuration stands for.
fn index_of(attachments: &[Attachment], name: &str) -> Option<u32> {
    let attached = attachments.iter().find(|one| one.interface == name);
    attached
        .map(|attachment| attachment.ifindex)
        .or_else(|| device::index(name).ok())
}

/// Loads, puts the policies in force, then attaches: the first packet meets the right limits.
fn enforce(
    config: &DaemonConfig,
    policies: &[NetworkPolicy],
    targets: &[attach::Target<'_>],
    pins: &Pins,
) -> Result<(Ebpf, State, Events, Vec<Attachment>), L4Error> {
    let sizes = Sizes::new(config.max_sources, config.sketch_cells);
    pins.discard_misfits(sizes)?;
    let mut ebpf = load::load(&load::Options {
        sizes,
        pins: Some(pins),
        test_clock: false,
        vary_sources: 0,
    })?;
    let events = Events(maps::take_events(&mut ebpf)?);
    let mut state = State::take(&mut ebpf, config)?;
    state.generations.apply(&mut state.tables, policies)?;
    let attachments = attach::attach_all(&mut ebpf, targets, pins)?;
    Ok((ebpf, state, events, attachments))
}
