//! The object that `build.rs` made, into the kernel.

use std::io::ErrorKind;

use aya::maps::MapError;
use aya::programs::{Program, ProgramError, ProgramInfo, SchedClassifier, Xdp};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfError, EbpfLoader};

use super::error::{L4Error, errno, is_denied};
use super::maps::{Pinned, Sizes};
use super::pins::Pins;

pub(super) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/limiter.o"));

pub(super) const LIMITER: &str = "limiter_xdp";
pub(super) const LIMITER_MB: &str = "limiter_xdp_mb";
pub(super) const LIMITER_TC: &str = "limiter_tc";
pub(super) const BARE_DROP: &str = "bare_drop";
pub(super) const BENCH_PASS: &str = "bench_pass";

/// The oldest kernel that this is tested with. What is needed most, the 64-bit compare-and-swap,
/// came with 5.12.
const OLDEST: (u8, u8) = (5, 15);
/// The oldest kernel that gives XDP programs packets in several buffers, and tells their length.
const BUFFERS: (u8, u8) = (5, 18);

/// Times that a program is loaded at most, while signals interrupt it.
const ATTEMPTS: u32 = 5;

/// What is fixed when the object is loaded.
#[derive(Debug)]
pub(super) struct Options<'a> {
    pub(super) sizes: Sizes,
    /// Where the maps that outlive the daemon are; `None`: none does.
    pub(super) pins: Option<&'a Pins>,
    /// The program reads the time from the map `CLOCK`.
    pub(super) test_clock: bool,
    /// Not 0, a power of two: draw IPv4 sources at random from so many.
    pub(super) vary_sources: u32,
}

/// Loads maps and programs; attaches nothing.
pub(super) fn load(options: &Options<'_>) -> Result<Ebpf, L4Error> {
    check_kernel()?;
    let (clock, vary) = (u32::from(options.test_clock), options.vary_sources);
    let mut loader = EbpfLoader::new();
    loader
        .override_global("TEST_CLOCK", &clock, true)
        .override_global("VARY_SOURCES", &vary, true)
        .map_max_entries(Pinned::Sources.name(), options.sizes.sets)
        .map_max_entries(Pinned::Sketch.name(), options.sizes.cells.saturating_mul(2));
    if let Some(pins) = options.pins {
        for map in Pinned::ALL {
            loader.map_pin_path(map.name(), pins.map(map));
        }
    }
    loader.load(OBJECT).map_err(refused)
}

/// The limiter on XDP, verified by the kernel: the one for packets in several buffers where there are
/// any, for only with that do drivers attach it to interfaces with jumbo frames.
pub(super) fn limiter(ebpf: &mut Ebpf) -> Result<&mut Xdp, L4Error> {
    let name = if has_buffers()? { LIMITER_MB } else { LIMITER };
    xdp(ebpf, name)
}

/// Whether this kernel gives XDP programs packets in several buffers.
pub(super) fn has_buffers() -> Result<bool, L4Error> {
    Ok(kernel()? >= KernelVersion::new(BUFFERS.0, BUFFERS.1, 0))
}

/// The XDP program `name`, verified by the kernel.
pub(super) fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, L4Error> {
    let program: &mut Xdp = program(ebpf, name)?;
    loaded(verified(|| program.load()), "load an XDP program")?;
    Ok(program)
}

/// The program for traffic control, verified by the kernel.
pub(super) fn classifier(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, L4Error> {
    let program: &mut SchedClassifier = program(ebpf, LIMITER_TC)?;
    loaded(
        verified(|| program.load()),
        "load a traffic control program",
    )?;
    Ok(program)
}

/// The kernel's id of a loaded program.
pub(super) fn id(info: Result<ProgramInfo, ProgramError>) -> Result<u32, L4Error> {
    info.map(|info| info.id())
        .map_err(|error| L4Error::Load(super::error::chain(&error)))
}

fn program<'a, T>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut T, L4Error>
where
    &'a mut T: TryFrom<&'a mut Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or_else(|| L4Error::Load(format!("the object has no program {name}")))?
        .try_into()
        .map_err(|error: ProgramError| L4Error::Load(error.to_string()))
}

/// The verifier gives up with `EAGAIN` if a signal is pending; libbpf, too, tries five times.
fn verified(mut load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    let was_interrupted = |error: &ProgramError| {
        errno(error).is_some_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    for _ in 1..ATTEMPTS {
        match load() {
            Err(error) if was_interrupted(&error) => {}
            result => return result,
        }
    }
    load()
}

fn loaded(result: Result<(), ProgramError>, action: &'static str) -> Result<(), L4Error> {
    match result {
        Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(()),
        Err(error) if is_denied(&error) => Err(L4Error::NotPermitted { action }),
        Err(error) => Err(L4Error::Load(error.to_string())),
    }
}

/// Refuses kernels that are too old.
pub(super) fn check_kernel() -> Result<(), L4Error> {
    let kernel = kernel()?;
    let oldest = KernelVersion::new(OLDEST.0, OLDEST.1, 0);
    if kernel < oldest {
        let code = kernel.code();
        let (major, minor) = (code >> 16, code >> 8 & 0xff);
        return Err(L4Error::KernelTooOld { major, minor });
    }
    Ok(())
}

fn kernel() -> Result<KernelVersion, L4Error> {
    KernelVersion::current().map_err(|error| L4Error::Load(error.to_string()))
}

fn refused(error: EbpfError) -> L4Error {
    match &error {
        EbpfError::MapError(MapError::CreateError { io_error, .. })
            if io_error.kind() == ErrorKind::PermissionDenied =>
        {
            L4Error::NotPermitted {
                action: "create BPF maps",
            }
        }
        EbpfError::ProgramError(program) if is_denied(program) => L4Error::NotPermitted {
            action: "load BPF programs",
        },
        _ => L4Error::Load(super::error::chain(&error)),
    }
}
