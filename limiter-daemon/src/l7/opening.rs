//! What comes before a connection's first request, and how long it may take.

use std::fmt;
use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::drain::Draining;
use super::io::{Rewind, first_bytes, http2_preface, speaks_http2};

/// Why a step is not done.
#[derive(Debug)]
pub(super) enum Why {
    /// It took too long.
    Late,
    Failed(io::Error),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late => f.write_str("it took too long"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl Why {
    pub(super) const fn is_late(&self) -> bool {
        matches!(self, Self::Late)
    }

    /// The client went away.
    pub(super) fn is_gone(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        let gone = [
            UnexpectedEof,
            ConnectionReset,
            ConnectionAborted,
            BrokenPipe,
        ];
        matches!(self, Self::Failed(error) if gone.contains(&error.kind()))
    }
}

/// What comes before a connection's first request: it may take so long, and less when the daemon
/// drains. `undone` is told why it is not done.
pub(super) async fn within<T>(
    drain: &mut Draining,
    bound: Duration,
    step: impl Future<Output = io::Result<T>>,
    undone: impl FnOnce(Why),
) -> Option<T> {
    let why = tokio::select! {
        () = drain.too_late() => return None,
        done = timeout(bound, step) => match done {
            Ok(Ok(done)) => return Some(done),
            Ok(Err(error)) => Why::Failed(error),
            Err(_late) => Why::Late,
        }
    };
    undone(why);
    None
}

/// As [`within`], for a step that says in its flag whether the client has begun with it; so is `undone`.
async fn begun_within<T>(
    drain: &mut Draining,
    bound: Duration,
    step: impl AsyncFnOnce(&mut bool) -> io::Result<T>,
    undone: impl FnOnce(Why, bool),
) -> Option<T> {
    let (mut begun, mut not_done) = (false, None);
    let found = within(drain, bound, step(&mut begun), |why| not_done = Some(why)).await;
    if let Some(why) = not_done {
        undone(why, begun);
    }
    found
}

/// As [`within`], for a connection's first bytes: whether they are HTTP/2's. `undone` is told whether any
/// have come, too.
pub(super) async fn sniff<S: AsyncRead + AsyncWrite + Unpin>(
    drain: &mut Draining,
    bound: Duration,
    stream: Rewind<S>,
    undone: impl FnOnce(Why, bool),
) -> Option<(bool, Rewind<S>)> {
    let sniff = async |begun: &mut bool| speaks_http2(stream, begun).await;
    begun_within(drain, bound, sniff, undone).await
}

/// The same for a handshake.
pub(super) async fn handshake<S: AsyncRead + AsyncWrite + Unpin, T>(
    drain: &mut Draining,
    bound: Duration,
    stream: Rewind<S>,
    accept: impl AsyncFnOnce(Rewind<S>) -> io::Result<T>,
    undone: impl FnOnce(Why, bool),
) -> Option<T> {
    let shake = async |begun: &mut bool| accept(first_bytes(stream, begun).await?).await;
    begun_within(drain, bound, shake, undone).await
}

/// The same for what HTTP/2 begins with.
pub(super) async fn preface<S: AsyncRead + AsyncWrite + Unpin>(
    drain: &mut Draining,
    bound: Duration,
    stream: Rewind<S>,
    http2: bool,
    undone: impl FnOnce(Why, bool),
) -> Option<Rewind<S>> {
    if !http2 {
        return Some(stream);
    }
    let preface = async |begun: &mut bool| http2_preface(stream, begun).await;
    begun_within(drain, bound, preface, undone).await
}
