//! Booting guests, and learning how it went.
//!
//! A guest writes its result to QEMU's debug-exit device: QEMU ends with twice the number plus
//! one. A panic and a power-off both end with 0, so success is 1 and nothing else.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::Expected;
use super::kernels::Kernel;
use crate::cmd::{Stopwatch, search_path};

const SUCCESS: i32 = 1;
const DIED: i32 = 0;
/// Of a guest as a whole, for the case that it goes round in circles.
const DEADLINE: Duration = Duration::from_secs(1800);
/// A guest that has said nothing for so long hangs; its longest test takes a tenth of that.
const SILENCE: Duration = Duration::from_secs(400);
/// Both CPUs on one thread. On two, a kernel that patches its own code sometimes meets its old
/// breakpoint in the translation of the other CPU and panics (seen of QEMU 7.2); it is hardly
/// faster, since guests mostly wait.
pub(super) const ACCELERATOR: &str = "tcg,thread=single";
const POLL: Duration = Duration::from_millis(50);
const MEMORY_MIB: &str = "1024";

/// What a kernel says when it panics.
const PANIC: &str = "Kernel panic - ";
/// The line that the guest's init writes last.
const RESULT: &str = "VMRESULT ";

/// How a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Passed,
    /// It told so.
    Failed,
    /// Its kernel said so.
    Panicked,
    /// The machine ended in another way, and told no result.
    Died,
    /// It said nothing for [`SILENCE`].
    Silent,
    TimedOut,
    /// QEMU failed, or was ended by somebody.
    Emulator,
}

/// A guest's run.
pub(super) struct Run {
    pub(super) end: End,
    /// What it wrote to its console.
    pub(super) log: String,
    pub(super) time: Duration,
    /// It is the second boot: the first machine died.
    pub(super) again: bool,
}

/// What is to be booted.
pub(super) struct Machine {
    pub(super) kernel: Kernel,
    pub(super) initramfs: PathBuf,
    pub(super) expected: Expected,
}

/// Boots all, as many at once as this machine has CPUs; the runs are in the order of `machines`.
pub(super) fn run_all(machines: &[Machine], directory: &Path) -> Result<Vec<Run>> {
    let workers = thread::available_parallelism()?.get().min(machines.len());
    let next = AtomicUsize::new(0);
    let work = || {
        let mut runs = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(machine) = machines.get(index) else {
                return runs;
            };
            runs.push((index, run(machine, directory)));
        }
    };
    let mut runs: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    });
    runs.sort_by_key(|(index, _)| *index);
    runs.into_iter().map(|(_, run)| run).collect()
}

/// Boots a kernel; a guest that dies without a word gets a second chance, once, which is told in the
/// table: that has been seen of QEMU itself. What tells a result or panics gets none.
fn run(machine: &Machine, directory: &Path) -> Result<Run> {
    let name = &machine.kernel.name;
    println!("{name}: booting");
    let mut run = boot(machine, directory, "log")?;
    if run.end == End::Died {
        println!(
            "{name}: the machine ended without a result, it is booted once more; {}",
            last_words(&run.log)
        );
        run = Run {
            again: true,
            ..boot(machine, directory, "second.log")?
        };
    }
    let seconds = run.time.as_secs_f64();
    println!("{name}: {:?} after {seconds:.1} s", run.end);
    Ok(run)
}

fn boot(machine: &Machine, directory: &Path, extension: &str) -> Result<Run> {
    let logs = directory.join("logs");
    fs::create_dir_all(&logs)?;
    let log = logs.join(format!("{}.{extension}", machine.kernel.name));
    let clock = Stopwatch::start();
    let mut qemu = Command::new("qemu-system-x86_64")
        .env("PATH", search_path())
        .args(["-M", "q35", "-accel", ACCELERATOR, "-cpu", "max"])
        .args(["-smp", "2", "-m", MEMORY_MIB])
        .args(["-nodefaults", "-no-user-config"])
        .args(["-display", "none", "-no-reboot", "-monitor", "none"])
        .args(["-serial", "stdio"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x1"])
        .arg("-kernel")
        .arg(machine.kernel.image()?)
        .arg("-initrd")
        .arg(&machine.initramfs)
        .args(["-append", &command_line(machine.expected)])
        .stdin(Stdio::null())
        .stdout(File::create(&log)?)
        .spawn()?;
    let ended = wait(&mut qemu, &log, clock)?;
    let log = String::from_utf8_lossy(&fs::read(&log)?).replace('\r', "");
    let end = match ended.map(|status| status.code()) {
        Err(end) => end,
        Ok(code) => end_of(code, &log),
    };
    Ok(Run {
        end,
        log,
        time: clock.elapsed(),
        again: false,
    })
}

/// By QEMU's exit status (`None`: a signal), and by what the guest wrote.
fn end_of(code: Option<i32>, log: &str) -> End {
    match code {
        Some(SUCCESS) => End::Passed,
        Some(DIED) if log.contains(PANIC) => End::Panicked,
        Some(DIED) if !told_a_result(log) => End::Died,
        // Odd from the guest; even would be QEMU's own trouble.
        Some(code) if code % 2 == 1 && told_a_result(log) => End::Failed,
        _ => End::Emulator,
    }
}

/// QEMU's exit status, or why it was ended.
pub(super) fn wait(
    qemu: &mut Child,
    log: &Path,
    clock: Stopwatch,
) -> Result<Result<ExitStatus, End>> {
    let (mut length, mut quiet) = (0, Stopwatch::start());
    let end = loop {
        if let Some(status) = qemu.try_wait()? {
            return Ok(Ok(status));
        }
        let now = fs::metadata(log)?.len();
        if now != length {
            (length, quiet) = (now, Stopwatch::start());
        }
        if quiet.elapsed() > SILENCE {
            break End::Silent;
        }
        if clock.elapsed() > DEADLINE {
            break End::TimedOut;
        }
        thread::sleep(POLL);
    };
    qemu.kill()?;
    qemu.wait()?;
    Ok(Err(end))
}

/// What the kernel does not know becomes its first process's environment.
fn command_line(expected: Expected) -> String {
    format!("console=ttyS0 panic=-1 quiet VM_EXPECT={}", expected.word())
}

fn told_a_result(log: &str) -> bool {
    log.lines().any(|line| line.starts_with(RESULT))
}

/// The end of what a guest wrote, for who reads of its end.
pub(super) fn last_words(log: &str) -> String {
    const LINES: usize = 20;
    match tail(log, LINES) {
        text if text.is_empty() => "it wrote nothing".to_owned(),
        text => format!("its last lines:\n{text}"),
    }
}

fn tail(log: &str, lines: usize) -> String {
    let all: Vec<_> = log.lines().collect();
    let from = all.len().saturating_sub(lines);
    all.get(from..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::{End, end_of, last_words, tail};

    #[test]
    fn success_is_one_exit_status_and_nothing_else() {
        let (told, untold) = ("booting\nVMRESULT 0\n", "no VMRESULT here\n");
        let panic = "[ 1.0] Kernel panic - not syncing: Fatal exception\n";
        for (code, log, end) in [
            (Some(1), told, End::Passed),
            (Some(3), told, End::Failed),
            (Some(0), untold, End::Died),
            (Some(0), panic, End::Panicked),
            // Ended by somebody after it told its result, or before; QEMU's own errors.
            (Some(0), told, End::Emulator),
            (None, untold, End::Emulator),
            (Some(2), told, End::Emulator),
            (Some(3), untold, End::Emulator),
        ] {
            assert_eq!(end_of(code, log), end, "{code:?}: {log}");
        }
    }

    #[test]
    fn the_tail_is_the_last_lines() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail("a\n", 2), "a");
        assert_eq!(last_words(""), "it wrote nothing");
    }
}
