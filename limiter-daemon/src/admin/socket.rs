//! The admin listener's socket: TCP, or a Unix socket that was passed to the daemon.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;

use anyhow::Context as _;
use tokio::io::{AsyncRead, AsyncWrite};

use super::guard::Peer;

/// Where the admin listener is asked.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Socket {
    /// Binds the admin address.
    ///
    /// # Errors
    /// With the address in the message.
    pub fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).with_context(|| {
            format!(
                "cannot listen on admin address {address}; set spec.admin.address of the \
                 LimiterConfig, or take the place of the limiterd that runs there with --takeover"
            )
        })?;
        Ok(Self::Tcp(listener))
    }

    /// One that was passed by another process.
    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        let socket = TcpListener::from(fd);
        // A Unix socket has no address of the internet.
        if socket.local_addr().is_ok() {
            Self::Tcp(socket)
        } else {
            Self::Unix(OwnedFd::from(socket).into())
        }
    }

    /// Its address, where it is one of TCP.
    pub(crate) fn own_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// The same socket once more.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(listener) => Self::Tcp(listener.try_clone()?),
            Self::Unix(listener) => Self::Unix(listener.try_clone()?),
        })
    }

    /// For the runtime that this is called in.
    ///
    /// # Errors
    /// When the runtime cannot watch it.
    pub(crate) fn listen(self) -> io::Result<Listener> {
        Ok(match self {
            Self::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Listener::Tcp(tokio::net::TcpListener::from_std(listener)?)
            }
            Self::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Listener::Unix(tokio::net::UnixListener::from_std(listener)?)
            }
        })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => write!(f, "{address}"),
                Err(_closed) => f.write_str("TCP"),
            },
            Self::Unix(listener) => match listener.local_addr() {
                Ok(address) => write!(f, "{address:?}"),
                Err(_closed) => f.write_str("a Unix socket"),
            },
        }
    }
}

/// A [`Socket`] that is accepted from.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection, and whose it is.
pub(super) struct Accepted {
    pub(super) stream: Box<dyn Stream>,
    pub(super) peer: Peer,
}

impl Listener {
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, of) = listener.accept().await?;
                let here = stream.local_addr()?;
                Accepted {
                    stream: Box::new(stream),
                    peer: Peer::Address { of, here },
                }
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let peer = Peer::User(stream.peer_cred()?.uid());
                Accepted {
                    stream: Box::new(stream),
                    peer,
                }
            }
        })
    }
}
