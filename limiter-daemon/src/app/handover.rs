//! Handing the listening sockets over to a new process of limiterd (`--takeover`).
//!
//! The daemon that runs passes its sockets, through a Unix socket, to one that starts. Both accept
//! from the same queues then, and when the new one is ready, the old one lets go and drains: no
//! connection is refused, and none is lost in a queue that is closed. What a new process that binds
//! beside the old one (`SO_REUSEPORT`) could not do: the queues of the old one's sockets would be the
//! old one's to empty, and the admin address is not shared.
//!
//! The Unix socket has an abstract name, made of the admin address. Such names belong to a network
//! namespace, as the addresses do that are handed over, and leave no file behind. Both sides ask the
//! kernel who the other is: the same user, or root.
//!
//! Messages: from the old one, a byte each that says what the descriptors with it are; from the new
//! one, `ready`, `kernel` if the kernel half is its own now, and the addresses that it has no use for, a
//! line each, and the end of the stream. If that comes without `ready`, the old one goes on.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{self as unix, UnixListener, UnixStream};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::cmsg_space;
use rustix::io::retry_on_intr;
use rustix::net::sockopt::{socket_acceptconn, socket_peercred};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::geteuid;
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, timeout_at};

use super::sockets::{Passed, Sockets};
use crate::admin::socket::Socket;

/// The second part is the version of the messages.
const NAME: &str = "limiterd/handover-1";
/// Descriptors in a message; the kernel takes 253.
const MAX_FDS: usize = 64;
/// For the old one to pass its sockets.
const PASSING: Duration = Duration::from_secs(10);
/// For the new one to become ready.
const STARTING: Duration = Duration::from_secs(60);
/// Bytes of the new one's answer.
const MAX_ANSWER: usize = 64 << 10;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const READY: &str = "ready";
const KERNEL: &str = "kernel";

/// What the descriptors of a message are.
const OWN: u8 = b'o';
const LENT: u8 = b'l';
const ADMIN: u8 = b'a';
const HAND_OVER: u8 = b'h';
/// The directory that is the lock on the kernel half.
const LOCK: u8 = b'k';
/// The memory of buckets of requests.
const BUCKETS: u8 = b'b';
const END: u8 = b'.';

fn name(admin: SocketAddr) -> io::Result<unix::SocketAddr> {
    unix::SocketAddr::from_abstract_name(format!("{NAME}/{admin}"))
}

/// Whether a limiterd of this network namespace has this admin address and could be taken over.
/// Nothing is said to it.
pub(super) fn is_served(admin: SocketAddr) -> io::Result<bool> {
    // In this table abstract names begin with `@`, and the name ends the line.
    let name = format!(" @{NAME}/{admin}");
    let sockets = std::fs::read_to_string("/proc/net/unix")?;
    Ok(sockets.lines().any(|line| line.ends_with(&name)))
}

/// Whether the other end is a process that could do to this one what it likes anyway.
fn is_trusted(stream: &impl AsFd) -> io::Result<bool> {
    let peer = socket_peercred(stream)?;
    Ok(peer.uid.is_root() || peer.uid == geteuid())
}

/// The side of the daemon that runs.
#[derive(Debug)]
pub(super) struct HandOver {
    /// `None`: nobody can ask.
    listener: Option<tokio::net::UnixListener>,
    taker: Option<Taker>,
}

/// A new process that has the sockets, and is not ready yet.
#[derive(Debug)]
struct Taker {
    stream: tokio::net::UnixStream,
    answer: Vec<u8>,
    deadline: Instant,
}

/// What a new process has taken over.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) kernel: bool,
    /// It has all sockets but those of these addresses.
    pub(super) left_over: Vec<SocketAddr>,
}

#[derive(Debug)]
pub(super) enum Event {
    /// A new process asks for the sockets.
    Asked(tokio::net::UnixStream),
    Taken(Taken),
    /// It has not, and will not.
    Failed(String),
}

impl HandOver {
    /// Listens to new processes, on the socket of the daemon before if there was one. Where that
    /// cannot be, nobody can take over.
    pub(super) fn start(admin: SocketAddr, given: Option<UnixListener>) -> Self {
        let listen = || {
            let socket = match given {
                Some(socket) => socket,
                None => UnixListener::bind_addr(&name(admin)?)?,
            };
            socket.set_nonblocking(true)?;
            tokio::net::UnixListener::from_std(socket)
        };
        let listener = listen()
            .inspect_err(|error| {
                tracing::warn!(%error, "no other process can take over the sockets (--takeover)");
            })
            .ok();
        Self {
            listener,
            taker: None,
        }
    }

    /// Whether a new process is starting on the sockets.
    pub(super) const fn is_under_way(&self) -> bool {
        self.taker.is_some()
    }

    /// Hands nothing over any more.
    pub(super) fn close(&mut self) {
        self.listener = None;
        self.taker = None;
    }

    pub(super) async fn event(&mut self) -> Event {
        loop {
            let Some(taker) = &mut self.taker else {
                let Some(listener) = &self.listener else {
                    return std::future::pending().await;
                };
                match listener.accept().await {
                    Ok((stream, _)) => return Event::Asked(stream),
                    Err(error) => {
                        tracing::warn!(%error, "hand-over: accept failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                }
            };
            let read = timeout_at(taker.deadline, taker.stream.read_buf(&mut taker.answer)).await;
            let result = match read {
                Ok(Ok(1..)) if taker.answer.len() <= MAX_ANSWER => continue,
                Ok(Ok(0)) => Taken::parse(&taker.answer),
                Ok(Ok(_)) => Err("its answer is too long".to_owned()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_late) => Err(format!("it was not ready after {STARTING:?}")),
            };
            self.taker = None;
            return result.map_or_else(Event::Failed, Event::Taken);
        }
    }

    /// Passes the sockets to who asked for them.
    ///
    /// # Errors
    /// When that is another user, or is gone.
    pub(super) fn offer(
        &mut self,
        stream: tokio::net::UnixStream,
        sockets: &Sockets,
        admin: &Socket,
        kernel: Option<BorrowedFd<'_>>,
        buckets: Option<BorrowedFd<'_>>,
    ) -> anyhow::Result<()> {
        let stream = stream.into_std()?;
        if !is_trusted(&stream)? {
            bail!("a process of another user asked for the sockets");
        }
        // A few bytes, for which the socket's buffer has room.
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(Duration::from_secs(1)))?;
        let own = sockets.served().filter(|served| !served.lent);
        let own = own.flat_map(|served| &served.sockets);
        pass(&stream, OWN, own.map(AsFd::as_fd))?;
        pass(&stream, LENT, sockets.lent().map(AsFd::as_fd))?;
        pass(&stream, ADMIN, [admin.as_fd()].into_iter())?;
        pass(&stream, HAND_OVER, self.listener.iter().map(AsFd::as_fd))?;
        pass(&stream, LOCK, kernel.into_iter())?;
        pass(&stream, BUCKETS, buckets.into_iter())?;
        pass(&stream, END, std::iter::empty())?;
        stream.set_nonblocking(true)?;
        self.taker = Some(Taker {
            stream: tokio::net::UnixStream::from_std(stream)?,
            answer: Vec::new(),
            deadline: Instant::now() + STARTING,
        });
        Ok(())
    }
}

impl Taken {
    fn parse(answer: &[u8]) -> Result<Self, String> {
        let answer = String::from_utf8_lossy(answer);
        let mut lines = answer.lines();
        if lines.next() != Some(READY) {
            return Err("it ended before it was ready".to_owned());
        }
        let mut taken = Self::default();
        for line in lines {
            if line == KERNEL {
                taken.kernel = true;
            } else {
                let address = line.parse().map_err(|error| format!("{line}: {error}"))?;
                taken.left_over.push(address);
            }
        }
        Ok(taken)
    }
}

fn pass<'fd>(
    stream: &UnixStream,
    kind: u8,
    mut fds: impl Iterator<Item = BorrowedFd<'fd>>,
) -> io::Result<()> {
    loop {
        let some: Vec<_> = fds.by_ref().take(MAX_FDS).collect();
        if some.is_empty() && kind != END {
            return Ok(());
        }
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !some.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&some)) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let byte = [kind];
        let bytes = [IoSlice::new(&byte)];
        retry_on_intr(|| sendmsg(stream, &bytes, &mut control, SendFlags::NOSIGNAL))?;
        if kind == END {
            return Ok(());
        }
    }
}

/// The side of the process that starts: the old daemon, which waits for it to be ready.
#[derive(Debug)]
pub(super) struct Taking {
    stream: UnixStream,
    pub(super) passed: Passed,
    pub(super) hand_over: Option<UnixListener>,
    /// The lock on the kernel half.
    pub(super) kernel: Option<File>,
}

impl Taking {
    /// Takes the sockets of the limiterd with this admin address; `None`: there is none.
    ///
    /// # Errors
    /// When there is one that does not pass them, or another program in its place.
    pub(super) fn ask(admin: SocketAddr) -> anyhow::Result<Option<Self>> {
        let stream = match UnixStream::connect_addr(&name(admin)?) {
            Ok(stream) => stream,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if !is_trusted(&stream)? {
            bail!("who would pass them is neither root nor the user that this process runs as");
        }
        stream.set_read_timeout(Some(PASSING))?;
        let mut taking = Self {
            stream,
            passed: Passed::default(),
            hand_over: None,
            kernel: None,
        };
        loop {
            let (kind, fds) = taking.receive().context("it passed no sockets")?;
            if kind == END {
                break;
            }
            for fd in fds {
                taking.keep(kind, fd)?;
            }
        }
        Ok(Some(taking))
    }

    fn receive(&self) -> io::Result<(u8, Vec<OwnedFd>)> {
        let mut byte = [0];
        let mut bytes = [IoSliceMut::new(&mut byte)];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = retry_on_intr(|| recvmsg(&self.stream, &mut bytes, &mut control, flags))?;
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = message {
                fds.extend(some);
            }
        }
        if got.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok((byte[0], fds))
    }

    fn keep(&mut self, kind: u8, fd: OwnedFd) -> anyhow::Result<()> {
        match kind {
            LOCK => {
                self.kernel = Some(fd.into());
                return Ok(());
            }
            BUCKETS => {
                self.passed.buckets = Some(fd);
                return Ok(());
            }
            OWN | LENT | ADMIN | HAND_OVER => {}
            // Of a version to come; it goes on without.
            other => {
                tracing::debug!(other, "what was passed is not known");
                return Ok(());
            }
        }
        if !socket_acceptconn(&fd)? {
            bail!("it passed something else than a listening socket");
        }
        match kind {
            OWN => {
                let socket = TcpListener::from(fd);
                let address = socket.local_addr()?;
                self.passed.given.entry(address).or_default().push(socket);
            }
            LENT => {
                let socket = TcpListener::from(fd);
                self.passed.lent.push((socket.local_addr()?, socket));
            }
            ADMIN => self.passed.admin = Some(Socket::from_fd(fd)),
            _ => self.hand_over = Some(fd.into()),
        }
        Ok(())
    }

    /// Tells the old daemon to go.
    ///
    /// # Errors
    /// When it is gone already.
    pub(super) fn ready(mut self, taken: &Taken) -> io::Result<()> {
        let mut answer = format!("{READY}\n");
        if taken.kernel {
            answer.push_str(&format!("{KERNEL}\n"));
        }
        for address in &taken.left_over {
            answer.push_str(&format!("{address}\n"));
        }
        self.stream.write_all(answer.as_bytes())?;
        self.stream.shutdown(Shutdown::Write)
    }
}

/// Asks the limiterd with this admin address for its sockets.
pub(super) fn take_over(admin: SocketAddr) -> anyhow::Result<Option<Taking>> {
    let taking = Taking::ask(admin).with_context(|| {
        format!("the sockets of the limiterd with the admin address {admin} cannot be taken over")
    })?;
    if taking.is_none() {
        tracing::info!(%admin, "no limiterd runs with this admin address: there is nothing to take over");
    }
    Ok(taking)
}
