//! What comes before a connection's first request, and how long it may take.

use std::future::Future;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::drain::Draining;
use super::io::{Rewind, http2_preface, speaks_http2};

/// What comes before a connection's first request: it may take so long, and less when the daemon
/// drains. `late` is told of failures and of lateness.
pub(super) async fn within<T>(
    drain: &mut Draining,
    bound: Duration,
    step: impl Future<Output = std::io::Result<T>>,
    late: impl FnOnce(),
) -> Option<T> {
    tokio::select! {
        () = drain.too_late() => None,
        done = timeout(bound, step) => {
            if let Ok(Ok(done)) = done {
                return Some(done);
            }
            late();
            None
        }
    }
}

/// As [`within`], for a connection's first bytes: a client that goes away again is not late.
pub(super) async fn sniff<S: AsyncRead + AsyncWrite + Unpin>(
    drain: &mut Draining,
    bound: Duration,
    stream: Rewind<S>,
    late: impl FnOnce(),
) -> Option<(bool, Rewind<S>)> {
    let first = async { Ok(speaks_http2(stream).await) };
    within(drain, bound, first, late).await?.ok()
}

/// As [`sniff`], for what HTTP/2 begins with.
pub(super) async fn preface<S: AsyncRead + AsyncWrite + Unpin>(
    drain: &mut Draining,
    bound: Duration,
    stream: Rewind<S>,
    http2: bool,
    late: impl FnOnce(),
) -> Option<Rewind<S>> {
    if !http2 {
        return Some(stream);
    }
    let first = async { Ok(http2_preface(stream).await) };
    within(drain, bound, first, late).await?.ok()
}
