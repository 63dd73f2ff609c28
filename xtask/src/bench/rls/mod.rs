//! Envoy's rate limit service: decisions a second, what each costs, and what an Envoy that asks it
//! loses beside one that does not.
//!
//! Client and service have a CPU each here, for both are measured by their own; what a decision costs
//! is the CPU time of the process that makes it.

mod h2load;
mod question;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::servers::{self, Programs, folder, pinned};
use super::stats::{median, summary};
use super::wrk;
use crate::child::{Interrupt, Server};
use crate::cmd::{Workspace, search_path};
use crate::probe;

const READY: Duration = Duration::from_secs(30);
const METHOD: &str = "envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
/// Ticks a second of the times in /proc (`USER_HZ`, fixed on all machines that Linux runs on).
const TICKS: f64 = 100.0;

/// How it is measured.
pub(super) struct Run<'a> {
    pub(super) workspace: &'a Workspace,
    pub(super) programs: &'a Programs,
    pub(super) rounds: u32,
    pub(super) seconds: u32,
    /// Of the services, and of the client.
    pub(super) cpus: (usize, usize),
    pub(super) interrupt: &'a Interrupt,
}

/// A service that is measured.
struct Service {
    name: &'static str,
    server: Server,
    admin: SocketAddr,
    rls: SocketAddr,
}

/// What is asked.
const CASES: [(&str, &[(&str, &str)]); 2] = [
    ("admitted", &[("tenant", "acme"), ("route", "search")]),
    ("over its limit", &[("nobody", "x")]),
];

pub(super) fn bench(run: &Run<'_>) -> Result<()> {
    let dir = folder(run.workspace.target_dir().join("bench-rls"))?;
    let redis = Redis::start(&dir, run.cpus.0)?;
    let store = format!(
        "  rateLimit: {{ backend: {{ type: Redis, redis: {{ url: \"127.0.0.1:{}\" }} }} }}",
        redis.port
    );
    let mut services = [
        Service::start(run, &dir, "in memory", "")?,
        Service::start(run, &dir, "on Redis", &store)?,
    ];
    for service in &mut services {
        service.ready(run)?;
    }
    println!(
        "\n{} rounds of {} s, {} connections with {} questions at once; service (and Redis) on one \
         CPU, client on another\n",
        run.rounds,
        run.seconds,
        h2load::CLIENTS,
        h2load::STREAMS
    );
    println!("| | decisions/s | p50 us | p99 us | CPU us of limiterd a decision |");
    println!("|---|---|---|---|---|");
    for (case, entries) in CASES {
        let body = dir.join("question.bin");
        fs::write(&body, question::message("bench", entries))?;
        for service in &services {
            let measured = service.measure(run, &body)?;
            println!("| {case}, {} | {measured} |", service.name);
        }
    }
    redis_cost(run, &services[1], &redis, &dir)?;
    envoys(run, &services[0], &dir)?;
    for service in services {
        service.server.stop()?;
    }
    redis.server.stop()
}

impl Service {
    fn start(run: &Run<'_>, dir: &Path, name: &'static str, store: &str) -> Result<Self> {
        let [admin, rls] = ports()?;
        let folder = folder(dir.join(name.replace(' ', "-")))?;
        let text = include_str!("limiterd.yaml")
            .replace("@ADMIN@", &admin.to_string())
            .replace("@RLS@", &rls.to_string())
            .replace("@STORE@", store);
        fs::write(folder.join("policy.yaml"), text)?;
        let server = servers::start(servers::Kind::Limiterd, run.programs, &folder, run.cpus.0)?;
        Ok(Self {
            name,
            server,
            admin: servers::local(admin),
            rls: servers::local(rls),
        })
    }

    fn ready(&mut self, run: &Run<'_>) -> Result<()> {
        let servers = &mut [&mut self.server];
        probe::wait_for(200, self.admin, "/ready", READY, run.interrupt, servers)
    }

    /// Rates, percentiles and CPU time, each the median of all rounds.
    fn measure(&self, run: &Run<'_>, body: &Path) -> Result<String> {
        let url = format!("http://{}/{METHOD}", self.rls);
        let (_, client) = run.cpus;
        h2load::run(&url, body, client, 1)?;
        let mut figures: [Vec<f64>; 4] = Default::default();
        for _ in 0..run.rounds {
            ensure!(!run.interrupt.seen(), "interrupted");
            let before = cpu_time(self.server.id())?;
            let load = h2load::run(&url, body, client, run.seconds)?;
            let cpu = cpu_time(self.server.id())? - before;
            let seen = [
                load.per_second,
                load.percentile(0.5),
                load.percentile(0.99),
                cpu * 1e6 / load.answers as f64,
            ];
            for (figures, seen) in figures.iter_mut().zip(seen) {
                figures.push(seen);
            }
        }
        let [rate, p50, p99, cpu] = figures.map(|figures| median(&figures));
        Ok(format!("{rate:.0} | {p50:.0} | {p99:.0} | {cpu:.2}"))
    }
}

/// What a decision costs Redis: counts, which do not depend on how busy the machine is.
fn redis_cost(run: &Run<'_>, service: &Service, redis: &Redis, dir: &Path) -> Result<()> {
    let body = dir.join("question.bin");
    fs::write(&body, question::message("bench", CASES[0].1))?;
    let url = format!("http://{}/{METHOD}", service.rls);
    let before = (redis.counts()?, cpu_time(redis.server.id())?);
    let load = h2load::run(&url, &body, run.cpus.1, run.seconds)?;
    let after = (redis.counts()?, cpu_time(redis.server.id())?);
    let each = |index: usize| (after.0[index] - before.0[index]) / load.answers as f64;
    println!(
        "\nA decision on Redis: {:.3} commands of limiterd's (each a round trip), {:.0} bytes to \
         Redis, {:.0} bytes from it, {:.2} us of Redis's CPU",
        each(0),
        each(1),
        each(2),
        (after.1 - before.1) * 1e6 / load.answers as f64,
    );
    Ok(())
}

/// The same Envoy with limiterd as its rate limit service and without one, all on one CPU.
fn envoys(run: &Run<'_>, service: &Service, dir: &Path) -> Result<()> {
    let [upstream, asking, alone] = ports()?;
    let mut backend = servers::upstream(dir, upstream, run.cpus.0)?;
    let folder = folder(dir.join("envoy"))?;
    let text = include_str!("envoy.yaml")
        .replace("@UPSTREAM@", &upstream.to_string())
        .replace("@ASKING@", &asking.to_string())
        .replace("@ALONE@", &alone.to_string())
        .replace("@RLS@", &service.rls.port().to_string());
    fs::write(folder.join("envoy.yaml"), text)?;
    let mut envoy = servers::start(servers::Kind::Envoy, run.programs, &folder, run.cpus.0)?;
    let ports = [alone, asking];
    for port in ports {
        let servers = &mut [&mut envoy, &mut backend];
        let address = servers::local(port);
        probe::wait_for(200, address, "/", READY, run.interrupt, servers)?;
        wrk::run(&format!("http://{address}/"), run.cpus.0, 1, None)?;
    }
    let mut figures: [Vec<f64>; 2] = Default::default();
    for round in 0..run.rounds {
        for turn in 0..ports.len() {
            ensure!(!run.interrupt.seen(), "interrupted");
            let at = (turn + round as usize) % ports.len();
            let url = format!("http://{}/", servers::local(ports[at]));
            let seen = wrk::run(&url, run.cpus.0, run.seconds, None)?;
            ensure!(seen.failed == 0, "{} answers were errors", seen.failed);
            figures[at].push(seen.per_second);
        }
    }
    let [without, with] = &figures;
    let ratios: Vec<f64> = with.iter().zip(without).map(|(a, b)| a / b).collect();
    println!(
        "\n| a real Envoy, client, upstream and limiterd on one CPU | requests/s |\n|---|---|"
    );
    println!("| without a rate limit service | {:.0} |", median(without));
    println!(
        "| that asks limiterd about every request | {:.0} |",
        median(with)
    );
    println!("\nwith / without: {}", summary(&ratios));
    envoy.stop()?;
    backend.stop()
}

/// A Redis that keeps nothing.
struct Redis {
    server: Server,
    port: u16,
}

impl Redis {
    fn start(dir: &Path, cpu: usize) -> Result<Self> {
        let [port] = ports()?;
        let folder: PathBuf = folder(dir.join("redis"))?;
        let mut command = pinned(cpu);
        command
            .args(["redis-server", "--bind", "127.0.0.1", "--port"])
            .arg(port.to_string())
            .args(["--save", "", "--appendonly", "no", "--loglevel", "warning"])
            .arg("--dir")
            .arg(folder);
        let server = Server::start("redis", &mut command)?;
        Ok(Self { server, port })
    }

    /// Scripts run, bytes read, bytes written.
    fn counts(&self) -> Result<[f64; 3]> {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string(), "INFO", "ALL"])
            .env("PATH", search_path())
            .output()
            .context("redis-cli cannot be run")?;
        let info = String::from_utf8(output.stdout)?;
        let number = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name));
            let digits = line.and_then(|line| line.split([',', '\r']).next());
            digits.and_then(|digits| digits.parse::<f64>().ok())
        };
        let sum = number("cmdstat_evalsha:calls=").unwrap_or(0.0);
        Ok([
            sum,
            number("total_net_input_bytes:").context("no bytes")?,
            number("total_net_output_bytes:").context("no bytes")?,
        ])
    }
}

/// Seconds of CPU time that a process has had.
fn cpu_time(process: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields = stat.rsplit_once(')').context("no name")?.1;
    let mut times = fields.split_whitespace().skip(11);
    let mut next = || -> Result<f64> { Ok(times.next().context("no time")?.parse()?) };
    Ok((next()? + next()?) / TICKS)
}

/// Loopback ports that nobody listens on.
fn ports<const N: usize>() -> Result<[u16; N]> {
    // All are held until the last is found, so that none is given twice.
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}
