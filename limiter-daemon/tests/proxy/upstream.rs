//! Upstreams that do what a test says, on threads of their own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::client::{Client, values};
use super::stage::{PATIENCE, address};

/// A listening upstream. Its threads end with their connections.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> String {
        values(&self.head, name).join("|")
    }

    /// The request line without the version.
    pub(crate) fn target(&self) -> &str {
        self.head.split(" HTTP/").next().unwrap_or("")
    }
}

impl Upstream {
    /// Each connection is `serve`'s, with its number.
    pub(crate) fn new(serve: impl Fn(Client, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address()).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let serve = Arc::new(serve);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_nodelay(true).unwrap();
                let number = counted.fetch_add(1, Ordering::SeqCst);
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || serve(Client::on(stream), number));
            }
        });
        Self {
            address,
            connections,
            seen: Arc::default(),
        }
    }

    /// Answers each request with `answer`, and keeps what it saw.
    pub(crate) fn answering(answer: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&seen);
        let mut upstream = Self::new(move |client, _| serve(client, &keep, &answer));
        upstream.seen = seen;
        upstream
    }

    /// Answers each request with 200 and its head as the body.
    pub(crate) fn echo() -> Self {
        Self::answering(|seen| ok(seen.head.as_bytes()))
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn last(&self) -> Seen {
        self.seen().last().cloned().unwrap()
    }
}

fn serve(mut client: Client, keep: &Mutex<Vec<Seen>>, answer: &impl Fn(&Seen) -> Vec<u8>) {
    while let Some(seen) = read(&mut client) {
        let answer = answer(&seen);
        keep.lock().unwrap().push(seen);
        client.try_send(answer);
    }
}

/// The next request; `None`: closed.
pub(crate) fn read<S: Read + Write>(client: &mut Client<S>) -> Option<Seen> {
    let head = client.head()?;
    let (body, trailers) = client.body(&head)?;
    Some(Seen {
        head,
        body,
        trailers,
    })
}

/// A response with a body.
pub(crate) fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Nothing listens here.
pub(crate) fn nobody() -> SocketAddr {
    address()
}
