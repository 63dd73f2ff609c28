//! The listening sockets, as systemd keeps them while none runs (sd_pid_notify_with_fds(3),
//! `FileDescriptorStoreMax=`): over a restart and a crash, clients wait in their queues.
//!
//! The socket of an address is stored under a name made of it, and comes back under that name. It is
//! this daemon's own then, as one that was handed over: where no listener has the address any more,
//! it is closed, and taken out of the store.
//!
//! Rejected: socket units alone, which have to repeat the addresses of the policy.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};

use sd_notify::NotifyState;

use super::sockets::Sockets;
use crate::admin::socket::Socket;

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
}

impl FdStore {
    /// As the environment says. `given`: the addresses of sockets that came out of the store, and how
    /// many there are of each.
    pub(super) fn by_systemd(given: impl Iterator<Item = (SocketAddr, usize)>) -> Self {
        let room = std::env::var(ROOM).ok().and_then(|room| room.parse().ok());
        let has_systemd = std::env::var_os("NOTIFY_SOCKET").is_some();
        Self {
            room: room.filter(|_| has_systemd).unwrap_or_default(),
            kept: given.collect(),
            left_out: HashSet::new(),
        }
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
            forget(address);
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
        let kept: usize = self.kept.values().sum();
        if kept + fds.len() > self.room {
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
            let states = [
                NotifyState::FdStore,
                NotifyState::FdName(&name),
                // A listening socket has nothing to say that would end its being kept.
                NotifyState::Custom("FDPOLL=0"),
            ];
            if let Err(error) = sd_notify::notify_with_fds(&states, some) {
                tracing::warn!(%address, %error, "systemd does not keep this socket over a restart");
                forget(address);
                return;
            }
        }
        self.kept.insert(address, fds.len());
    }
}

fn forget(address: SocketAddr) {
    let name = name(address);
    let states = [NotifyState::FdStoreRemove, NotifyState::FdName(&name)];
    if let Err(error) = sd_notify::notify(&states) {
        tracing::warn!(%address, %error, "systemd cannot be told that this socket is closed");
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
