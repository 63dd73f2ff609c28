//! A backend that misbehaves as a test says, is gone, and comes back on the same port.

use std::collections::{HashMap, VecDeque};
use std::io::Read as _;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::net::{Shutdown as ShutdownHow, shutdown};
use socket2::SockRef;

use crate::netns::Netns;
use crate::raw::{Raw, header};
use crate::upstream::{Seen, response};

/// For anything that a test waits for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Requests that are kept, the last ones.
const KEPT: usize = 64;
/// Bytes of a piece of a flood.
const PIECE: usize = 64 << 10;

/// What a backend does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// Answers 200: with the request's body, or with N bytes where the target is `/bytes/N`.
    Echo,
    /// [`Script::Echo`], once [`Scripted::release`] lets it.
    Hold,
    /// This status (`503 Busy`), these header lines (each with its `\r\n`), no body.
    Answer(&'static str, &'static str),
    /// Says nothing until the other end goes away.
    Stall,
    /// Closes without an answer.
    Close,
    /// Resets the connection without an answer.
    Reset,
    /// Ends what it sends without an answer, and goes on reading.
    HalfClose,
    /// Answers with what is no HTTP.
    Garbage,
    /// Closes in the middle of an answer's body.
    HalfAnswer,
    /// Resets the connection in the middle of an answer's body.
    ResetAnswer,
    /// Stops in the middle of an answer's body, and stays.
    StallAnswer,
    /// A body without end.
    FloodBody,
    /// A head without end.
    FloodHead,
    /// `100 Continue` without end.
    FloodContinue,
    /// An answer, and behind it one that nobody has asked for.
    Unasked,
    /// Closes while the request's body is still coming, without having read any of it.
    EarlyClose,
    /// The same, behind an answer: 413.
    EarlyAnswerClose,
    /// Answers 413 while the request's body is still coming, and takes the rest of it until the other
    /// end goes away.
    EarlyAnswer,
}

/// What a backend has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections accepted.
    pub connections: usize,
    /// Connections open.
    pub open: usize,
    /// Requests of which the head came.
    pub requests: usize,
}

/// A listening backend of HTTP/1.1 on an address. It goes with its connections when dropped.
#[derive(Debug)]
pub struct Scripted {
    address: String,
    shared: Arc<Shared>,
    listening: Mutex<Option<Listening>>,
}

#[derive(Debug)]
struct Listening {
    listener: Arc<TcpListener>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    counts: Counts,
    seen: VecDeque<Seen>,
    /// For the next requests, before `script`.
    next: VecDeque<Script>,
    script: Script,
    /// Requests that may go on under [`Script::Hold`].
    released: usize,
    /// By number.
    open: HashMap<usize, TcpStream>,
    /// How often it went down: what waits since before gives up.
    downs: usize,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state());
        self.changed.notify_all();
        changed
    }
}

impl Scripted {
    /// Listens on `address` in `netns` and plays [`Script::Echo`].
    ///
    /// # Errors
    /// When the address is taken.
    pub fn start(netns: &Netns, address: &str) -> Result<Self> {
        let backend = Self {
            address: address.to_owned(),
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    counts: Counts::default(),
                    seen: VecDeque::new(),
                    next: VecDeque::new(),
                    script: Script::Echo,
                    released: 0,
                    open: HashMap::new(),
                    downs: 0,
                }),
                changed: Condvar::new(),
            }),
            listening: Mutex::new(None),
        };
        backend.up(netns)?;
        Ok(backend)
    }

    /// What it does from now on, behind what [`Scripted::next`] says.
    pub fn plays(&self, script: Script) {
        self.shared.change(|state| state.script = script);
    }

    /// What it does with the next requests.
    pub fn next(&self, scripts: impl IntoIterator<Item = Script>) {
        self.shared.change(|state| state.next.extend(scripts));
    }

    /// Lets so many requests go on that are, or will be, under [`Script::Hold`].
    pub fn release(&self, count: usize) {
        self.shared.change(|state| state.released += count);
    }

    /// Closes the listener and all connections, as the end of a process does. What is down stays so.
    pub fn down(&self) {
        let mut listening = self.listening();
        let Some(Listening {
            listener,
            accepting,
        }) = listening.take()
        else {
            return;
        };
        // Wakes the thread that accepts.
        let _closed = shutdown(&*listener, ShutdownHow::Both);
        if accepting.join().is_err() {
            eprintln!("a backend's thread panicked");
        }
        drop(listener);
        self.shared.change(|state| {
            state.downs += 1;
            for stream in state.open.values() {
                // It may be closed by the other end already.
                let _closed = stream.shutdown(Shutdown::Both);
            }
        });
    }

    /// Listens again. What is up stays so.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn up(&self, netns: &Netns) -> Result<()> {
        let mut listening = self.listening();
        if listening.is_some() {
            return Ok(());
        }
        let bound = netns.enter(|| Ok(TcpListener::bind(&self.address)?));
        let listener = Arc::new(bound.with_context(|| self.address.clone())?);
        let (accepts, shared) = (Arc::clone(&listener), Arc::clone(&self.shared));
        let accepting = thread::spawn(move || {
            while let Ok((stream, _)) = accepts.accept() {
                take(&shared, stream);
            }
        });
        *listening = Some(Listening {
            listener,
            accepting,
        });
        Ok(())
    }

    fn listening(&self) -> MutexGuard<'_, Option<Listening>> {
        self.listening
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    #[must_use]
    pub fn is_up(&self) -> bool {
        self.listening().is_some()
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.state().counts
    }

    /// The last requests, the latest last. A body that the script does not read is empty.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.iter().cloned().collect()
    }

    /// Waits until what it has seen satisfies `wanted`.
    ///
    /// # Errors
    /// When it does not, after half a minute.
    pub fn wait_for(&self, wanted: impl Fn(&Counts) -> bool) -> Result<Counts> {
        let state = self.shared.state();
        let waits = |state: &mut State| !wanted(&state.counts);
        let waited = self
            .shared
            .changed
            .wait_timeout_while(state, PATIENCE, waits);
        let (state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            bail!("a backend has seen {:?} and no more", state.counts);
        }
        Ok(state.counts)
    }

    /// Waits until so many requests have come.
    ///
    /// # Errors
    /// When they do not.
    pub fn came(&self, requests: usize) -> Result<()> {
        self.wait_for(|counts| counts.requests >= requests)
            .map(drop)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.down();
    }
}

/// Serves a connection on a thread of its own.
fn take(shared: &Arc<Shared>, stream: TcpStream) {
    let Ok(copy) = stream.try_clone() else {
        return;
    };
    let (number, downs) = shared.change(|state| {
        let number = state.counts.connections;
        state.open.insert(number, copy);
        state.counts.connections += 1;
        state.counts.open += 1;
        (number, state.downs)
    });
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        // The proxy may drop connections; what a test is about it sees at the client.
        let _ended = serve(&shared, stream, downs);
        shared.change(|state| {
            state.open.remove(&number);
            state.counts.open -= 1;
        });
    });
}

fn serve(shared: &Shared, stream: TcpStream, downs: usize) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut peer = Raw::on(stream);
    while let Some(head) = peer.head()? {
        let script = shared.change(|state| {
            state.counts.requests += 1;
            state.next.pop_front().unwrap_or(state.script)
        });
        let body = match script {
            Script::EarlyClose | Script::EarlyAnswerClose | Script::EarlyAnswer => Vec::new(),
            _ => body(&head, &mut peer)?,
        };
        let seen = Seen { head, body };
        shared.change(|state| {
            state.seen.push_back(seen.clone());
            if state.seen.len() > KEPT {
                state.seen.pop_front();
            }
        });
        if script == Script::Hold {
            hold(shared, downs)?;
        }
        if !play(script, &seen, &mut peer)? {
            return Ok(());
        }
    }
    Ok(())
}

fn body(head: &str, peer: &mut Raw) -> Result<Vec<u8>> {
    if header(head, "transfer-encoding").is_empty() {
        let length = header(head, "content-length");
        return peer.bytes(length.parse().unwrap_or(0));
    }
    let mut body = Vec::new();
    loop {
        let chunk = peer.chunk()?;
        if chunk.is_empty() {
            return Ok(body);
        }
        body.extend(chunk);
    }
}

/// Waits to be let go.
fn hold(shared: &Shared, downs: usize) -> Result<()> {
    let held = |state: &mut State| state.released == 0 && state.downs == downs;
    let state = shared.changed.wait_while(shared.state(), held);
    let mut state = state.unwrap_or_else(PoisonError::into_inner);
    if state.downs != downs {
        bail!("down");
    }
    state.released -= 1;
    Ok(())
}

/// Whether the connection goes on.
fn play(script: Script, seen: &Seen, peer: &mut Raw) -> Result<bool> {
    const HALF: &str = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf!";
    match script {
        Script::Echo | Script::Hold => {
            peer.send(echo(seen))?;
            return Ok(true);
        }
        Script::Answer(status, headers) => {
            peer.send(response(status, headers, ""))?;
            return Ok(true);
        }
        Script::Stall => gone(peer)?,
        Script::Close | Script::EarlyClose => {}
        Script::Reset => reset(peer)?,
        Script::HalfClose => {
            peer.get_ref().shutdown(Shutdown::Write)?;
            gone(peer)?;
        }
        Script::Garbage => peer.send("SSH-2.0-OpenSSH_9.2\r\n\r\n\0\x01\u{fffd}garbage\r\n\r\n")?,
        Script::HalfAnswer => peer.send(HALF)?,
        Script::ResetAnswer => {
            peer.send(HALF)?;
            reset(peer)?;
        }
        Script::StallAnswer => {
            peer.send(HALF)?;
            gone(peer)?;
        }
        Script::FloodBody => {
            peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
            let mut chunk = format!("{PIECE:x}\r\n").into_bytes();
            chunk.resize(chunk.len() + PIECE, b'.');
            chunk.extend(b"\r\n");
            flood(peer, &chunk)?;
        }
        Script::FloodHead => {
            peer.send("HTTP/1.1 200 OK\r\n")?;
            flood(peer, &b"x-flood: more and more and more\r\n".repeat(1000))?;
        }
        Script::FloodContinue => flood(peer, &b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000))?,
        Script::Unasked => {
            let asked = response("200 OK", "", "asked");
            let unasked = response("200 OK", "x-unasked: yes\r\n", "unasked");
            peer.send(asked + &unasked)?;
            return Ok(true);
        }
        Script::EarlyAnswerClose | Script::EarlyAnswer => {
            let answer = response("413 Too Much", "connection: close\r\n", "too much");
            peer.send(answer)?;
            if script == Script::EarlyAnswer {
                gone(peer)?;
            }
        }
    }
    Ok(false)
}

/// Head and body in one piece: what is killed has sent all of it, or none.
fn echo(seen: &Seen) -> Vec<u8> {
    let count = seen.line().split("/bytes/").nth(1);
    let body = match count.and_then(|count| count.parse().ok()) {
        Some(count) => vec![b'.'; count],
        None => seen.body.clone(),
    };
    let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    answer.reserve(body.len());
    let mut answer = answer.into_bytes();
    answer.extend(body);
    answer
}

/// Waits until the other end is gone.
fn gone(peer: &mut Raw) -> Result<()> {
    let mut rest = [0; 1024];
    let mut stream = peer.get_ref();
    while stream.read(&mut rest)? > 0 {}
    Ok(())
}

/// Closing it is a reset from now on.
fn reset(peer: &Raw) -> Result<()> {
    Ok(SockRef::from(peer.get_ref()).set_linger(Some(Duration::ZERO))?)
}

fn flood(peer: &mut Raw, piece: &[u8]) -> Result<()> {
    loop {
        peer.send(piece)?;
    }
}
