//! Listening sockets: one a worker on each address, shared by `SO_REUSEPORT`.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::os::fd::AsFd;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Connections that the kernel keeps ready for `accept`, for each socket.
const BACKLOG: i32 = 4096;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address}: {source}; is another process there, or the address not on this host? \
     (`--takeover` takes the place of a running limiterd)"
)]
pub struct BindError {
    pub address: SocketAddr,
    #[source]
    source: io::Error,
}

/// Binds `address` once for each of `workers`; the kernel spreads new connections over them. `again`:
/// this process has listened on it, and may not have closed all its sockets yet.
///
/// # Errors
/// [`BindError`]; nothing stays bound then.
pub fn bind(
    address: SocketAddr,
    workers: usize,
    again: bool,
) -> Result<Vec<TcpListener>, BindError> {
    if !again {
        // Without SO_REUSEPORT: another process on the same address is an error, not a sharer.
        let probe = open(address, false).map_err(|source| BindError { address, source })?;
        drop(probe);
    }
    (0..workers)
        .map(|_| {
            let listen = || {
                let socket = open(address, true)?;
                socket.listen(BACKLOG)?;
                Ok(socket.into())
            };
            listen().map_err(|source| BindError { address, source })
        })
        .collect()
}

/// From now on no connection attempt reaches `socket`: they go to other sockets on its address, or are
/// refused. Handshakes that have begun go on, what is in the queue stays there, and so do connections.
///
/// The kernel offers no such thing. But it passes attempts only to sockets that are bound to the
/// interface they came by, or to none, and knows connections and handshakes by what was true when they
/// began; so this binds the socket to an interface that is not there. It takes no privilege (since
/// Linux 5.7).
///
/// # Errors
/// When the kernel refuses, or the socket was bound to an interface before.
pub fn let_nobody_in(socket: &impl AsFd) -> io::Result<()> {
    // The highest that there can be; interfaces are counted from 1.
    const NOWHERE: NonZeroU32 = NonZeroU32::new(i32::MAX.cast_unsigned()).expect("not zero");
    // The option is of sockets, whatever the family.
    SockRef::from(socket).bind_device_by_index_v4(Some(NOWHERE))
}

fn open(address: SocketAddr, share: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if share {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // `[::]` means both families, whatever net.ipv6.bindv6only says.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn workers_share_and_strangers_do_not() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind(address, 2, false).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot listen on {address}: ")),
            "{error}"
        );
        drop(taken);
        let sockets = bind(address, 2, false).unwrap();
        assert_eq!(sockets.len(), 2);
        assert!(bind(address, 2, false).is_err());
        assert_eq!(bind(address, 1, true).unwrap().len(), 1);
    }

    #[test]
    fn who_was_let_in_is_served_and_who_comes_later_is_not() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let any = TcpListener::bind(address).unwrap();
            let address = any.local_addr().unwrap();
            drop(any);
            let socket = bind(address, 1, false).unwrap().pop().unwrap();
            let mut target = address;
            if address.ip().is_unspecified() {
                target.set_ip([127, 0, 0, 1].into());
            }
            let mut early = TcpStream::connect(target).unwrap();
            let_nobody_in(&socket).unwrap();
            let late = TcpStream::connect(target).unwrap_err();
            assert_eq!(late.kind(), ErrorKind::ConnectionRefused);
            // Another socket on the address takes them all.
            let other = bind(address, 1, true).unwrap().pop().unwrap();
            let others: Vec<_> = (0..20).map(|_| TcpStream::connect(target)).collect();
            for connected in others {
                let port = connected.unwrap().local_addr().unwrap().port();
                assert_eq!(other.accept().unwrap().1.port(), port);
            }
            let (mut accepted, _) = socket.accept().unwrap();
            drop(socket);
            early.write_all(b"ping").unwrap();
            accepted.set_nonblocking(false).unwrap();
            let mut got = [0; 4];
            accepted.read_exact(&mut got).unwrap();
            accepted.write_all(&got).unwrap();
            early.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"ping");
        }
    }
}
