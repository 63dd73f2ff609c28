//! `cargo xtask vm-test`: the kernel half on other kernels than this machine's.
//!
//! Debian's cloud kernels are booted in QEMU, by software emulation: a nested guest's `/dev/kvm` may
//! be there and not boot a stock kernel. A guest is a kernel and an initramfs of busybox, the
//! modules needed, `ip`, `limiterd`, and the test binaries that `cargo test` built for this machine
//! ([`suites`]): the programs' own tests, and scenarios with the daemon and traffic over veth. It
//! says how it went by QEMU's exit status. A kernel older than the oldest supported has to be
//! refused.

mod apt;
mod debian;
mod desk;
mod initramfs;
mod kernels;
mod payload;
mod qemu;
mod report;
mod suites;
mod system;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, Error, Result, bail};

use crate::cmd::Workspace;
use crate::setup;
use apt::Apt;
use kernels::{Kernel, Kernels};
use payload::Payload;
use qemu::{End, Machine};

/// What `cargo xtask vm-test` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Lines of kernels, such as 6.12, or `newest`; an unsupported one, the long-term ones that
    /// Debian has, and the newest one if left out
    #[arg(value_name = "KERNEL")]
    lines: Vec<Wanted>,
    /// Install the package in a Debian with systemd instead: upgrade it under load, kill it, reboot,
    /// remove and purge it
    #[arg(long, group = "debian", conflicts_with = "lines")]
    system: bool,
    /// Play docs/desk.md on such a Debian instead: an attack is found, simulated against, limited;
    /// the package is upgraded and everything rolled back
    #[arg(long, group = "debian", conflicts_with = "lines")]
    desk: bool,
    /// With --system or --desk: pack this executable, and build none; it has to run on the Debian
    /// that is installed on
    #[arg(long, requires = "debian", value_name = "FILE")]
    limiterd: Option<PathBuf>,
}

/// The oldest kernel that limiterd takes.
const OLDEST: Line = Line(5, 15);
const DEFAULT: &[Wanted] = &[
    Wanted::Line(Line(5, 10)),
    Wanted::Line(Line(6, 1)),
    Wanted::Line(Line(6, 12)),
    Wanted::Newest,
];
/// Long-term lines that Debian's suites have at times, or never had: tested with the default ones
/// when they are there, and named when they are not.
const AT_TIMES: &[Line] = &[Line(5, 15), Line(6, 6), Line(6, 18)];
/// For the time that CI has: one that is refused, an old and a new one.
const FOR_CI: &[Wanted] = &[
    Wanted::Line(Line(5, 10)),
    Wanted::Line(Line(6, 1)),
    Wanted::Newest,
];

/// Major and minor version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line(u32, u32);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// A kernel to test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// The newest of this line.
    Line(Line),
    /// The newest of all.
    Newest,
}

impl FromStr for Wanted {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "newest" {
            return Ok(Self::Newest);
        }
        let line = text.split_once('.').and_then(|(major, minor)| {
            let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
            Some(Self::Line(Line(major, minor)))
        });
        line.with_context(|| format!("`{text}` is not a line of kernels; 6.12 is one"))
    }
}

/// What a guest has to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// Every feature that its version has, and every test passed.
    Works,
    /// `limiterd run` ends with the message that this kernel is too old.
    Refusal,
}

impl Expected {
    fn of(line: Line) -> Self {
        if line < OLDEST {
            Self::Refusal
        } else {
            Self::Works
        }
    }

    /// As the guest's init knows it.
    fn word(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Refusal => "refusal",
        }
    }
}

pub(crate) fn vm_test(workspace: &Workspace, args: &Args) -> Result<()> {
    if args.system {
        return system::test(workspace, args.limiterd.as_deref());
    }
    if args.desk {
        return desk::test(workspace, args.limiterd.as_deref());
    }
    match args.lines.as_slice() {
        [] => test_on(workspace, DEFAULT, AT_TIMES),
        lines => test_on(workspace, lines, &[]),
    }
}

/// The step of `cargo xtask test`.
pub(crate) fn for_ci(workspace: &Workspace) -> Result<()> {
    test_on(workspace, FOR_CI, &[])
}

fn test_on(workspace: &Workspace, wanted: &[Wanted], at_times: &[Line]) -> Result<()> {
    setup::setup(workspace)?;
    setup::setup_vm(workspace)?;
    let directory = directory(workspace);
    let kernels = Kernels::open(workspace, Apt::open(workspace, &directory)?, &directory)?;
    let (there, absent): (Vec<Line>, Vec<Line>) =
        at_times.iter().partition(|line| kernels.has(**line));
    let there = there.into_iter().map(Wanted::Line);
    let mut found: Vec<Kernel> = Vec::new();
    for wanted in wanted.iter().copied().chain(there) {
        let kernel = kernels.fetch(workspace, wanted)?;
        if found.iter().all(|other| other.name != kernel.name) {
            found.push(kernel);
        }
    }
    found.sort_by_key(|kernel| kernel.line);

    let payload = Payload::build(workspace)?;
    let mut machines = Vec::new();
    for kernel in found {
        machines.push(Machine {
            initramfs: initramfs::build(workspace, &kernel, &payload, &directory)?,
            expected: Expected::of(kernel.line),
            kernel,
        });
    }
    let runs = qemu::run_all(&machines, &directory)?;

    let mut rows = Vec::new();
    for (machine, run) in machines.iter().zip(&runs) {
        let name = &machine.kernel.name;
        let row = report::Row::new(name, machine.expected, run, payload.tests());
        if !row.passed() {
            println!("\n--- {name}\n{}", run.log);
        }
        if !matches!(run.end, End::Passed | End::Failed) {
            println!(
                "\n--- {name}: {:?}; {}",
                run.end,
                qemu::last_words(&run.log)
            );
        }
        rows.push(row);
    }
    print!("{}", report::table(&rows));
    for line in absent {
        println!("{line}: the suites have no kernel of this line, so none was tested");
    }
    let failed = rows.iter().filter(|row| !row.passed()).count();
    if failed > 0 {
        bail!("{failed} of {} kernels failed", rows.len());
    }
    Ok(())
}

/// Where kernels, images and logs are.
fn directory(workspace: &Workspace) -> PathBuf {
    workspace.target_dir().join("vm")
}

#[cfg(test)]
mod tests {
    use super::{Expected, Line, Wanted};

    #[test]
    fn lines_are_told_from_other_words() {
        assert_eq!("6.12".parse::<Wanted>().unwrap(), Wanted::Line(Line(6, 12)));
        assert_eq!("newest".parse::<Wanted>().unwrap(), Wanted::Newest);
        for wrong in ["6", "6.12.1", "latest", "6.x"] {
            assert!(wrong.parse::<Wanted>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_kernel_before_the_oldest_is_to_be_refused() {
        assert_eq!(Expected::of(Line(5, 10)), Expected::Refusal);
        assert_eq!(Expected::of(Line(5, 15)), Expected::Works);
        assert_eq!(Expected::of(Line(6, 1)), Expected::Works);
    }
}
