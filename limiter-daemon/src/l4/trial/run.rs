//! Runs of the programs, and what comes of them.

use std::fmt;

use aya::programs::{ProgramError, TestRun};
use aya::{Ebpf, TestRunOptions, TestRunResult};

use crate::l4::error::{L4Error, chain};
use crate::l4::load;
use crate::l4::state::State;
use crate::policy::plan::NetworkPolicy;

/// Which program to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The limiter, on XDP.
    Limiter,
    /// The limiter, on XDP, for packets in several buffers: the one that is attached where
    /// [`has_buffers`](super::has_buffers).
    LimiterBuffers,
    /// The limiter, on traffic control.
    LimiterTc,
    /// One that only says "drop": the yardstick for the other's cost.
    BareDrop,
    /// One that draws a source as the limiter does, and passes the packet to the stack.
    BenchPass,
}

/// What the program said of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Pass,
    Drop,
    /// Another XDP or traffic control action, by its number.
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

/// Gives packets to the programs of a [`Trial`](super::Trial).
#[derive(Clone, Copy)]
pub struct Runner<'a>(pub(super) &'a Ebpf);

impl fmt::Debug for Runner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner").finish_non_exhaustive()
    }
}

impl Runner<'_> {
    /// As [`Trial::run`](super::Trial::run).
    ///
    /// # Errors
    /// As there.
    pub fn run(self, program: Program, packet: &[u8], repeat: u32) -> Result<Outcome, L4Error> {
        let mut options = TestRunOptions::new();
        options.data_in = Some(packet);
        options.repeat = repeat;
        self.test_run(program, options)
    }

    pub(super) fn test_run(
        self,
        program: Program,
        options: TestRunOptions<'_>,
    ) -> Result<Outcome, L4Error> {
        let name = match program {
            Program::Limiter => load::LIMITER,
            Program::LimiterBuffers => load::LIMITER_MB,
            Program::LimiterTc => load::LIMITER_TC,
            Program::BareDrop => load::BARE_DROP,
            Program::BenchPass => load::BENCH_PASS,
        };
        let (result, actions) = match self.0.program(name) {
            Some(aya::programs::Program::Xdp(xdp)) => (xdp.test_run(options), XDP),
            Some(aya::programs::Program::SchedClassifier(tc)) => (tc.test_run(options), TC),
            _ => return Err(L4Error::Load(format!("the object has no program {name}"))),
        };
        outcome(result, actions)
    }
}

/// Puts policies in force in a [`Trial`](super::Trial).
#[derive(Debug)]
pub struct Reloader<'a>(pub(super) &'a mut State);

impl Reloader<'_> {
    /// As [`Trial::apply`](super::Trial::apply).
    ///
    /// # Errors
    /// As there.
    pub fn apply(&mut self, policies: &[NetworkPolicy]) -> Result<(), L4Error> {
        self.0.generations.apply(&mut self.0.tables, policies)
    }
}

/// What "pass" and "drop" are to a hook.
#[derive(Clone, Copy)]
struct Actions {
    pass: u32,
    drop: u32,
}

/// `XDP_PASS` and `XDP_DROP`.
const XDP: Actions = Actions { pass: 2, drop: 1 };
/// `TC_ACT_UNSPEC` (-1) and `TC_ACT_SHOT`.
const TC: Actions = Actions {
    pass: u32::MAX,
    drop: 2,
};

fn outcome(
    result: Result<TestRunResult, ProgramError>,
    actions: Actions,
) -> Result<Outcome, L4Error> {
    let result = result.map_err(|error| L4Error::Load(chain(&error)))?;
    let action = match result.return_value {
        value if value == actions.pass => Action::Pass,
        value if value == actions.drop => Action::Drop,
        other => Action::Other(other),
    };
    Ok(Outcome {
        action,
        nanos_per_packet: u64::try_from(result.duration.as_nanos()).unwrap_or(u64::MAX),
    })
}
