//! HTTP/1.1 as bytes on a connection: what comes can be seen piece by piece.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::netns::Netns;

/// For any step of an exchange.
const PATIENCE: Duration = Duration::from_secs(30);

/// One end of a connection.
#[derive(Debug)]
pub struct Raw<S: Read + Write = TcpStream> {
    stream: BufReader<S>,
}

/// A connection to `address` from inside `netns`, of which no step takes longer than half a minute.
///
/// # Errors
/// When nobody listens there.
pub fn tcp(netns: &Netns, address: &str) -> Result<TcpStream> {
    let stream = netns.enter(|| Ok(TcpStream::connect(address)?))?;
    bounded(&stream)?;
    Ok(stream)
}

/// # Errors
/// When the connection is gone.
pub(crate) fn bounded(stream: &TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream.set_nodelay(true)?)
}

impl<S: Read + Write> Raw<S> {
    pub fn on(stream: S) -> Self {
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// The stream below.
    pub fn get_ref(&self) -> &S {
        self.stream.get_ref()
    }

    /// # Errors
    /// When the other side is gone.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(bytes.as_ref())?;
        Ok(stream.flush()?)
    }

    /// The lines up to an empty one; `None`: the connection was closed before the first.
    ///
    /// # Errors
    /// When it breaks off, or takes too long.
    pub fn head(&mut self) -> Result<Option<String>> {
        let mut head = String::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                ensure!(head.is_empty(), "closed after {head:?}");
                return Ok(None);
            }
            if line == "\r\n" {
                return Ok(Some(head));
            }
            head.push_str(&line);
        }
    }

    /// Exactly so many bytes.
    ///
    /// # Errors
    /// When it breaks off, or takes too long.
    pub fn bytes(&mut self, count: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// The next chunk of a chunked body; empty: the last one, with what follows it.
    ///
    /// # Errors
    /// When it breaks off, takes too long, or is no chunk.
    pub fn chunk(&mut self) -> Result<Vec<u8>> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim(), 16)
            .with_context(|| format!("{line:?} is no size of a chunk"))?;
        if size == 0 {
            self.head()?;
            return Ok(Vec::new());
        }
        let mut chunk = self.bytes(size + 2)?;
        ensure!(chunk.ends_with(b"\r\n"), "the chunk does not end");
        chunk.truncate(size);
        Ok(chunk)
    }

    /// Status, head and body of an answer whose length is stated.
    ///
    /// # Errors
    /// When there is none.
    pub fn answer(&mut self) -> Result<(u16, String, String)> {
        let head = self.head()?.context("closed")?;
        let status = head.get(9..12).context("no status")?.parse()?;
        let length = header(&head, "content-length").parse()?;
        let body = String::from_utf8(self.bytes(length)?)?;
        Ok((status, head, body))
    }
}

/// The value of a header in `head`; several are joined by `, `, none is empty.
#[must_use]
pub fn header(head: &str, name: &str) -> String {
    let values: Vec<_> = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
        .collect();
    values.join(", ")
}
