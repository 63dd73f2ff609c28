//! The smallest HTTP client that can tell whether a server is there and what it answers.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::child::{Interrupt, Server};
use crate::cmd::Stopwatch;

const TIMEOUT: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(100);

/// Status of `GET path` at `address`.
pub(crate) fn status(address: SocketAddr, path: &str) -> Result<u16> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    parse_status(&head).with_context(|| format!("http://{address}{path} does not speak HTTP"))
}

/// Waits until `GET path` is answered with `expected`, as long as `servers` run.
pub(crate) fn wait_for(
    expected: u16,
    address: SocketAddr,
    path: &str,
    deadline: Duration,
    interrupt: &Interrupt,
    servers: &mut [&mut Server],
) -> Result<()> {
    let waited = Stopwatch::start();
    let mut last = "no answer".to_owned();
    while waited.elapsed() < deadline {
        for server in servers.iter_mut() {
            server.check()?;
        }
        if interrupt.seen() {
            bail!("interrupted");
        }
        last = match status(address, path) {
            Ok(status) if status == expected => return Ok(()),
            Ok(status) => format!("status {status}"),
            Err(error) => format!("{error:#}"),
        };
        thread::sleep(POLL);
    }
    bail!("http://{address}{path} did not answer {expected} within {deadline:?}; last: {last}")
}

fn parse_status(head: &[u8]) -> Option<u16> {
    let head = std::str::from_utf8(head).ok()?;
    head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parse_status;

    #[test]
    fn a_status_line_is_read() {
        assert_eq!(parse_status(b"HTTP/1.1 429"), Some(429));
        assert_eq!(parse_status(b"HTTP/1.0 200"), Some(200));
        assert_eq!(parse_status(b"SSH-2.0-Open"), None);
    }
}
