//! What counts against the address that a connection comes from. It is told of an address only where
//! that is the client: behind a proxy one would be sentenced for what another did.

use std::error::Error as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::client_address::peer_is_client;
use super::connection::Conn;
use super::life::Life;
use super::metrics::Closed;
use super::opening::Why;
use super::pipeline::Pipeline;
use super::respond::Refusal;
use crate::engine::escalation::{Court, Judge};
use crate::policy::plan::{ClientSettings, Offence};

/// Whom the offences of a connection are counted against, and by whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspect {
    /// `None`: the other end is not the client.
    address: Option<IpAddr>,
    port: u16,
}

impl Suspect {
    /// Of a connection of `peer` to a listener with these `settings`. `stated`: by PROXY protocol,
    /// somebody else is the client.
    pub(super) fn new(
        pipeline: &Pipeline,
        settings: &ClientSettings,
        bind: SocketAddr,
        peer: SocketAddr,
        stated: bool,
    ) -> Self {
        let ip = peer.ip().to_canonical();
        let is_client = !stated && peer_is_client(&settings.client_address, ip);
        if !is_client {
            saw_proxy(pipeline, ip);
        }
        Self {
            address: is_client.then_some(ip),
            port: bind.port(),
        }
    }

    fn tell(self, pipeline: &Pipeline, offence: Offence) {
        self.judge(pipeline, |judge, address, now, court| {
            judge.offend(address, offence, now, court);
        });
    }

    fn judge(self, pipeline: &Pipeline, by: impl FnOnce(&Arc<Judge>, IpAddr, u64, &dyn Court)) {
        let (Some(address), Some(court)) = (self.address, &pipeline.court) else {
            return;
        };
        let active = pipeline.active.load();
        if let Some(judge) = active.engine().judges.of(self.port) {
            by(judge, address, pipeline.clock.now(), &**court);
        }
    }

    /// A handshake is not done. A client that goes away without a word has done nothing, and one that
    /// connects ahead of need may be silent.
    pub(super) fn no_handshake(self, pipeline: &Pipeline, why: &Why, begun: bool) {
        if why.is_late() {
            if begun {
                self.tell(pipeline, Offence::SlowClient);
            }
        } else if !why.is_gone() {
            self.tell(pipeline, Offence::TlsHandshakeFailed);
        }
    }

    /// What a connection begins with is not there. One that is opened ahead of need may be silent.
    pub(super) fn no_opening(self, pipeline: &Pipeline, why: &Why, begun: bool) {
        if !why.is_late() && !why.is_gone() {
            self.tell(pipeline, Offence::MalformedRequest);
        } else if why.is_late() && begun {
            self.tell(pipeline, Offence::SlowClient);
        }
    }

    /// A bound on the connection's time is over.
    pub(super) fn closed(self, pipeline: &Pipeline, reason: Closed, life: &Life) {
        let slow = match reason {
            Closed::HeadTimeout => life.is_reading(),
            Closed::Stalled => true,
            _ => false,
        };
        if slow {
            self.tell(pipeline, Offence::SlowClient);
        }
    }

    /// HTTP on the connection ended with an error.
    pub(super) fn broke(self, pipeline: &Pipeline, error: &hyper::Error) {
        let h2 = error
            .source()
            .and_then(|source| source.downcast_ref::<h2::Error>());
        // Of this end: the other one broke the rules.
        if error.is_parse() || h2.is_some_and(h2::Error::is_library) {
            self.tell(pipeline, Offence::MalformedRequest);
        }
    }
}

/// A request to a listener with these `settings` (`None`: it is not known to which) was refused.
pub(super) fn refused(conn: &Conn, settings: Option<&ClientSettings>, refusal: &Refusal) {
    let offence = match refusal {
        Refusal::Limited(_) | Refusal::OverLimit(_) => Offence::RateLimited,
        Refusal::BadRequest(_) | Refusal::Connect | Refusal::HeadTooLarge => {
            Offence::MalformedRequest
        }
        Refusal::Slow => Offence::SlowClient,
        _ => return,
    };
    if is_of_peer(conn, settings) {
        conn.suspect.tell(&conn.pipeline, offence);
    }
}

/// An upstream answered a request to a listener with these `settings`.
pub(super) fn responded(conn: &Conn, settings: Option<&ClientSettings>, status: http::StatusCode) {
    if conn.suspect.address.is_some() && is_of_peer(conn, settings) {
        conn.suspect
            .judge(&conn.pipeline, |judge, address, now, court| {
                judge.responded(address, status.as_u16(), now, court);
            });
    }
}

/// Whether requests to that listener are the peer's own. Listeners on one address may differ in that.
fn is_of_peer(conn: &Conn, settings: Option<&ClientSettings>) -> bool {
    let Some(address) = conn.suspect.address else {
        return false;
    };
    let is_client =
        settings.is_none_or(|settings| peer_is_client(&settings.client_address, address));
    if !is_client {
        saw_proxy(&conn.pipeline, address);
    }
    is_client
}

/// Requests of others come by this peer.
fn saw_proxy(pipeline: &Pipeline, peer: IpAddr) {
    if pipeline.court.is_some() {
        pipeline.active.load().engine().judges.saw_proxy(peer);
    }
}
