//! Booting a guest, and learning how it went.
//!
//! The guest writes its result to QEMU's debug-exit device: QEMU ends with twice the number plus
//! one. A panic and a power-off both end with 0, so success is 1 and nothing else.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

use super::Expected;
use super::kernels::Kernel;
use crate::cmd::{Stopwatch, search_path};

const SUCCESS: i32 = 1;
const DIED: i32 = 0;
/// Of a guest as a whole; emulated machines are slow, and this one shares its host.
const DEADLINE: Duration = Duration::from_secs(900);
/// Both CPUs on one thread. On two, a kernel that patches its own code sometimes meets its old
/// breakpoint in the translation of the other CPU and panics (seen of QEMU 7.2); it is hardly
/// faster, since guests mostly wait.
const ACCELERATOR: &str = "tcg,thread=single";
const POLL: Duration = Duration::from_millis(50);

/// The line that the guest's init writes last.
const RESULT: &str = "VMRESULT ";

/// How a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Passed,
    /// It told so.
    Failed,
    /// A panic, or the end of the machine in another way; it told no result.
    Died,
    TimedOut,
}

/// A guest's run.
pub(super) struct Run {
    pub(super) end: End,
    /// What it wrote to its console.
    pub(super) log: String,
    pub(super) time: Duration,
}

impl Run {
    pub(super) fn passed(&self) -> bool {
        self.end == End::Passed
    }
}

/// Boots a kernel; a guest that dies without a word gets a second chance, once: that has been seen
/// of QEMU itself.
pub(super) fn run(
    kernel: &Kernel,
    image: &Path,
    expected: Expected,
    directory: &Path,
) -> Result<Run> {
    let first = boot(kernel, image, expected, directory, "log")?;
    if first.end != End::Died || told_a_result(&first.log) {
        return Ok(first);
    }
    println!(
        "{}: the machine ended without a result, it is booted once more; its last words:\n{}",
        kernel.name,
        tail(&first.log, 20)
    );
    boot(kernel, image, expected, directory, "second.log")
}

fn boot(
    kernel: &Kernel,
    image: &Path,
    expected: Expected,
    directory: &Path,
    extension: &str,
) -> Result<Run> {
    let logs = directory.join("logs");
    fs::create_dir_all(&logs)?;
    let log = logs.join(format!("{}.{extension}", kernel.name));
    let clock = Stopwatch::start();
    let mut qemu = Command::new("qemu-system-x86_64")
        .env("PATH", search_path())
        .args(["-M", "q35", "-accel", ACCELERATOR, "-cpu", "max"])
        .args(["-smp", "2", "-m", "1024", "-nodefaults", "-no-user-config"])
        .args(["-display", "none", "-no-reboot", "-monitor", "none"])
        .args(["-serial", "stdio"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x1"])
        .arg("-kernel")
        .arg(kernel.image()?)
        .arg("-initrd")
        .arg(image)
        .args(["-append", &command_line(expected)])
        .stdin(Stdio::null())
        .stdout(File::create(&log)?)
        .spawn()?;
    let status = loop {
        if let Some(status) = qemu.try_wait()? {
            break Some(status);
        }
        if clock.elapsed() > DEADLINE {
            qemu.kill()?;
            qemu.wait()?;
            break None;
        }
        thread::sleep(POLL);
    };
    let log = String::from_utf8_lossy(&fs::read(&log)?).replace('\r', "");
    let end = match status.map(|status| status.code()) {
        None => End::TimedOut,
        Some(Some(SUCCESS)) => End::Passed,
        Some(Some(DIED)) => End::Died,
        // Odd from the guest; even would be QEMU's own trouble.
        Some(Some(code)) if code % 2 == 1 && told_a_result(&log) => End::Failed,
        Some(_) => bail!("QEMU failed: {status:?}; it wrote:\n{}", tail(&log, 20)),
    };
    Ok(Run {
        end,
        log,
        time: clock.elapsed(),
    })
}

/// What the kernel does not know becomes its first process's environment.
fn command_line(expected: Expected) -> String {
    format!("console=ttyS0 panic=-1 quiet VM_EXPECT={}", expected.word())
}

fn told_a_result(log: &str) -> bool {
    log.lines().any(|line| line.starts_with(RESULT))
}

fn tail(log: &str, lines: usize) -> String {
    let all: Vec<_> = log.lines().collect();
    let from = all.len().saturating_sub(lines);
    all.get(from..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::{tail, told_a_result};

    #[test]
    fn a_result_is_a_line_of_its_own() {
        assert!(told_a_result("booting\nVMRESULT 0\n"));
        assert!(!told_a_result("no VMRESULT here\n"));
    }

    #[test]
    fn the_tail_is_the_last_lines() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail("a\n", 2), "a");
    }
}
