//! The programs on made-up packets: `BPF_PROG_TEST_RUN`, no interface, a clock that stands still.
//! For tests and benchmarks; needs the privilege to load BPF programs.

mod run;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use aya::maps::{Array, MapData, MapError};
use aya::{Ebpf, TestRunAttrs, TestRunOptions};
use ipnet::IpNet;
use limiter_common::Protocol;

pub use self::run::{Action, Outcome, Program, Reloader, Runner};
use super::error::L4Error;
use super::explain::Destination;
use super::maps::Sizes;
use super::state::State;
use super::{Counter, Events, Explanation, Occupancy, Pressure, counters, load, maps};
use crate::engine::fleet::{Origin, Sentence};
use crate::policy::plan::{DaemonConfig, NetworkPolicy, OnDaemonLost};

/// How to load the programs for a trial.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Sources with a place of their own in the table, at least.
    pub max_sources: u32,
    /// Cells of each row of the sketch, at least.
    pub sketch_cells: u32,
    /// How long a source keeps its place after its bucket is full again.
    pub keep: Duration,
    pub on_daemon_lost: OnDaemonLost,
    /// Read the kernel's clock instead of [`Trial::set_clock`]'s.
    pub real_clock: bool,
    /// Not 0, a power of two: draw IPv4 sources at random from so many addresses.
    pub vary_sources: u32,
}

impl Default for Settings {
    fn default() -> Self {
        let config = DaemonConfig::default();
        Self {
            max_sources: config.max_sources,
            sketch_cells: config.sketch_cells,
            keep: config.keep_sources,
            on_daemon_lost: config.on_daemon_lost,
            real_clock: false,
            vary_sources: 0,
        }
    }
}

/// Bytes of `struct __sk_buff`, and where in it the segments of a super-packet are.
const SK_BUFF: usize = 192;
const WIRE_LEN: usize = 160;
const GSO_SEGS: usize = 164;

/// Programs of its own, with maps of their own.
pub struct Trial {
    ebpf: Ebpf,
    state: State,
    events: Option<Events>,
    clock: Array<MapData, u64>,
}

impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial").finish_non_exhaustive()
    }
}

impl Trial {
    /// Loads the programs.
    ///
    /// # Errors
    /// Missing privilege, or a kernel that refuses them.
    pub fn new(settings: Settings) -> Result<Self, L4Error> {
        let config = DaemonConfig {
            max_sources: settings.max_sources,
            sketch_cells: settings.sketch_cells,
            keep_sources: settings.keep,
            on_daemon_lost: settings.on_daemon_lost,
            ..DaemonConfig::default()
        };
        let mut ebpf = load::load(&load::Options {
            sizes: Sizes::new(config.max_sources, config.sketch_cells),
            pins: None,
            test_clock: !settings.real_clock,
            vary_sources: settings.vary_sources,
        })?;
        let events = Some(Events(maps::take_events(&mut ebpf)?));
        let state = State::take(&mut ebpf, &config)?;
        let clock = ebpf
            .take_map("CLOCK")
            .ok_or_else(|| L4Error::Load("the object has no map CLOCK".to_owned()))?;
        let clock = Array::try_from(clock).map_err(clock_error)?;
        load::xdp(&mut ebpf, load::LIMITER)?;
        if has_buffers()? {
            load::xdp(&mut ebpf, load::LIMITER_MB)?;
        }
        load::xdp(&mut ebpf, load::BARE_DROP)?;
        load::xdp(&mut ebpf, load::BENCH_PASS)?;
        load::classifier(&mut ebpf)?;
        Ok(Self {
            ebpf,
            state,
            events,
            clock,
        })
    }

    /// Puts policies in force, as a reload does.
    ///
    /// # Errors
    /// As [`Kernel::apply`](super::Kernel::apply).
    pub fn apply(&mut self, policies: &[NetworkPolicy]) -> Result<(), L4Error> {
        Reloader(&mut self.state).apply(policies)
    }

    /// Sets the time, in nanoseconds.
    ///
    /// # Errors
    /// If the kernel refuses the write.
    pub fn set_clock(&mut self, now: u64) -> Result<(), L4Error> {
        self.clock.set(0, now, 0).map_err(clock_error)
    }

    /// Says that the daemon lives at `now`.
    ///
    /// # Errors
    /// If the kernel refuses the write.
    pub fn beat(&mut self, now: u64) -> Result<(), L4Error> {
        self.state.tables.beat(now)
    }

    /// As [`Kernel::block`](super::Kernel::block), for this node.
    ///
    /// # Errors
    /// As there.
    pub fn block(&mut self, net: IpNet, until: u64) -> Result<(), L4Error> {
        let State {
            tables, sentences, ..
        } = &mut self.state;
        let origin = Origin::Node;
        sentences.block(tables, &Sentence { net, until, origin })
    }

    /// As [`Kernel::unblock`](super::Kernel::unblock).
    ///
    /// # Errors
    /// As there.
    pub fn unblock(&mut self, net: IpNet) -> Result<bool, L4Error> {
        let State {
            tables, sentences, ..
        } = &mut self.state;
        sentences.unblock(tables, &net)
    }

    /// As [`Kernel::expire`](super::Kernel::expire).
    ///
    /// # Errors
    /// As there.
    pub fn expire(&mut self, now: u64) -> Result<usize, L4Error> {
        let State {
            tables, sentences, ..
        } = &mut self.state;
        sentences.expire(tables, now)
    }

    /// As [`Kernel::sentences`](super::Kernel::sentences).
    #[must_use]
    pub fn sentences(&self) -> Vec<Sentence> {
        self.state.sentences.list()
    }

    /// Gives the program `packet`, `repeat` times.
    ///
    /// # Errors
    /// If the kernel refuses the run; it does for frames of fewer than 14 bytes.
    pub fn run(&self, program: Program, packet: &[u8], repeat: u32) -> Result<Outcome, L4Error> {
        Runner(&self.ebpf).run(program, packet, repeat)
    }

    /// Gives the traffic control program `packet` as a super-packet of so many segments that were
    /// `bytes` on the wire.
    ///
    /// # Errors
    /// If the kernel refuses the run.
    pub fn run_segments(
        &self,
        packet: &[u8],
        segments: u32,
        bytes: u32,
    ) -> Result<Outcome, L4Error> {
        let mut context = [0; SK_BUFF];
        for (at, value) in [(WIRE_LEN, bytes), (GSO_SEGS, segments)] {
            for (place, byte) in context.iter_mut().skip(at).zip(value.to_ne_bytes()) {
                *place = byte;
            }
        }
        let mut options = TestRunOptions::new();
        options.data_in = Some(packet);
        options.ctx_in = Some(&context);
        Runner(&self.ebpf).test_run(Program::LimiterTc, options)
    }

    /// Gives an XDP program `packet` as a driver would, `repeat` times in batches: frames from a pool
    /// of pages; what passes goes to the network stack. Says nothing of time and action: read the
    /// counters, and the CPU time.
    ///
    /// # Errors
    /// If the kernel refuses the run; before Linux 5.18 it does.
    pub fn run_live(
        &self,
        program: Program,
        packet: &[u8],
        repeat: u32,
        batch: u32,
    ) -> Result<(), L4Error> {
        let mut options = TestRunOptions::new();
        options.data_in = Some(packet);
        options.repeat = repeat;
        options.attrs = TestRunAttrs::new().xdp_live_frames(batch);
        Runner(&self.ebpf)
            .test_run(program, options)
            .map(|_outcome| ())
    }

    /// The trial in two, so that one thread can give it packets while another puts policies in force.
    pub const fn split(&mut self) -> (Runner<'_>, Reloader<'_>) {
        (Runner(&self.ebpf), Reloader(&mut self.state))
    }

    /// All counters.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn counters(&self) -> Result<Vec<Counter>, L4Error> {
        counters::read(&self.state.tables)
    }

    /// As [`Kernel::pressure`](super::Kernel::pressure).
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn pressure(&self) -> Result<Pressure, L4Error> {
        counters::pressure(&self.state.tables)
    }

    /// What the table of sources holds, at `now`.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn occupancy(&self, now: u64) -> Result<Occupancy, L4Error> {
        counters::occupancy(&self.state.tables, now)
    }

    /// What would become of packets from `source` to a port, at `now`.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn explain(
        &self,
        source: IpAddr,
        protocol: Protocol,
        port: u16,
        now: u64,
    ) -> Result<Explanation, L4Error> {
        let destination = Destination {
            protocol,
            port,
            ifindex: None,
        };
        self.state.explain(source, destination, now)
    }

    /// The samples of dropped packets. Given away once.
    pub fn events(&mut self) -> Option<Events> {
        self.events.take()
    }

    /// Drops of which no sample was sent.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn samples_lost(&self) -> Result<u64, L4Error> {
        self.state.tables.lost()
    }
}

/// Whether this kernel gives XDP programs packets in several buffers (it is 5.18 or later).
///
/// # Errors
/// If the kernel's version cannot be read.
pub fn has_buffers() -> Result<bool, L4Error> {
    load::has_buffers()
}

fn clock_error(error: MapError) -> L4Error {
    L4Error::Map {
        map: "CLOCK",
        error,
    }
}
