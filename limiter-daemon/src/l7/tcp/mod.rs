//! Connections that are passed on as they are: TCP gateways.
//!
//! Which backend a connection goes to is decided once, by the plan that is in force when it is known
//! what the client asks for; a reload does not touch it afterwards.

mod hello;
mod record;
mod terminate;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use self::record::Ending;
pub use self::record::{TcpEnd, TcpRecord};
use super::active::Onward;
use super::drain::Draining;
use super::io::{Rewind, UpstreamIo};
use super::metrics::Closed;
use super::offences::Suspect;
use super::opening::{Why, handshake};
use super::pipeline::Pipeline;
use super::record::Upstream;
use super::tunnel::{Count, Passed, Tally, pass};
use super::upstream::{Cluster, Failed, Hold, Pick, dial};
use crate::engine::tcp::{Lost, TcpStats};
use crate::engine::upstream::{Exchange, Stat};

/// A connection's way: what the client asks for, where it goes, TLS if it ends here, an endpoint, and
/// bytes both ways. `bound`: for a hello, and for a handshake. `None`: it was closed before an
/// endpoint had it.
pub(super) async fn serve(
    pipeline: &Pipeline,
    suspect: Suspect,
    (bind, peer): (SocketAddr, SocketAddr),
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
        tracing::debug!(%peer, %why, "no TLS handshake to pass on by");
        suspect.no_handshake(pipeline, &why, begun);
    };
    let (name, stream) = if by_name {
        handshake(&mut drain, bound, stream, hello::name, undone).await?
    } else {
        (Box::default(), stream)
    };
    let onward = pipeline.active.load().onward(bind, &name);
    let mut ending = ending(pipeline, stats, name, (bind, peer));
    let Some(Onward {
        host,
        tls,
        cluster,
        idle,
        max_connect_attempts,
    }) = onward
    else {
        return ending.no_route();
    };
    ending.record.host = host;
    let Some(cluster) = cluster else {
        return ending.no_route();
    };
    let to = To {
        cluster,
        idle,
        max_connect_attempts,
    };
    let Some(tls) = tls else {
        return carry(pipeline, stream, &to, &mut ending).await;
    };
    ending.record.tls = true;
    let accept = async |stream| terminate::accept(&tls, stream).await;
    match handshake(&mut drain, bound, stream, accept, undone).await {
        Some(stream) => carry(pipeline, stream, &to, &mut ending).await,
        None => {
            ending.record.end = TcpEnd::Handshake;
            None
        }
    }
}

fn ending(
    pipeline: &Pipeline,
    stats: Arc<TcpStats>,
    name: Box<str>,
    (bind, peer): (SocketAddr, SocketAddr),
) -> Ending<'_> {
    let now = pipeline.clock.now();
    Ending {
        record: TcpRecord {
            began: now,
            ended: now,
            stats,
            host: None,
            name,
            tls: false,
            peer,
            bind,
            upstream: None,
            received: 0,
            sent: 0,
            end: TcpEnd::Cancelled,
        },
        received: AtomicU64::new(0),
        sent: AtomicU64::new(0),
        sink: pipeline.sink.as_deref(),
        clock: pipeline.clock,
    }
}

impl Ending<'_> {
    fn no_route(&mut self) -> Option<()> {
        let no_route = &self.record.stats.no_route;
        no_route.fetch_add(1, Ordering::Relaxed);
        self.record.end = TcpEnd::NoRoute;
        None
    }
}

/// Where a connection goes.
struct To {
    cluster: Arc<Cluster>,
    idle: Option<Duration>,
    max_connect_attempts: u32,
}

/// Connects, and passes bytes on to the end.
async fn carry<S>(pipeline: &Pipeline, client: S, to: &To, ending: &mut Ending<'_>) -> Option<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (upstream, _hold) = match connect(pipeline, to, &mut ending.record).await {
        Ok(connected) => connected,
        Err(failed) => {
            let why = lost(&failed);
            ending.record.stats.lose(why);
            ending.record.end = TcpEnd::Lost(why);
            return None;
        }
    };
    let stats = Arc::clone(&ending.record.stats);
    let tally = Tally {
        received: Count {
            own: &ending.received,
            all: Some(&stats.received),
        },
        sent: Count {
            own: &ending.sent,
            all: Some(&stats.sent),
        },
    };
    ending.record.end = match pass(client, upstream, tally, to.idle, pipeline.clock).await {
        Passed::Complete => TcpEnd::Complete,
        Passed::Broken(error) => {
            tracing::debug!(%error, "a connection that was passed on broke");
            TcpEnd::Broken
        }
        Passed::Idle => {
            stats.idle.fetch_add(1, Ordering::Relaxed);
            TcpEnd::Idle
        }
    };
    Some(())
}

/// A connection to an endpoint of the backend; those that cannot be reached are left for others, as
/// often as may be.
async fn connect(
    pipeline: &Pipeline,
    to: &To,
    record: &mut TcpRecord,
) -> Result<(UpstreamIo, Hold), Failed> {
    let cluster = &to.cluster;
    let mut pick = Pick::new(Arc::clone(cluster), None);
    let mut attempts = 0;
    loop {
        pick.choose(pipeline.random.next(), pipeline.clock.now());
        let dialled = dial(&mut pick).await;
        attempts += 1;
        record.upstream = pick.current_target().cloned().map(Upstream);
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
                if attempts >= to.max_connect_attempts {
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
