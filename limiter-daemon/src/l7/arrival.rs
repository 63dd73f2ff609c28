//! The life of a connection, in its order.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::active::{Arrival, Speaks};
use super::connection::{self, Conn};
use super::drain::Draining;
use super::io::Rewind;
use super::life::Life;
use super::metrics::Closed;
use super::offences::Suspect;
use super::opening::{self, Why, preface, sniff, within};
use super::pipeline::Pipeline;
use super::{handshake, headers, proxy_protocol, tcp};
use crate::engine::connection::ConnectionBuckets;

/// The life of a connection: bounds on connections, PROXY protocol, bounds on the source; then it is
/// passed on, or TLS, HTTP/1.1 or HTTP/2, requests. `None`: it was closed before any of that.
pub(super) async fn converse(
    pipeline: Arc<Pipeline>,
    bind: SocketAddr,
    stream: TcpStream,
    peer: SocketAddr,
    mut drain: Draining,
) -> Option<()> {
    let Arrival {
        settings,
        door,
        speaks,
    } = pipeline.active.load().arrival(bind)?;
    let limits = &settings.connections;
    let counters = Arc::clone(&pipeline.counters);
    let close = |reason: Closed| counters.close(reason);
    let mut entered = match door.enter(limits) {
        Ok(entered) => entered,
        Err(reason) => {
            close(reason);
            sleep(limits.close_delay).await;
            return None;
        }
    };
    set_options(&stream, settings.tcp_keepalive);

    let bound = settings.timeouts.handshake;
    let read = proxy_protocol::read(settings.proxy_protocol, stream);
    let no_header = |_why| close(Closed::ProxyProtocol);
    let (stream, stated) = within(&mut drain, bound, read, no_header).await?;
    let suspect = Suspect::new(&pipeline, &settings, bind, peer, stated.is_some());
    let peer = stated.unwrap_or(peer);
    if let Err(reason) = entered.come_from(peer.ip(), limits) {
        close(reason);
        return None;
    }

    if speaks == Speaks::Tcp {
        return tcp::serve(&pipeline, suspect, (bind, peer), stream, bound, drain).await;
    }
    let conn = |sni, settings| {
        let clock = pipeline.clock;
        Arc::new(Conn {
            pipeline: Arc::clone(&pipeline),
            bind,
            peer,
            peer_text: headers::address(peer.ip()),
            suspect,
            sni,
            settings,
            life: Arc::new(Life::new(clock)),
            tunnel: Mutex::default(),
            buckets: ConnectionBuckets::default(),
        })
    };
    let no_opening = |why: Why, begun| {
        if why.is_late() {
            close(Closed::HeadTimeout);
        }
        suspect.no_opening(&pipeline, &why, begun);
    };
    if speaks == Speaks::Https {
        let accept = async |stream| handshake::accept(&pipeline, bind, stream).await;
        let undone = |why: Why, begun| {
            close(Closed::Handshake);
            tracing::debug!(%peer, %why, "TLS handshake failed");
            suspect.no_handshake(&pipeline, &why, begun);
        };
        let secured = opening::handshake(&mut drain, bound, stream, accept, undone).await?;
        let stream = Rewind::new(Bytes::new(), secured.stream);
        let bound = secured.settings.timeouts.head;
        let stream = preface(&mut drain, bound, stream, secured.http2, no_opening).await?;
        let conn = conn(Some(secured.name), secured.settings);
        connection::serve(conn, stream, secured.http2, drain).await;
    } else {
        let bound = settings.timeouts.head;
        let (http2, stream) = sniff(&mut drain, bound, stream, no_opening).await?;
        let stream = preface(&mut drain, bound, stream, http2, no_opening).await?;
        connection::serve(conn(None, settings), stream, http2, drain).await;
    }
    Some(())
}

fn set_options(stream: &TcpStream, keepalive: Option<Duration>) {
    let options = || {
        stream.set_nodelay(true)?;
        if let Some(idle) = keepalive {
            let probes = socket2::TcpKeepalive::new().with_time(idle);
            socket2::SockRef::from(stream).set_tcp_keepalive(&probes)?;
        }
        Ok::<_, std::io::Error>(())
    };
    if let Err(error) = options() {
        tracing::debug!(%error, "no socket options");
    }
}
