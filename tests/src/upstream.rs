//! Upstreams that do what a test says.

use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};
use rustix::net::{Shutdown, shutdown};

use crate::netns::Netns;
use crate::raw::{Raw, bounded, header};

/// A listening upstream of HTTP/1.1; it stops to listen when dropped.
#[derive(Debug)]
pub struct Upstream {
    listener: Arc<TcpListener>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Request line and headers.
    pub head: String,
    pub body: Vec<u8>,
}

impl Seen {
    /// The value of a header; several are joined by `, `, none is empty.
    #[must_use]
    pub fn header(&self, name: &str) -> String {
        header(&self.head, name)
    }

    /// Method and target.
    #[must_use]
    pub fn line(&self) -> &str {
        self.head.split(" HTTP/").next().unwrap_or_default()
    }
}

impl Upstream {
    /// Listens on `address` in `netns`. Each request is handed to `answer` with the connection to
    /// write to; what that returns `false` for is closed after it.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn start(
        netns: &Netns,
        address: &str,
        answer: impl Fn(&Seen, &mut Raw) -> Result<bool> + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = Arc::new(netns.enter(|| Ok(TcpListener::bind(address)?))?);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (accepting, keep) = (Arc::clone(&listener), Arc::clone(&seen));
        let answer = Arc::new(answer);
        thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                let (keep, answer) = (Arc::clone(&keep), Arc::clone(&answer));
                thread::spawn(move || serve(stream, &keep, &*answer));
            }
        });
        Ok(Self { listener, seen })
    }

    /// Answers each request with 200 and its head.
    ///
    /// # Errors
    /// As [`Upstream::start`].
    pub fn echo(netns: &Netns, address: &str) -> Result<Self> {
        Self::start(netns, address, |seen, client| {
            client.send(response("200 OK", "", &seen.head))?;
            Ok(true)
        })
    }

    /// The requests so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone()
    }

    /// The last request.
    ///
    /// # Errors
    /// When there was none.
    pub fn last(&self) -> Result<Seen> {
        self.seen().pop().context("the upstream saw no request")
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // Wakes the thread that accepts; it would go on until the process ends.
        let _closed = shutdown(&*self.listener, Shutdown::Both);
    }
}

fn serve(
    stream: TcpStream,
    keep: &Mutex<Vec<Seen>>,
    answer: &dyn Fn(&Seen, &mut Raw) -> Result<bool>,
) {
    let exchange = || -> Result<()> {
        bounded(&stream)?;
        let mut client = Raw::on(stream);
        while let Some(head) = client.head()? {
            let length = header(&head, "content-length");
            let length = if length.is_empty() {
                0
            } else {
                length.parse()?
            };
            let body = client.bytes(length)?;
            let seen = Seen { head, body };
            let all = keep.lock();
            all.unwrap_or_else(PoisonError::into_inner)
                .push(seen.clone());
            if !answer(&seen, &mut client)? {
                break;
            }
        }
        Ok(())
    };
    // The proxy may drop idle connections; what a test is about it sees at the client.
    let _ended = exchange();
}

/// A response with these header lines (each with its `\r\n`).
#[must_use]
pub fn response(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}")
}
