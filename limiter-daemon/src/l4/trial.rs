//! The XDP program on made-up packets: `BPF_PROG_TEST_RUN`, no interface, a clock that stands
//! still. For tests and benchmarks; needs the privilege to load BPF programs.

use std::fmt;

use aya::maps::{Array, MapData};
use aya::programs::TestRun as _;
use aya::{Ebpf, TestRunOptions};
use limiter_common::{SourceBuckets, SourceKey};

use super::error::L4Error;
use super::maps::Tables;
use super::{Counter, load, read_counters, sync};
use crate::policy::plan::NetworkPolicy;

/// How to load the program for a trial.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Entries of the table of sources.
    pub max_sources: u32,
    /// Read the kernel's clock instead of [`Trial::set_clock`]'s.
    pub real_clock: bool,
    /// Not 0, a power of two: draw IPv4 sources at random from so many addresses.
    pub vary_sources: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_sources: 1 << 16,
            real_clock: false,
            vary_sources: 0,
        }
    }
}

/// Which program to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The limiter.
    Limiter,
    /// One that only says "drop": the yardstick for the other's cost.
    BareDrop,
}

/// What the program said of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Pass,
    Drop,
    /// Another XDP action, by its number.
    Other(u32),
}

/// What came of a run.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// For the last packet.
    pub action: Action,
    /// The mean over the repetitions, by the kernel's own measure, in whole nanoseconds.
    pub nanos_per_packet: u64,
}

/// A program of its own, with maps of its own.
pub struct Trial {
    ebpf: Ebpf,
    tables: Tables,
    clock: Array<MapData, u64>,
}

impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial").finish_non_exhaustive()
    }
}

impl Trial {
    /// Loads the program.
    ///
    /// # Errors
    /// Missing privilege, or a kernel that refuses it.
    pub fn new(settings: Settings) -> Result<Self, L4Error> {
        let mut ebpf = load::load(&load::Options {
            max_sources: settings.max_sources,
            pins: None,
            test_clock: !settings.real_clock,
            vary_sources: settings.vary_sources,
        })?;
        let tables = Tables::take(&mut ebpf)?;
        let clock = ebpf
            .take_map("CLOCK")
            .ok_or_else(|| L4Error::Load("the object has no map CLOCK".to_owned()))?;
        let clock = Array::try_from(clock).map_err(clock_error)?;
        load::program(&mut ebpf, load::LIMITER)?;
        load::program(&mut ebpf, load::BARE_DROP)?;
        Ok(Self {
            ebpf,
            tables,
            clock,
        })
    }

    /// Puts policies in force, as a reload does.
    ///
    /// # Errors
    /// As [`Kernel::apply`](super::Kernel::apply).
    pub fn apply(&mut self, policies: &[NetworkPolicy]) -> Result<(), L4Error> {
        sync::sync(&mut self.tables, policies)
    }

    /// Sets the time, in nanoseconds.
    ///
    /// # Errors
    /// If the kernel refuses the write.
    pub fn set_clock(&mut self, now: u64) -> Result<(), L4Error> {
        self.clock.set(0, now, 0).map_err(clock_error)
    }

    /// Gives the program `packet`, `repeat` times.
    ///
    /// # Errors
    /// If the kernel refuses the run; it does for frames of fewer than 14 bytes.
    pub fn run(&self, program: Program, packet: &[u8], repeat: u32) -> Result<Outcome, L4Error> {
        let name = match program {
            Program::Limiter => load::LIMITER,
            Program::BareDrop => load::BARE_DROP,
        };
        let Some(aya::programs::Program::Xdp(xdp)) = self.ebpf.program(name) else {
            return Err(L4Error::Load(format!(
                "the object has no XDP program {name}"
            )));
        };
        let mut options = TestRunOptions::new();
        options.data_in = Some(packet);
        options.repeat = repeat;
        let result = xdp
            .test_run(options)
            .map_err(|error| L4Error::Load(super::error::chain(&error)))?;
        Ok(Outcome {
            action: match result.return_value {
                1 => Action::Drop,
                2 => Action::Pass,
                other => Action::Other(other),
            },
            nanos_per_packet: u64::try_from(result.duration.as_nanos()).unwrap_or(u64::MAX),
        })
    }

    /// All counters.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn counters(&self) -> Result<Vec<Counter>, L4Error> {
        read_counters(&self.tables)
    }

    /// The buckets of one source, if the table has them.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn buckets(&self, key: SourceKey) -> Result<Option<SourceBuckets>, L4Error> {
        self.tables.buckets(key)
    }

    /// Sources in the table.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn sources(&self) -> Result<usize, L4Error> {
        self.tables.source_keys(|_| true).map(|keys| keys.len())
    }
}

fn clock_error(error: aya::maps::MapError) -> L4Error {
    L4Error::Map {
        map: "CLOCK",
        error,
    }
}
