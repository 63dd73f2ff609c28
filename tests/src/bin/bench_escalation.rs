//! What one abuser costs, and what others notice of it, with escalation off and on.
//!
//! `bench_escalation ROUNDS` makes a gateway and two clients in network namespaces. The abuser sends
//! [`REQUESTS`] requests to a route whose limit it is far beyond, [`RATE`] a second at their own times,
//! whether or not earlier ones are answered, each a segment of its own, over [`CONNECTIONS`] kept
//! connections, without TLS and with it. When its connections are ended, which only a sentence does, it
//! goes on at the same pace with segments of the same length that it makes by hand: a stack would send
//! nothing more. So both modes are offered the same.
//!
//! What is counted is the CPU time of all threads of the daemon, and that of the kernel thread that takes
//! packets from the abuser's wire at the gateway's end: the XDP program, and for what passes IP and TCP
//! (threaded NAPI; as a soft interrupt it would run in whatever is interrupted). What comes back to the
//! abuser is received on its own CPU (RPS). Both by `schedstat`, in nanoseconds, so other work on the
//! machine is not in it. The gateway has one CPU; the abuser and the other client have the other one; all
//! of them have priority over other work.
//!
//! In runs of their own, another client asks an upstream through the gateway meanwhile, at fixed times and
//! with real-time priority, and measures from when a request was due; there is a mode for this in which
//! nobody abuses.
//!
//! The modes take turns; a ratio compares figures of one round, and medians are shown.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use etherparse::PacketBuilder;
use rustix::thread::{CpuSet, Pid, sched_setaffinity};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use socket2::{Domain, Protocol, Socket, Type};
use tests::daemon::{Daemon, Policies, demo_backend};
use tests::netns::Netns;
use tests::policies::{config, host_route, limited_host, network};
use tests::raw::Raw;
use tests::tls::Authority;
use tests::topology::{Client, Topology};

const REQUESTS: u32 = 100_000;
const RATE: u32 = 10_000;
const CONNECTIONS: usize = 16;
/// The other client's, over connections that each have a thread.
const OTHERS_RATE: u32 = 400;
const OTHERS_CONNECTIONS: u32 = 4;
/// CPUs.
const SERVER: usize = 1;
const CLIENTS: usize = 0;
/// For answers that are still to come when all is sent.
const PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(1);
const ASKED: &str = "GET / HTTP/1.1\r\nhost: limited.test\r\n\r\n";
const DENIED: &[u8] = b"HTTP/1.1 429";
/// What TLS 1.3 adds to a record.
const RECORD: usize = 22;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Calm,
    Off,
    On,
}

const MODES: [Mode; 3] = [Mode::Calm, Mode::Off, Mode::On];

/// Of one run.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    /// CPU seconds for a million requests.
    daemon: f64,
    kernel: f64,
    /// Microseconds that the other client waited.
    p50: f64,
    p99: f64,
}

fn main() -> Result<()> {
    let rounds = std::env::args().nth(1).context("bench_escalation ROUNDS")?;
    let rounds: usize = rounds.parse()?;
    ensure!(rounds > 0, "at least one round");
    ensure!(
        thread::available_parallelism()?.get() > SERVER,
        "it takes two CPUs"
    );
    println!(
        "| one abuser's million requests | CPU of limiterd, s | of the kernel, s | off / on | another client's p50, us | p99, us |"
    );
    println!("|---|---|---|---|---|---|");
    for secure in [false, true] {
        let mut seen: [Vec<Figures>; MODES.len()] = Default::default();
        for round in 0..rounds {
            for turn in 0..MODES.len() {
                let at = (round + turn) % MODES.len();
                let mode = MODES[at];
                let both = || -> Result<Figures> {
                    let Figures { p50, p99, .. } = run(mode, secure, true)?;
                    let alone = match mode {
                        Mode::Calm => Figures::default(),
                        Mode::Off | Mode::On => run(mode, secure, false)?,
                    };
                    Ok(Figures { p50, p99, ..alone })
                };
                seen[at].push(both().with_context(|| format!("{mode:?}"))?);
            }
        }
        table(secure, &seen);
    }
    Ok(())
}

fn table(secure: bool, seen: &[Vec<Figures>; MODES.len()]) {
    let name = if secure { "with TLS" } else { "without TLS" };
    let [_, off, on] = seen;
    let whole = |figures: &Figures| figures.daemon + figures.kernel;
    let ratios = off.iter().zip(on).map(|(off, on)| whole(off) / whole(on));
    let mut ratios: Vec<f64> = ratios.collect();
    let ratio = median(&mut ratios);
    for (mode, all) in MODES.iter().zip(seen) {
        let middle = |of: fn(&Figures) -> f64| median(&mut all.iter().map(of).collect::<Vec<_>>());
        let (p50, p99) = (middle(|f| f.p50), middle(|f| f.p99));
        let (daemon, kernel) = (middle(|f| f.daemon), middle(|f| f.kernel));
        match mode {
            Mode::Calm => println!("| nobody abuses | | | | {p50:.0} | {p99:.0} |"),
            Mode::Off => {
                println!(
                    "| {name}, escalation off | {daemon:.2} | {kernel:.2} | | {p50:.0} | {p99:.0} |"
                );
            }
            Mode::On => println!(
                "| {name}, escalation on | {daemon:.2} | {kernel:.2} | {ratio:.1} [{:.1}..{:.1}] | {p50:.0} | {p99:.0} |",
                ratios[0],
                ratios[ratios.len() - 1]
            ),
        }
    }
}

/// `accompanied` by another client, whose time is measured.
fn run(mode: Mode, secure: bool, accompanied: bool) -> Result<Figures> {
    pin(SERVER)?;
    let topology = Topology::new()?;
    let (gateway, abuser, other) = (&topology.gateway, &topology.first, &topology.second);
    let pins = topology.pins();
    let authority = Authority::new()?;
    let interfaces = [abuser, other].map(|client| client.gateway_interface.as_str());
    let policies = Policies::new(&[
        (
            "limiterd.yaml",
            &(config(&interfaces, &pins, "Detach") + "  http: {workers: 1}\n"),
        ),
        ("secret.yaml", &authority.secret("cert", "limited.test")?),
        ("gateway.yaml", &routes()),
        ("network.yaml", &network("edge", &judged(mode))),
    ])?;
    let _backend = demo_backend(gateway)?;
    let daemon = Daemon::start(gateway, policies.path())?;
    let kernel = own_thread(abuser, gateway)?;
    pin(CLIENTS)?;

    let tls = secure
        .then(|| authority.client(&["http/1.1"]))
        .transpose()?;
    let process = daemon.process.id();
    let before = (cpu_of(process)?, cpu(&kernel)?);
    let (latencies, abuse) = thread::scope(|scope| {
        let others = scope.spawn(|| match accompanied {
            true => waits(other),
            false => Ok(Vec::new()),
        });
        let abuse = match mode {
            Mode::Calm => Ok(Abuse::default()),
            Mode::Off | Mode::On => abuser.netns.enter(|| Abuse::commit(abuser, tls)),
        };
        (joined(others), abuse)
    });
    let (mut latencies, abuse) = (latencies?, abuse?);
    let after = (cpu_of(process)?, cpu(&kernel)?);
    check(mode, &abuse, &daemon, gateway)?;
    let million =
        |before: u64, after: u64| seconds(after - before) * 1_000_000.0 / f64::from(REQUESTS);
    latencies.sort_unstable();
    ensure!(latencies.is_empty() != accompanied, "no request was made");
    let at = |percent: usize| {
        let nanos = latencies.get(latencies.len() * percent / 100);
        nanos.map_or(0.0, |nanos| seconds(*nanos) * 1_000_000.0)
    };
    let figures = Figures {
        daemon: million(before.0, after.0),
        kernel: million(before.1, after.1),
        p50: at(50),
        p99: at(99),
    };
    eprintln!("{mode:?} {figures:?} {abuse:?}");
    Ok(figures)
}

/// What was offered arrived, and was answered or dropped as the mode says.
fn check(mode: Mode, abuse: &Abuse, daemon: &Daemon, gateway: &Netns) -> Result<()> {
    let dropped = daemon
        .metrics(gateway)?
        .packets("default/edge", "sentenced");
    let Abuse {
        asked,
        denied,
        by_hand,
    } = *abuse;
    match mode {
        Mode::Calm => {}
        Mode::Off => ensure!(
            by_hand == 0 && denied + 5 == asked && asked == REQUESTS,
            "not all that was offered was answered; is the machine quiet? {abuse:?}"
        ),
        Mode::On => ensure!(
            asked + by_hand == REQUESTS
                && by_hand > REQUESTS / 100 * 95
                && dropped >= f64::from(by_hand) * 0.99,
            "not all that was offered came and was dropped; is the machine quiet? {abuse:?}, \
             {dropped} dropped"
        ),
    }
    Ok(())
}

fn judged(mode: Mode) -> String {
    let escalation = match mode {
        Mode::Calm | Mode::Off => "",
        Mode::On => {
            "  escalation: {events: [{type: RateLimited}], threshold: {maxTokens: 20, tokensPerFill: 1, fillInterval: 1h}, blockFor: 1h}\n"
        }
    };
    format!(
        "  connections: {{maxTokens: 100000, tokensPerFill: 1, fillInterval: 1h}}\n{escalation}"
    )
}

fn routes() -> String {
    let gateway = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: eg}
spec:
  gatewayClassName: limiterd
  listeners:
  - {name: clear, protocol: HTTP, port: 8080}
  - {name: tls, protocol: HTTPS, port: 8443, tls: {certificateRefs: [{name: cert}]}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: demo}
spec: {endpoints: [{ip: {address: 127.0.0.1, port: 3000}}]}
";
    let limit = "local: {rules: [{limit: {requests: 5, unit: Hour}}]}";
    gateway.to_owned() + &limited_host("limited", limit) + &host_route("open")
}

/// Has a thread of the kernel receive what comes of `client`, on the server's CPU, and the client what
/// comes back to it on its own; the thread.
fn own_thread(client: &Client, gateway: &Netns) -> Result<String> {
    let known = napi_threads()?;
    let wire = &client.gateway_interface;
    within(gateway, &format!("echo 1 > /sys/class/net/{wire}/threaded"))?;
    let mask = 1 << CLIENTS;
    let steering = format!("/sys/class/net/{}/queues/rx-0/rps_cpus", client.interface);
    within(&client.netns, &format!("echo {mask:x} > {steering}"))?;
    let mut found = napi_threads()?;
    found.retain(|pid| !known.contains(pid));
    let [pid] = found.as_slice() else {
        bail!("not one thread receives from {wire}, but {}", found.len());
    };
    let mut cpus = CpuSet::new();
    cpus.set(SERVER);
    sched_setaffinity(Pid::from_raw(pid.parse()?), &cpus)?;
    hurry(pid.parse()?)?;
    Ok(format!("/proc/{pid}/schedstat"))
}

/// In a namespace whose interfaces `/sys` shows.
fn within(netns: &Netns, line: &str) -> Result<()> {
    let mut ip = Command::new("ip");
    let status = ip
        .args(["netns", "exec", netns.name(), "sh", "-c", line])
        .status()?;
    ensure!(status.success(), "{line}: {status}");
    Ok(())
}

fn napi_threads() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        // Processes may be gone already.
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.starts_with("napi/") {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(found)
}

/// CPU time of all threads of a process, in nanoseconds.
fn cpu_of(process: u32) -> Result<u64> {
    let mut all = 0;
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let path = thread?.path().join("schedstat");
        all += cpu(&path.to_string_lossy())?;
    }
    Ok(all)
}

fn cpu(schedstat: &str) -> Result<u64> {
    let text = std::fs::read_to_string(schedstat).with_context(|| schedstat.to_owned())?;
    let nanos = text.split_whitespace().next().context("no figure")?;
    Ok(nanos.parse()?)
}

/// What the abuser did.
#[derive(Clone, Copy, Debug, Default)]
struct Abuse {
    /// Requests over connections, answers with 429 to them, and segments made by hand.
    asked: u32,
    denied: u32,
    by_hand: u32,
}

impl Abuse {
    fn commit(abuser: &Client, tls: Option<Arc<ClientConfig>>) -> Result<Self> {
        let port = if tls.is_some() { 8443 } else { 8080 };
        let target = SocketAddr::new(abuser.gateway_v4.into(), port);
        let length = ASKED.len() + if tls.is_some() { RECORD } else { 0 };
        let hand = Hand::new((abuser.v4, abuser.gateway_v4), port, length)?;
        let connections = (0..CONNECTIONS).map(|_| Line::open(target, tls.clone()));
        let mut open: Vec<Line> = connections.collect::<Result<_>>()?;
        let mut abuse = Self::default();
        let begin = now();
        let (mut sent, mut ticks) = (0, 0);
        while sent < REQUESTS {
            let due = begin.elapsed().as_millis() * u128::from(RATE) / 1_000;
            let due = u32::try_from(due)?.min(REQUESTS);
            while sent < due {
                if open.is_empty() {
                    hand.send()?;
                    abuse.by_hand += 1;
                } else {
                    let turn = sent as usize % open.len();
                    open[turn].ask()?;
                    abuse.asked += 1;
                }
                sent += 1;
            }
            abuse.listen(&mut open)?;
            ticks += 1;
            thread::sleep((TICK * ticks).saturating_sub(begin.elapsed()));
        }
        let end = now();
        while !open.is_empty() && abuse.denied + 5 < abuse.asked {
            ensure!(end.elapsed() < PATIENCE, "answers are missing: {abuse:?}");
            abuse.listen(&mut open)?;
            thread::sleep(TICK);
        }
        Ok(abuse)
    }

    /// Reads what has come; connections that were ended are gone afterwards.
    fn listen(&mut self, open: &mut Vec<Line>) -> Result<()> {
        let mut lost = None;
        open.retain_mut(|line| match line.listen() {
            Ok((denied, is_open)) => {
                self.denied += denied;
                is_open
            }
            Err(error) => {
                lost = Some(error);
                false
            }
        });
        lost.map_or(Ok(()), Err)
    }
}

/// A kept connection that does not wait for answers.
struct Line {
    stream: TcpStream,
    tls: Option<ClientConnection>,
    unsent: Vec<u8>,
    /// The end of what was read, too short to be [`DENIED`].
    rest: Vec<u8>,
}

impl Line {
    fn open(target: SocketAddr, tls: Option<Arc<ClientConfig>>) -> Result<Self> {
        let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
        stream.set_nodelay(true)?;
        let tls = match tls {
            None => None,
            Some(config) => {
                let name = ServerName::try_from("limited.test")?;
                let mut connection = ClientConnection::new(config, name)?;
                connection.complete_io(&mut stream)?;
                Some(connection)
            }
        };
        stream.set_nonblocking(true)?;
        let (unsent, rest) = (Vec::new(), Vec::new());
        Ok(Self {
            stream,
            tls,
            unsent,
            rest,
        })
    }

    fn ask(&mut self) -> Result<()> {
        match &mut self.tls {
            None => self.unsent.extend_from_slice(ASKED.as_bytes()),
            Some(tls) => tls.writer().write_all(ASKED.as_bytes())?,
        }
        self.flush()
    }

    /// As far as there is room. What cannot be sent because the connection is ended is seen by
    /// [`Line::listen`].
    fn flush(&mut self) -> Result<()> {
        let written = match &mut self.tls {
            None => self
                .stream
                .write(&self.unsent)
                .map(|count| drop(self.unsent.drain(..count))),
            Some(tls) => {
                let mut written = Ok(());
                while tls.wants_write() && written.is_ok() {
                    written = tls.write_tls(&mut self.stream).map(drop);
                }
                written
            }
        };
        match written {
            Ok(()) => Ok(()),
            Err(error) if is_over(&error) || error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// How many answers with 429 have come, and whether the connection is still there.
    fn listen(&mut self) -> Result<(u32, bool)> {
        self.flush()?;
        let mut taken = [0; 16 << 10];
        loop {
            let read = match &mut self.tls {
                None => self.stream.read(&mut taken),
                Some(tls) => read_tls(tls, &mut self.stream, &mut taken),
            };
            match read {
                Ok(0) => return Ok((self.count(), false)),
                Ok(count) => self.rest.extend_from_slice(&taken[..count]),
                Err(error) if is_over(&error) => return Ok((self.count(), false)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok((self.count(), true));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn count(&mut self) -> u32 {
        let mut found = 0;
        let mut from = 0;
        while let Some(at) = self.rest[from..]
            .windows(DENIED.len())
            .position(|w| w == DENIED)
        {
            found += 1;
            from += at + DENIED.len();
        }
        let keep = (self.rest.len() - from).min(DENIED.len() - 1);
        self.rest.drain(..self.rest.len() - keep);
        found
    }
}

fn read_tls(
    tls: &mut ClientConnection,
    stream: &mut TcpStream,
    taken: &mut [u8],
) -> std::io::Result<usize> {
    match tls.reader().read(taken) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        read => return read,
    }
    if tls.read_tls(stream)? == 0 {
        return Ok(0);
    }
    tls.process_new_packets().map_err(std::io::Error::other)?;
    tls.reader()
        .read(taken)
        .or_else(|error| match error.kind() {
            // Half a record, or none of data.
            ErrorKind::WouldBlock => read_tls(tls, stream, taken),
            _ => Err(error),
        })
}

fn is_over(error: &std::io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    [BrokenPipe, ConnectionReset, UnexpectedEof].contains(&error.kind())
}

/// Sends segments without a connection.
struct Hand {
    socket: Socket,
    packet: Vec<u8>,
    to: socket2::SockAddr,
}

impl Hand {
    fn new((from, to): (Ipv4Addr, Ipv4Addr), port: u16, length: usize) -> Result<Self> {
        let socket = Socket::new(
            Domain::IPV4,
            Type::RAW,
            Some(Protocol::from(libc::IPPROTO_RAW)),
        )?;
        let mut packet = Vec::new();
        let segment = PacketBuilder::ipv4(from.octets(), to.octets(), 64);
        let segment = segment.tcp(40_000, port, 1, 1024).ack(1).psh();
        segment.write(&mut packet, &vec![b'x'; length])?;
        let to = SocketAddr::new(to.into(), 0).into();
        Ok(Self { socket, packet, to })
    }

    fn send(&self) -> Result<()> {
        self.socket.send_to(&self.packet, &self.to)?;
        Ok(())
    }
}

/// What another client waits for each of its requests, in nanoseconds.
fn waits(client: &Client) -> Result<Vec<u64>> {
    let every = Duration::from_secs(1) * OTHERS_CONNECTIONS / OTHERS_RATE;
    let time = Duration::from_secs(1) * REQUESTS / RATE;
    let begin = now() + Duration::from_millis(50);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..OTHERS_CONNECTIONS)
            .map(|number| {
                let first = begin + every * number / OTHERS_CONNECTIONS;
                let work = move || keep_rate(client, first, every, begin + time);
                scope.spawn(move || client.netns.enter(work))
            })
            .collect();
        let all: Result<Vec<_>> = threads.into_iter().map(joined).collect();
        Ok(all?.concat())
    })
}

fn keep_rate(client: &Client, first: Instant, every: Duration, end: Instant) -> Result<Vec<u64>> {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: it reads the parameters, which live as long as the call.
    let set = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) };
    ensure!(
        set == 0,
        "no real-time priority: {}",
        std::io::Error::last_os_error()
    );
    let stream =
        TcpStream::connect_timeout(&SocketAddr::new(client.gateway_v4.into(), 8080), PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut connection = Raw::on(stream);
    let mut latencies = Vec::new();
    let mut due = first;
    while due < end {
        thread::sleep(due.saturating_duration_since(now()));
        connection.send("GET / HTTP/1.1\r\nhost: open.test\r\n\r\n")?;
        let (status, ..) = connection.answer()?;
        ensure!(status == 200, "answered with {status}");
        latencies.push(u64::try_from(due.elapsed().as_nanos())?);
        due += every;
    }
    Ok(latencies)
}

/// Gives a process, and what it starts, precedence over others; 0: this one.
fn hurry(process: libc::id_t) -> Result<()> {
    const NICE: libc::c_int = -15;
    // SAFETY: it takes numbers only.
    let set = unsafe { libc::setpriority(libc::PRIO_PROCESS, process, NICE) };
    ensure!(set == 0, "no priority: {}", std::io::Error::last_os_error());
    Ok(())
}

fn pin(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    Ok(sched_setaffinity(None, &cpus)?)
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread
        .join()
        .map_err(|_panic| anyhow::anyhow!("a client panicked"))?
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn seconds(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64()
}

#[expect(clippy::disallowed_methods, reason = "it measures time")]
fn now() -> Instant {
    Instant::now()
}
