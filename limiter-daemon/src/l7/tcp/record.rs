//! What an access log can say of a connection that was passed on, handed over when it is over.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::engine::tcp::{Lost, TcpStats};
use crate::l7::clock::Clock;
use crate::l7::record::{Sink, Upstream};

/// A connection and what became of it. Times are in nanoseconds of the data plane's clock.
#[derive(Debug)]
pub struct TcpRecord {
    /// When it was known what the client asks for.
    pub began: u64,
    pub ended: u64,
    pub stats: Arc<TcpStats>,
    /// Of the host that took it; `None`: none did.
    pub host: Option<Arc<str>>,
    /// What the client asked for, in lower case; empty: nothing, or it was not looked at.
    pub name: Box<str>,
    /// TLS ended here.
    pub tls: bool,
    /// The connection's other end; as PROXY protocol states it, if that is on.
    pub peer: SocketAddr,
    /// The address that the connection came to.
    pub bind: SocketAddr,
    pub upstream: Option<Upstream>,
    /// Bytes from the client that were passed on, and bytes to it.
    pub received: u64,
    pub sent: u64,
    pub end: TcpEnd,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpEnd {
    /// Both sides were done.
    Complete,
    /// One side broke off.
    Broken,
    /// Neither side said anything for too long.
    Idle,
    /// Nothing is for it.
    NoRoute,
    /// TLS was not agreed on.
    Handshake,
    /// No endpoint could have it.
    Lost(Lost),
    /// The daemon stopped, or its address went out of service long ago.
    Cancelled,
}

impl TcpEnd {
    /// In a word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Broken => "broken",
            Self::Idle => "idle_timeout",
            Self::NoRoute => "no_route",
            Self::Handshake => "tls_handshake",
            Self::Lost(why) => why.name(),
            Self::Cancelled => "cancelled",
        }
    }
}

/// A connection, until its end.
pub(super) struct Ending<'a> {
    pub(super) record: TcpRecord,
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) sink: Option<&'a dyn Sink>,
    pub(super) clock: Clock,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if let Some(sink) = self.sink {
            self.record.ended = self.clock.now();
            self.record.received = self.received.load(Ordering::Relaxed);
            self.record.sent = self.sent.load(Ordering::Relaxed);
            sink.passed_on(&self.record);
        }
    }
}
