//! Listening sockets: one a worker on each address, shared by `SO_REUSEPORT`.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel keeps ready for `accept`, for each socket.
const BACKLOG: i32 = 4096;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address}: {source}; is another process there, or the address not on this host?"
)]
pub struct BindError {
    pub address: SocketAddr,
    #[source]
    source: io::Error,
}

/// Binds `address` once for each of `workers`; the kernel spreads new connections over them.
///
/// # Errors
/// [`BindError`]; nothing stays bound then.
pub fn bind(address: SocketAddr, workers: usize) -> Result<Vec<TcpListener>, BindError> {
    // Without SO_REUSEPORT first: another process on the same address is an error, not a sharer.
    let probe = open(address, false).map_err(|source| BindError { address, source })?;
    drop(probe);
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
    use super::*;

    #[test]
    fn workers_share_and_strangers_do_not() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind(address, 2).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot listen on {address}: ")),
            "{error}"
        );
        drop(taken);
        assert_eq!(bind(address, 2).unwrap().len(), 2);
    }
}
