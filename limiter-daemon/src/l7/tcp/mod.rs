//! Connections that are passed on as they are: TCP gateways.
//!
//! Which backend a connection goes to is decided once, by the plan that is in force when it is known
//! what the client asks for; a reload does not touch it afterwards.

mod hello;
mod terminate;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::active::Onward;
use super::drain::Draining;
use super::io::{Rewind, UpstreamIo};
use super::metrics::Closed;
use super::offences::Suspect;
use super::opening::{Why, handshake};
use super::pipeline::Pipeline;
use super::tunnel::{Passed, Tally, pass};
use super::upstream::{Failed, Hold, Pick, dial};
use crate::engine::tcp::{Lost, TcpStats};
use crate::engine::upstream::{Exchange, Stat};

/// A connection's way: what the client asks for, where it goes, TLS if it ends here, an endpoint, and
/// bytes both ways. `bound`: for a hello, and for a handshake. `None`: it was closed before an
/// endpoint had it.
pub(super) async fn serve(
    pipeline: &Pipeline,
    bind: SocketAddr,
    suspect: Suspect,
    stream: Rewind<TcpStream>,
    bound: Duration,
    mut drain: Draining,
) -> Option<()> {
    let (stats, by_name) = {
        let active = pipeline.active.load();
        let proxy = active.tcp_at(bind)?;
        (Arc::clone(&proxy.stats), proxy.by_name())
    };
    stats.connections.fetch_add(1, Ordering::Relaxed);
    let undone = |why: Why, begun| {
        pipeline.counters.close(Closed::Handshake);
        suspect.no_handshake(pipeline, &why, begun);
    };
    let (name, stream) = if by_name {
        handshake(&mut drain, bound, stream, hello::name, undone).await?
    } else {
        (Box::default(), stream)
    };
    let Some(onward) = pipeline.active.load().onward(bind, &name) else {
        stats.no_route.fetch_add(1, Ordering::Relaxed);
        return None;
    };
    match &onward.tls {
        None => carry(pipeline, stream, &onward, &stats).await,
        Some(tls) => {
            let accept = async |stream| terminate::accept(tls, stream).await;
            let stream = handshake(&mut drain, bound, stream, accept, undone).await?;
            carry(pipeline, stream, &onward, &stats).await
        }
    }
}

/// Connects, and passes bytes on to the end.
async fn carry<S>(pipeline: &Pipeline, client: S, onward: &Onward, stats: &TcpStats) -> Option<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (upstream, _hold) = match connect(pipeline, onward).await {
        Ok(connected) => connected,
        Err(failed) => {
            stats.lose(lost(&failed));
            return None;
        }
    };
    let tally = Tally {
        received: &stats.received,
        sent: &stats.sent,
    };
    match pass(client, upstream, tally, onward.idle, pipeline.clock).await {
        Passed::Complete => {}
        Passed::Broken(error) => tracing::debug!(%error, "a connection that was passed on broke"),
        Passed::Idle => {
            stats.idle.fetch_add(1, Ordering::Relaxed);
        }
    }
    Some(())
}

/// A connection to an endpoint of the backend; those that cannot be reached are left for others, as
/// often as may be.
async fn connect(pipeline: &Pipeline, onward: &Onward) -> Result<(UpstreamIo, Hold), Failed> {
    let cluster = &onward.cluster;
    let mut pick = Pick::new(Arc::clone(cluster), None);
    let mut attempts = 0;
    loop {
        pick.choose(pipeline.random.next(), pipeline.clock.now());
        let dialled = dial(&mut pick).await;
        attempts += 1;
        // A connection stands for a good answer, as in Envoy.
        let exchange = match &dialled {
            Ok(_) => Some(Exchange::Answered(200)),
            Err(failed) => failed.exchange(),
        };
        if let (Some(host), Some(exchange)) = (pick.current(), exchange) {
            let hosts = &pick.endpoints.hosts;
            cluster.report(hosts, host, exchange, pipeline.clock.now());
        }
        match dialled {
            Err(Failed::NotConnected(error)) => {
                tracing::debug!(error = error.to_string(), "an endpoint cannot be reached");
                if attempts >= onward.max_connect_attempts {
                    let stats = &cluster.breaker.stats;
                    stats.count(Stat::CxConnectAttemptsExceeded);
                    return Err(Failed::NotConnected(error));
                }
                pick.avoid_current();
            }
            other => return other,
        }
    }
}

const fn lost(failed: &Failed) -> Lost {
    match failed {
        Failed::Overflow(_) | Failed::Pending => Lost::Overflow,
        Failed::NoEndpoint => Lost::NoEndpoint,
        Failed::NotConnected(_)
        | Failed::Refused(_)
        | Failed::NotSent(_)
        | Failed::Broken(_)
        | Failed::NoUpgrade => Lost::Unreachable,
    }
}
