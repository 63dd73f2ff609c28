//! The listening sockets and the memory of buckets, as systemd keeps them while none runs
//! (sd_pid_notify_with_fds(3), `FileDescriptorStoreMax=`): over a restart and a crash, clients wait in
//! the queues of the sockets, and buckets of requests stay as they were.
//!
//! The socket of an address is stored under a name made of it, and comes back under that name. It is
//! this daemon's own then, as one that was handed over: where no listener has the address any more,
//! it is closed, and taken out of the store.
//!
//! Rejected: socket units alone, which have to repeat the addresses of the policy.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::fstat;
use sd_notify::NotifyState;

use super::sockets::{Passed, Sockets};
use crate::admin::socket::Socket;

/// The name of the memory of buckets.
pub(super) const BUCKETS: &str = "buckets";
/// What names of stored sockets begin with.
const PREFIX: &str = "kept-";
/// What systemd has room for; set by it from version 254 on, and before that by the unit.
const ROOM: &str = "FDSTORE";
/// Descriptors in a message; the kernel takes 253.
const MAX_FDS: usize = 64;

/// Which addresses' sockets are in systemd's store.
#[derive(Debug)]
pub(super) struct FdStore {
    /// Descriptors; 0: there is no store.
    room: usize,
    /// How many are stored, by address.
    kept: HashMap<SocketAddr, usize>,
    /// There was no room for these, which was said.
    left_out: HashSet<SocketAddr>,
    /// Which memory of buckets is there.
    buckets: Option<FileId>,
}

/// Which file it is: device and inode.
type FileId = (u64, u64);

impl FdStore {
    /// As the environment says, with what came out of the store.
    pub(super) fn by_systemd(passed: &Passed) -> Self {
        let given = passed.given.iter();
        let buckets = passed.buckets.as_ref();
        let room = std::env::var(ROOM).ok().and_then(|room| room.parse().ok());
        let has_systemd = std::env::var_os("NOTIFY_SOCKET").is_some();
        Self {
            room: room.filter(|_| has_systemd).unwrap_or_default(),
            kept: given.map(|(at, sockets)| (*at, sockets.len())).collect(),
            left_out: HashSet::new(),
            buckets: buckets.and_then(|memory| id(memory.as_fd()).ok()),
        }
    }

    /// Has systemd keep this memory of buckets, in place of any that it had.
    pub(super) fn keep_buckets(&mut self, memory: Option<BorrowedFd<'_>>) {
        if self.room == 0 {
            return;
        }
        let wanted = memory.and_then(|memory| Some((memory, id(memory).ok()?)));
        if wanted.map(|(_, id)| id) == self.buckets {
            return;
        }
        if self.buckets.take().is_some() {
            forget(BUCKETS);
        }
        let Some((memory, id)) = wanted else {
            return;
        };
        if !self.has_room(1) {
            tracing::warn!(
                room = self.room,
                "systemd does not keep buckets of requests over a restart: set \
                 FileDescriptorStoreMax= higher"
            );
            return;
        }
        match send(BUCKETS, &[memory]) {
            Ok(()) => self.buckets = Some(id),
            Err(error) => {
                tracing::warn!(%error, "systemd does not keep buckets of requests over a restart");
            }
        }
    }

    fn has_room(&self, fds: usize) -> bool {
        let kept: usize = self.kept.values().sum();
        kept + usize::from(self.buckets.is_some()) + fds <= self.room
    }

    /// Has systemd keep what is served now, and nothing else.
    pub(super) fn follow(&mut self, sockets: &Sockets, admin: &Socket) {
        if self.room == 0 {
            return;
        }
        let mut wanted: Vec<(SocketAddr, Vec<BorrowedFd<'_>>)> = sockets
            .own()
            .map(|(address, own)| (address, own.iter().map(|socket| socket.as_fd()).collect()))
            .collect();
        wanted.extend(admin.own_address().map(|at| (at, vec![admin.as_fd()])));
        let addresses: HashSet<_> = wanted.iter().map(|(address, _)| *address).collect();
        let gone: Vec<_> = self
            .kept
            .extract_if(|address, _| !addresses.contains(address))
            .collect();
        for (address, _) in gone {
            forget(&name(address));
        }
        for (address, fds) in wanted {
            if !self.kept.contains_key(&address) {
                self.keep(address, &fds);
            }
        }
    }

    /// Whether systemd has the sockets of this address.
    pub(super) fn keeps(&self, address: &SocketAddr) -> bool {
        self.room > 0 && self.kept.contains_key(address)
    }

    fn keep(&mut self, address: SocketAddr, fds: &[BorrowedFd<'_>]) {
        if !self.has_room(fds.len()) {
            if self.left_out.insert(address) {
                tracing::warn!(
                    %address,
                    room = self.room,
                    "systemd does not keep this socket over a restart: set FileDescriptorStoreMax= \
                     higher"
                );
            }
            return;
        }
        let name = name(address);
        for some in fds.chunks(MAX_FDS) {
            if let Err(error) = send(&name, some) {
                tracing::warn!(%address, %error, "systemd does not keep this socket over a restart");
                forget(&name);
                return;
            }
        }
        self.kept.insert(address, fds.len());
    }
}

fn id(file: BorrowedFd<'_>) -> io::Result<FileId> {
    let stat = fstat(file)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn send(name: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let states = [
        NotifyState::FdStore,
        NotifyState::FdName(name),
        // They have nothing to say that would end their being kept.
        NotifyState::Custom("FDPOLL=0"),
    ];
    sd_notify::notify_with_fds(&states, fds)
}

fn forget(name: &str) {
    let states = [NotifyState::FdStoreRemove, NotifyState::FdName(name)];
    if let Err(error) = sd_notify::notify(&states) {
        tracing::warn!(name, %error, "systemd cannot be told to forget what it keeps under this name");
    }
}

/// Whether a socket of this name came out of the store.
pub(super) fn is_kept(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// In `LISTEN_FDNAMES` colons part names.
fn name(address: SocketAddr) -> String {
    format!("{PREFIX}{}", address.to_string().replace(':', "."))
}

#[cfg(test)]
mod tests {
    use super::{is_kept, name};

    #[test]
    fn names_are_told_from_those_of_socket_units_and_from_each_other() {
        let of = |address: &str| name(address.parse().unwrap());
        assert_eq!(of("192.0.2.1:80"), "kept-192.0.2.1.80");
        assert_eq!(of("[2001:db8::1]:80"), "kept-[2001.db8..1].80");
        assert!(is_kept(&of("[::]:443")) && !is_kept("admin") && !is_kept("limiterd.socket"));
    }
}
