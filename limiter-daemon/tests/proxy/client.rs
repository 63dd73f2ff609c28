//! HTTP/1.1 as bytes on a socket: what is sent is what a test wrote.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::stage::PATIENCE;

/// A client's connection.
pub(crate) struct Client<S: Read + Write = TcpStream> {
    pub(crate) stream: BufReader<S>,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Lines behind the last chunk.
    pub(crate) trailers: String,
}

impl Answer {
    /// The values of a header; empty: it is not there.
    pub(crate) fn header(&self, name: &str) -> String {
        values(&self.head, name).join("|")
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The values of the header `name` in `head`.
pub(crate) fn values(head: &str, name: &str) -> Vec<String> {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim().to_owned())
        .collect()
}

pub(crate) fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::on(tcp(address))
    }
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn on(stream: S) -> Self {
        let stream = BufReader::new(stream);
        Self { stream }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// Sends what may be cut off by the other side.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        let _cut_off = self.stream.get_mut().write_all(bytes.as_ref());
    }

    /// A `GET` of `path` with these header lines.
    pub(crate) fn get(&mut self, path: &str, headers: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: h\r\n{headers}\r\n"));
        self.answer().unwrap()
    }

    /// The lines up to an empty one; `None`: the connection is closed.
    pub(crate) fn head(&mut self) -> Option<String> {
        let mut head = String::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).unwrap_or(0) == 0 {
                assert_eq!(head, "", "closed within a head");
                return None;
            }
            if line == "\r\n" {
                return Some(head);
            }
            head.push_str(&line);
        }
    }

    /// The next answer to a request with a body in the answer.
    pub(crate) fn answer(&mut self) -> Option<Answer> {
        let head = self.head()?;
        let mut answer = Answer {
            status: head.get(9..12)?.parse().unwrap(),
            head,
            ..Answer::default()
        };
        if answer.status < 200 || matches!(answer.status, 204 | 304) {
            return Some(answer);
        }
        (answer.body, answer.trailers) = self.body(&answer.head.clone()).unwrap();
        Some(answer)
    }

    /// A body as `head` frames it, and its trailers; `None`: it breaks off.
    pub(crate) fn body(&mut self, head: &str) -> Option<(Vec<u8>, String)> {
        let mut body = Vec::new();
        if let [length] = values(head, "content-length").as_slice() {
            body.resize(length.parse().unwrap(), 0);
            self.stream.read_exact(&mut body).ok()?;
        } else if values(head, "transfer-encoding") == ["chunked"] {
            loop {
                let mut size = String::new();
                self.stream.read_line(&mut size).ok()?;
                let size = usize::from_str_radix(size.trim(), 16).ok()?;
                if size == 0 {
                    return Some((body, self.head()?));
                }
                let start = body.len();
                body.resize(start + size, 0);
                self.stream.read_exact(&mut body[start..]).ok()?;
                let mut end = [0; 2];
                self.stream.read_exact(&mut end).ok()?;
                assert_eq!(&end, b"\r\n");
            }
        } else if head.starts_with("HTTP/") {
            self.stream.read_to_end(&mut body).ok()?;
        }
        Some((body, String::new()))
    }

    /// Whether the other side has closed, and sent nothing more.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => rest.is_empty(),
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// One request on a connection of its own.
pub(crate) fn get(address: SocketAddr, path: &str, headers: &str) -> Answer {
    Client::connect(address).get(path, headers)
}
