//! The listening sockets: those that systemd or a running daemon passed, and those bound here.
//!
//! A socket serves the listener whose address it has, whoever bound it. Sockets of systemd stay its
//! own: they are kept for as long as the daemon runs, for policies to come, and are only copied.
//! Those of a daemon whose place is taken become this one's.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use anyhow::{Context as _, bail};
use listenfd::ListenFd;
use rustix::net::sockopt::{ipv6_v6only, socket_acceptconn};
use tokio::time::timeout;

use super::{fd_store, privileges};
use crate::admin::socket::Socket;
use crate::l7::{Workers, listener};
use crate::policy::plan::Plan;

/// What systemd calls the socket of the admin listener (`FileDescriptorName=`).
const ADMIN: &str = "admin";
/// For clients that were let in at addresses that are served no more. Workers may be full.
const CLOSING: Duration = Duration::from_secs(5);

/// Sockets that another process passed, and that no address uses yet.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// systemd's, with their addresses.
    pub(super) lent: Vec<(SocketAddr, TcpListener)>,
    /// A daemon's whose place is taken.
    pub(super) given: HashMap<SocketAddr, Vec<TcpListener>>,
    pub(super) admin: Option<Socket>,
    /// The memory of the buckets of the daemon before.
    pub(super) buckets: Option<OwnedFd>,
}

/// Every socket of the daemon.
#[derive(Debug)]
pub(super) struct Sockets {
    passed: Passed,
    served: HashMap<SocketAddr, Served>,
    /// Addresses that were ever bound here.
    bound: HashSet<SocketAddr>,
}

/// An address that is not served yet.
#[derive(Debug)]
pub(super) struct Opened {
    address: SocketAddr,
    for_workers: Vec<TcpListener>,
    served: Served,
}

/// The sockets of an address. These are copies of those that workers accept from.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) sockets: Vec<TcpListener>,
    /// They are systemd's as well.
    pub(super) lent: bool,
}

impl Served {
    /// Drops the copies: the workers' are to be the last. Where they are, nobody is let in any more; at
    /// all sockets of the address, before the first of them is closed.
    fn let_go(self, address: SocketAddr) {
        if self.lent {
            return;
        }
        for socket in &self.sockets {
            if let Err(error) = listener::let_nobody_in(socket) {
                tracing::warn!(%address, %error, "clients that come while it is closed may be reset");
            }
        }
    }
}

impl Passed {
    /// What systemd passed, or another who keeps to sd_listen_fds(3). To be called while there is one
    /// thread: the variables are taken out of the environment.
    ///
    /// # Errors
    /// For what is no listening stream socket, or a Unix socket that has no use here.
    pub(super) fn by_systemd() -> anyhow::Result<Self> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut fds = ListenFd::from_env();
        let mut passed = Self::default();
        for index in 0..fds.len() {
            let name = names.next().unwrap_or_default();
            let what = || format!("socket {index} that systemd passed (`{name}`)");
            if name == fd_store::BUCKETS {
                passed.buckets = take(&mut fds, index);
                continue;
            }
            // One that is none is left in its place for the next question.
            if let Ok(Some(socket)) = fds.take_tcp_listener(index) {
                if fd_store::is_kept(name) {
                    passed.take_back(socket).with_context(what)?;
                } else {
                    passed.lend(name, socket).with_context(what)?;
                }
            } else if let Ok(Some(socket)) = fds.take_unix_listener(index) {
                passed.lend_unix(name, socket).with_context(what)?;
            } else {
                return Err(anyhow::anyhow!("it is no TCP and no Unix stream socket"))
                    .with_context(what);
            }
        }
        Ok(passed)
    }

    /// Adds what another process gave; of sockets, what systemd passed goes first.
    pub(super) fn add(&mut self, other: Self) {
        self.lent.extend(other.lent);
        self.given.extend(other.given);
        self.admin = self.admin.take().or(other.admin);
        // Whoever runs has counted since.
        self.buckets = other.buckets.or_else(|| self.buckets.take());
    }

    /// One of the daemon before, which systemd kept.
    fn take_back(&mut self, socket: TcpListener) -> anyhow::Result<()> {
        listens(&socket)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        self.given.entry(address).or_default().push(socket);
        Ok(())
    }

    fn lend(&mut self, name: &str, socket: TcpListener) -> anyhow::Result<()> {
        listens(&socket)?;
        if name == ADMIN {
            return self.lend_admin(Socket::Tcp(socket));
        }
        socket.set_nonblocking(true)?;
        self.lent.push((socket.local_addr()?, socket));
        Ok(())
    }

    fn lend_unix(&mut self, name: &str, socket: UnixListener) -> anyhow::Result<()> {
        listens(&socket)?;
        if name != ADMIN {
            bail!(
                "listeners of a Gateway have TCP addresses; for the admin listener, write \
                 `FileDescriptorName={ADMIN}` in the socket unit"
            );
        }
        self.lend_admin(Socket::Unix(socket))
    }

    fn lend_admin(&mut self, socket: Socket) -> anyhow::Result<()> {
        if self.admin.replace(socket).is_some() {
            bail!("there is one admin listener, and this is the second socket for it");
        }
        Ok(())
    }

    fn lent_for(&self, address: SocketAddr) -> io::Result<Vec<TcpListener>> {
        let lent = self.lent.iter();
        lent.filter(|(own, socket)| serves(*own, socket, address))
            .map(|(_, socket)| socket.try_clone())
            .collect()
    }
}

/// A descriptor that is no socket.
fn take(fds: &mut ListenFd, index: usize) -> Option<OwnedFd> {
    let fd = fds.take_raw_fd(index).ok().flatten()?;
    // SAFETY: it was passed to this process, and taken once.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn listens(socket: &impl std::os::fd::AsFd) -> anyhow::Result<()> {
    if !socket_acceptconn(socket)? {
        bail!("it does not listen");
    }
    Ok(())
}

/// Whether `socket` with the address `own` takes all connections to `wanted`.
fn serves(own: SocketAddr, socket: &TcpListener, wanted: SocketAddr) -> bool {
    let every_ipv4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    own == wanted
        || own.port() == wanted.port()
            && own.ip().is_unspecified()
            && wanted.ip() == every_ipv4
            && matches!(ipv6_v6only(socket), Ok(false))
}

impl Sockets {
    pub(super) fn new(passed: Passed) -> Self {
        Self {
            passed,
            served: HashMap::new(),
            bound: HashSet::new(),
        }
    }

    /// The admin listener's: the one that was passed, or a new one.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub(super) fn admin(&mut self, address: SocketAddr) -> anyhow::Result<Socket> {
        if let Some(socket) = self.passed.admin.take() {
            return Ok(socket);
        }
        let lent = &mut self.passed.lent;
        if let Some(at) = lent.iter().position(|(own, _)| *own == address) {
            return Ok(Socket::Tcp(lent.swap_remove(at).1));
        }
        let given = self.passed.given.remove(&address);
        if let Some(socket) = given.and_then(|sockets| sockets.into_iter().next()) {
            return Ok(Socket::Tcp(socket));
        }
        Socket::bind(address).map_err(|error| privileges::explain(error, address))
    }

    /// Sockets for those of `wanted` that are not served yet. Nothing changes until [`Sockets::serve`].
    ///
    /// # Errors
    /// When an address cannot be had; then none is.
    pub(super) fn open(
        &self,
        wanted: &HashSet<SocketAddr>,
        workers: usize,
    ) -> anyhow::Result<Vec<Opened>> {
        let new = wanted.iter().filter(|at| !self.served.contains_key(at));
        new.map(|&address| {
            let (sockets, lent) = self.sockets_for(address, workers)?;
            // Fewer sockets than workers: several accept from the same one.
            let copies = sockets.len().max(workers);
            let copies: io::Result<_> = (sockets.iter().cycle().take(copies))
                .map(TcpListener::try_clone)
                .collect();
            Ok(Opened {
                address,
                for_workers: copies.context("cannot copy a socket")?,
                served: Served { sockets, lent },
            })
        })
        .collect()
    }

    /// The sockets of an address, and whether they are systemd's.
    fn sockets_for(
        &self,
        address: SocketAddr,
        workers: usize,
    ) -> anyhow::Result<(Vec<TcpListener>, bool)> {
        if let Some(given) = self.passed.given.get(&address) {
            let copies: io::Result<_> = given.iter().map(TcpListener::try_clone).collect();
            return Ok((copies.context("cannot copy a socket")?, false));
        }
        let lent = self.passed.lent_for(address);
        let lent = lent.context("cannot copy a socket")?;
        if !lent.is_empty() {
            return Ok((lent, true));
        }
        let again = self.bound.contains(&address);
        let sockets = listener::bind(address, workers, again)
            .map_err(|error| privileges::explain(error.into(), address))?;
        Ok((sockets, false))
    }

    /// Has workers serve what was opened.
    pub(super) async fn serve(&mut self, opened: Vec<Opened>, workers: &Workers) {
        for one in opened {
            let lent = one.served.lent;
            workers.listen(one.address, one.for_workers, lent).await;
            if !lent {
                self.bound.insert(one.address);
            }
            self.served.insert(one.address, one.served);
        }
    }

    /// The sockets of what was opened, for one who serves it in place of the workers.
    pub(super) fn keep(&mut self, opened: Vec<Opened>) -> Vec<TcpListener> {
        let mut sockets = Vec::new();
        for one in opened {
            if !one.served.lent {
                self.bound.insert(one.address);
            }
            sockets.extend(one.for_workers);
            self.served.insert(one.address, one.served);
        }
        sockets
    }

    /// Stops serving what is not in `wanted`. Returns when whoever was let in there is accepted.
    pub(super) async fn close_others(&mut self, wanted: &HashSet<SocketAddr>, workers: &Workers) {
        let gone: HashMap<_, _> = self
            .served
            .extract_if(|address, _| !wanted.contains(address))
            .collect();
        if gone.is_empty() {
            return;
        }
        let addresses: Vec<_> = gone.keys().copied().collect();
        for (address, served) in gone {
            served.let_go(address);
        }
        if timeout(CLOSING, workers.close(&addresses)).await.is_err() {
            tracing::warn!(?addresses, "there is no room for the last clients");
        }
    }

    /// Lets go of everything, before workers drain. `taken`: whose sockets another process has.
    pub(super) fn let_go(&mut self, taken: &[SocketAddr]) {
        for (address, mut served) in self.served.drain() {
            served.lent |= taken.contains(&address);
            served.let_go(address);
        }
    }

    /// Those of the daemon before that no listener uses; they are closed here.
    pub(super) fn left_over(&mut self) -> Vec<SocketAddr> {
        let given = std::mem::take(&mut self.passed.given);
        let left = given.into_keys();
        left.filter(|address| !self.served.contains_key(address))
            .collect()
    }

    /// systemd's sockets that no listener uses: who connects to them waits for nothing.
    pub(super) fn warn_of_unused(&self) {
        for (own, socket) in &self.passed.lent {
            let used = self.served.keys();
            if !used.into_iter().any(|at| serves(*own, socket, *at)) {
                tracing::warn!(
                    address = %own,
                    "systemd passed a socket that no listener of the policy has the address of: \
                     connections to it are not answered; take it out of the socket unit, or add a \
                     listener"
                );
            }
        }
    }

    /// By address, sorted.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let mut addresses: Vec<_> = self.served.keys().copied().collect();
        addresses.sort();
        addresses
    }

    pub(super) fn served(&self) -> impl Iterator<Item = &Served> {
        self.served.values()
    }

    /// Those that are not systemd's as well, by address.
    pub(super) fn own(&self) -> impl Iterator<Item = (SocketAddr, &[TcpListener])> {
        let own = self.served.iter().filter(|(_, served)| !served.lent);
        own.map(|(address, served)| (*address, served.sockets.as_slice()))
    }

    /// systemd's.
    pub(super) fn lent(&self) -> impl Iterator<Item = &TcpListener> {
        self.passed.lent.iter().map(|(_, socket)| socket)
    }
}

/// The addresses that the listeners of a plan have.
pub(super) fn binds(plan: &Plan) -> HashSet<SocketAddr> {
    let http = plan.listeners.iter().map(|listener| &listener.binds);
    let tcp = plan.tcp.iter().map(|proxy| &proxy.binds);
    http.chain(tcp).flatten().copied().collect()
}
