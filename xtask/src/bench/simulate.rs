//! A day of 10 million requests, replayed by `limiterd simulate`: lines a second, and the memory that
//! it takes beside a tenth of the day, which must not differ by much.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::child::Interrupt;
use crate::cmd::{Stopwatch, Workspace};

const POLICY: &str = include_str!("simulate.yaml");
/// Memory of a whole day beside that of a tenth of it, at most.
const GROWTH: f64 = 1.25;
/// Lines of a day whose tenth fills all that is bounded.
const FULL: u64 = 10_000_000;
const POLL: Duration = Duration::from_millis(20);
const DAY: u64 = 86_400;
/// Of the log's lines.
const DATE: &str = "25/Nov/2026";
const CLIENTS: u64 = 300_000;
const PATHS: u64 = 2_000;

/// What a run took.
struct Taken {
    seconds: f64,
    /// Time on CPUs, of all threads, in seconds.
    cpu: f64,
    /// Peak of the resident memory, in bytes.
    memory: u64,
    limited: u64,
}

/// Replays logs of `lines` and of a tenth of that with this `limiterd`.
pub(super) fn bench(workspace: &Workspace, limiterd: &Path, lines: u64) -> Result<()> {
    let interrupt = Interrupt::listen()?;
    let directory = workspace.target_dir().join("bench-simulate");
    fs::create_dir_all(&directory)?;
    let done = run(limiterd, lines, &directory, &interrupt);
    fs::remove_dir_all(&directory)?;
    done
}

fn run(limiterd: &Path, lines: u64, directory: &Path, interrupt: &Interrupt) -> Result<()> {
    let policy = directory.join("policy");
    fs::create_dir_all(&policy)?;
    fs::write(policy.join("policy.yaml"), POLICY)?;
    println!(
        "\na day replayed against a policy of three limits; a thread reads, another one decides\n"
    );
    println!(
        "| log | MiB | seconds | CPU, s | lines/s | memory, MiB | limited |\n|---|---|---|---|---|---|---|"
    );
    let mut memory = Vec::new();
    let day = lines;
    for lines in [day / 10, day] {
        ensure!(!interrupt.seen(), "interrupted");
        let plain = write(directory, lines, day)?;
        let packed = pack(&plain)?;
        let mut limited = Vec::new();
        for (name, log) in [("plain", &plain), ("gzip", &packed)] {
            let taken = replay(limiterd, &policy, log, lines, interrupt)?;
            println!(
                "| {lines} lines, {name} | {} | {:.1} | {:.1} | {:.0} | {} | {} |",
                fs::metadata(log)?.len() >> 20,
                taken.seconds,
                taken.cpu,
                lines as f64 / taken.seconds,
                taken.memory >> 20,
                taken.limited
            );
            limited.push(taken.limited);
            memory.push(taken.memory);
        }
        ensure!(
            limited[0] == limited[1] && limited[0] > 0,
            "the same lines came to different ends: {limited:?}"
        );
        fs::remove_file(plain)?;
        fs::remove_file(packed)?;
    }
    let (tenth, whole) = (memory[0].max(memory[1]), memory[2].max(memory[3]));
    let growth = whole as f64 / tenth as f64;
    println!("\nmemory of the whole day beside that of a tenth: {growth:.2}");
    ensure!(
        growth <= GROWTH || day < FULL,
        "memory grows with the log: {growth:.2} times"
    );
    Ok(())
}

/// The first `lines` of a day that has `day`, of `vhost_combined`, in the order of their times; the same
/// at every run.
fn write(directory: &Path, lines: u64, day: u64) -> Result<PathBuf> {
    let path = directory.join(format!("{lines}.log"));
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
    let mut random = 1_u64;
    for line in 0..lines {
        writeln!(file, "{}", request(line * DAY / day, &mut random))?;
    }
    file.flush()?;
    Ok(path)
}

/// A request in this second of the day. One in eight is of a few busy clients.
fn request(second: u64, random: &mut u64) -> String {
    let mut draw = |of: u64| {
        *random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*random >> 33) % of
    };
    let client = match draw(8) {
        0 => draw(20),
        _ => draw(CLIENTS),
    };
    let [_, a, b, c] = u32::try_from(client).unwrap_or_default().to_be_bytes();
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let path = draw(PATHS);
    let status = match draw(6) {
        0 => 304,
        1 => 404,
        2 => 500,
        _ => 200,
    };
    let method = if draw(10) == 0 { "POST" } else { "GET" };
    format!(
        "shop.example:80 10.{a}.{b}.{c} - - [{DATE}:{hour:02}:{minute:02}:{second:02} +0000] \
         \"{method} /api/items/{path}?page=1 HTTP/1.1\" {status} 512 \"-\" \"Mozilla/5.0 (X11; Linux x86_64)\""
    )
}

fn pack(plain: &Path) -> Result<PathBuf> {
    let packed = Command::new("gzip").args(["-1", "-k"]).arg(plain).status();
    ensure!(packed.context("no gzip")?.success(), "gzip failed");
    let mut name = plain.as_os_str().to_owned();
    name.push(".gz");
    Ok(name.into())
}

fn replay(
    limiterd: &Path,
    policy: &Path,
    log: &Path,
    lines: u64,
    interrupt: &Interrupt,
) -> Result<Taken> {
    let report = log.with_extension("json");
    let mut command = Command::new(limiterd);
    command
        .arg("simulate")
        .arg("--json")
        .arg("--policy")
        .arg(policy);
    command.arg(log).stdout(Stdio::from(File::create(&report)?));
    let watch = Stopwatch::start();
    let mut child = command.spawn().context("limiterd cannot be run")?;
    let (mut memory, mut cpu) = (0, 0.0);
    let status = loop {
        // The last look before its end is as good as its end: both only grow.
        memory = peak(child.id()).unwrap_or(memory);
        cpu = self::cpu(child.id()).unwrap_or(cpu);
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if interrupt.seen() {
            child.kill()?;
            child.wait()?;
            anyhow::bail!("interrupted");
        }
        thread::sleep(POLL);
    };
    let seconds = watch.elapsed().as_secs_f64();
    ensure!(status.success(), "limiterd simulate: {status}");
    let report: serde_json::Value = serde_json::from_slice(&fs::read(&report)?)?;
    ensure!(
        report["lines"]["requests"] == lines && report["lines"]["unreadable"] == 0,
        "not all lines were replayed: {}",
        report["lines"]
    );
    let limited = report["policy"]["limited"].as_u64();
    Ok(Taken {
        seconds,
        cpu,
        memory,
        limited: limited.context("the report does not say how many were limited")?,
    })
}

/// Time of a process on CPUs, in seconds; `None`: it has ended.
fn cpu(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything: what follows it is counted.
    let rest = stat.rsplit_once(')')?.1;
    let times = rest.split_whitespace().skip(11).take(2);
    let ticks: u64 = times
        .map(|field| field.parse::<u64>().ok())
        .sum::<Option<_>>()?;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Peak of a process' resident memory, in bytes; `None`: it has ended.
fn peak(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_the_same_at_every_run_and_ends_with_the_day() {
        let directory = std::env::temp_dir().join(format!("bench-simulate-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let read = || fs::read_to_string(write(&directory, 1_000, 1_000).unwrap()).unwrap();
        let (first, again) = (read(), read());
        fs::remove_dir_all(&directory).unwrap();
        assert!(first == again);
        assert_eq!(first.lines().count(), 1_000);
        assert!(
            first
                .lines()
                .next()
                .unwrap()
                .contains("[25/Nov/2026:00:00:00 +0000]")
        );
        assert!(
            first
                .lines()
                .last()
                .unwrap()
                .contains("[25/Nov/2026:23:58:33 +0000]")
        );
    }

    #[test]
    fn the_peak_of_a_process_is_read() {
        assert!(peak(std::process::id()).unwrap() > 1 << 20);
        assert!(cpu(std::process::id()).is_some());
        assert!(cpu(0).is_none());
    }
}
