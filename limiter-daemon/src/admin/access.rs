//! The door of the admin listener: TLS, who it is, whether he may ([`guard`](super::guard)), and what
//! is written down of it ([`audit`](super::audit)).

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{HeaderValue, WWW_AUTHENTICATE};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::audit::{self, At};
use super::guard::{self, Connection, Head, Need, Peer};
use super::socket::{Accepted, Stream};
use super::{Admin, text};
use crate::l7::clock::wall;
use crate::l7::tls;
use crate::policy::plan::{AdminAccess, Plan, ServerTls};

/// How long a client may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Who may ask, as the policy in force has it.
#[derive(Debug)]
pub struct Guard(ArcSwap<InForce>);

#[derive(Debug)]
struct InForce {
    rules: AdminAccess,
    tls: Option<Arc<ServerConfig>>,
}

impl InForce {
    fn of(plan: &Plan) -> anyhow::Result<Arc<Self>> {
        let rules = plan.admin.clone();
        let tls = match &rules.tls {
            ServerTls::None => None,
            ServerTls::As(tls) => {
                let http = crate::policy::plan::Tls {
                    alpn: vec!["http/1.1".to_owned()],
                    ..tls.clone()
                };
                Some(tls::server(&http).context("`admin.tls`")?)
            }
            ServerTls::Broken(why) => bail!("{why}"),
        };
        Ok(Arc::new(Self { rules, tls }))
    }
}

impl Guard {
    /// By the first policy.
    ///
    /// # Errors
    /// When its certificates cannot be used.
    pub fn start(plan: &Plan) -> anyhow::Result<Self> {
        Ok(Self(ArcSwap::new(InForce::of(plan)?)))
    }

    /// Puts what a plan says in force: for requests from now on, and TLS for connections. What
    /// cannot be used leaves all as it was.
    pub fn follow(&self, plan: &Plan) {
        match InForce::of(plan) {
            Ok(next) => self.0.store(next),
            Err(error) => {
                tracing::error!(%error, "admin listener: who might ask before may still");
            }
        }
    }

    /// Shakes hands, where TLS is spoken; `None`: nobody is there to talk to.
    pub(super) async fn greet(
        &self,
        Accepted { stream, peer }: Accepted,
    ) -> Option<(Box<dyn Stream>, Connection)> {
        let tls = match peer {
            Peer::User(_) => None,
            Peer::Address { .. } => self.0.load().tls.clone(),
        };
        let Some(tls) = tls else {
            let certificate = None;
            return Some((stream, Connection { peer, certificate }));
        };
        let stream = match timeout(HANDSHAKE, TlsAcceptor::from(tls).accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%error, "admin: TLS handshake");
                return None;
            }
            Err(_silent) => return None,
        };
        let shown = stream.get_ref().1.peer_certificates();
        let certificate = shown.and_then(<[_]>::first).map(names);
        Some((Box::new(stream), Connection { peer, certificate }))
    }
}

/// The names of a client's certificate, which was verified: DNS names in lower case, then URIs.
fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else {
        return Vec::new();
    };
    let hosts = certificate.valid_dns_names().map(str::to_ascii_lowercase);
    let uris = certificate.valid_uri_names().map(str::to_owned);
    hosts.chain(uris).collect()
}

impl Admin {
    /// Answers who may ask, and writes down who changes something or wanted to.
    pub(super) async fn guarded(
        &self,
        connection: &Connection,
        request: Request<Incoming>,
    ) -> Response<Full<Bytes>> {
        let head = Head {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
        };
        let writes = Need::of(head.method, head.uri.path()) == Need::Write;
        let target = head.uri.path_and_query();
        let about = audit::Request {
            method: head.method.clone(),
            path: target.map_or_else(String::new, ToString::to_string),
            peer: connection.peer,
        };
        let decided = guard::decide(&self.guard.0.load().rules, connection, head);
        match decided {
            Ok(granted) => {
                let response = self.answer(request, granted.reads).await;
                if writes {
                    self.audit
                        .heard(&granted.who, &about, &response, self.at())
                        .await;
                }
                response
            }
            Err(denied) => {
                self.audit.refused(&denied, writes, &about, self.at());
                let status = denied.reason.status();
                let mut response = text(status, format!("{}\n", denied.reason.why()));
                if status == http::StatusCode::UNAUTHORIZED {
                    let challenge = HeaderValue::from_static("Bearer realm=\"limiterd\"");
                    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
                }
                response
            }
        }
    }

    fn at(&self) -> At {
        At {
            wall: wall(),
            now: self.clock.now(),
        }
    }
}
