//! The clients of the HTTP benchmarks that no tool has: an open loop at a fixed rate, and a million
//! clients of whom each comes once.
//!
//! `bench_http latency ADDRESS RATE SECONDS` sends RATE requests a second, each at its own time, whether
//! or not earlier ones are answered (as far as [`CONNECTIONS`] go), and measures from the time at which
//! a request was due: a server that stalls is not given credit for the requests that it kept from being
//! sent. It prints the nanoseconds of the percentiles 50, 99 and 99.9.
//!
//! `bench_http distinct ADDRESS COUNT` sends COUNT requests, each with another value of `x-user-id`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// Connections, each with a thread of its own.
const CONNECTIONS: u32 = 32;
const TIMEOUT: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["latency", address, rate, seconds] => {
            latency(address.parse()?, rate.parse()?, seconds.parse()?)
        }
        ["distinct", address, count] => distinct(address.parse()?, count.parse()?),
        _ => bail!("bench_http latency ADDRESS RATE SECONDS | distinct ADDRESS COUNT"),
    }
}

fn latency(address: SocketAddr, rate: u32, seconds: u32) -> Result<()> {
    ensure!(rate > 0 && seconds > 0, "a rate and a time above zero");
    let every = Duration::from_secs(1) * CONNECTIONS / rate;
    let start = now() + Duration::from_millis(100);
    let end = start + Duration::from_secs(seconds.into());
    let mut latencies: Vec<u64> = thread::scope(|scope| -> Result<_> {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|n| {
                let first = start + every * n / CONNECTIONS;
                scope.spawn(move || keep_rate(address, first, every, end))
            })
            .collect();
        let mut all = Vec::new();
        for thread in threads {
            let latencies = thread
                .join()
                .map_err(|_panic| anyhow::anyhow!("a client panicked"))?;
            all.extend(latencies?);
        }
        Ok(all)
    })?;
    latencies.sort_unstable();
    let at = |per_mille: usize| -> Result<u64> {
        let index = latencies.len() * per_mille / 1_000;
        latencies.get(index).copied().context("no request was made")
    };
    println!("{} {} {}", at(500)?, at(990)?, at(999)?);
    Ok(())
}

/// One connection's share of the requests: how long each took, from when it was due.
fn keep_rate(
    address: SocketAddr,
    first: Instant,
    every: Duration,
    end: Instant,
) -> Result<Vec<u64>> {
    let mut connection = Connection::open(address)?;
    let request = format!("GET / HTTP/1.1\r\nhost: {address}\r\n\r\n");
    let mut latencies = Vec::new();
    let mut due = first;
    while due < end {
        thread::sleep(due.saturating_duration_since(now()));
        let status = connection.ask(request.as_bytes())?;
        ensure!(status == 200, "answered with {status}");
        latencies.push(u64::try_from(due.elapsed().as_nanos())?);
        due += every;
    }
    Ok(latencies)
}

fn distinct(address: SocketAddr, count: u32) -> Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|n| {
                scope.spawn(move || {
                    let mut connection = Connection::open(address)?;
                    for user in (n..count).step_by(CONNECTIONS as usize) {
                        let request = format!(
                            "GET / HTTP/1.1\r\nhost: {address}\r\nx-user-id: user-{user}\r\n\r\n"
                        );
                        let status = connection.ask(request.as_bytes())?;
                        ensure!(status == 200, "user {user} was answered with {status}");
                    }
                    Ok(())
                })
            })
            .collect();
        for thread in threads {
            thread
                .join()
                .map_err(|_panic| anyhow::anyhow!("a client panicked"))??;
        }
        Ok(())
    })
}

/// A connection that is kept.
struct Connection {
    stream: BufReader<TcpStream>,
    line: String,
    body: Vec<u8>,
}

impl Connection {
    fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self {
            stream: BufReader::new(stream),
            line: String::new(),
            body: Vec::new(),
        })
    }

    /// Sends `request` and reads the answer to its end; its status.
    fn ask(&mut self, request: &[u8]) -> Result<u16> {
        self.stream.get_mut().write_all(request)?;
        let status = self.line()?;
        let status = status.split(' ').nth(1).context("no status")?.parse()?;
        let mut length = None;
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').context("no header")?;
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.trim().parse()?);
            }
        }
        let length = length.context("only answers with a content-length are read here")?;
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body)?;
        Ok(status)
    }

    fn line(&mut self) -> Result<&str> {
        self.line.clear();
        self.stream.read_line(&mut self.line)?;
        ensure!(self.line.ends_with('\n'), "the connection was closed");
        Ok(self.line.trim_end())
    }
}

#[expect(clippy::disallowed_methods, reason = "it measures time")]
fn now() -> Instant {
    Instant::now()
}
