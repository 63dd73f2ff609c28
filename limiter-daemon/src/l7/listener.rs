//! Listening sockets: one a worker on each address, shared by `SO_REUSEPORT`.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;

use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

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

/// From now on connection attempts that reach `socket` are dropped, as if they were lost on the way.
/// Handshakes that have begun go on, and so do connections.
///
/// # Errors
/// When the kernel takes no filter.
pub fn let_nobody_in(socket: &impl AsFd) -> io::Result<()> {
    // Offsets count from TCP's header; byte 13 has the flags (RFC 9293 section 3.1).
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "opcodes of classic BPF have eight bits"
    )]
    let op = |code: u32, jt, jf, k| SockFilter::new(code as u16, jt, jf, k);
    SockRef::from(socket).attach_filter(&[
        op(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, FLAGS),
        op(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, SYN | ACK),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, SYN),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
    ])
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
    use std::time::Duration;

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
    fn who_was_let_in_is_served_and_who_comes_later_waits() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let socket = TcpListener::bind(address).unwrap();
            let address = socket.local_addr().unwrap();
            let mut early = TcpStream::connect(address).unwrap();
            let_nobody_in(&socket).unwrap();
            let late = TcpStream::connect_timeout(&address, Duration::from_millis(50));
            assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut);
            let (mut accepted, _) = socket.accept().unwrap();
            drop(socket);
            early.write_all(b"ping").unwrap();
            let mut got = [0; 4];
            accepted.read_exact(&mut got).unwrap();
            accepted.write_all(&got).unwrap();
            early.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"ping");
        }
    }
}
