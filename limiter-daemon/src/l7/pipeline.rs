//! The life of a request, in its order.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use http::header::HOST;
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, Version};
use http_body_util::Either;
use hyper::body::Incoming;

use super::clock::Clock;
use super::metrics::Counters;
use super::respond::{Refusal, add_rate_limit_headers};
use super::upstream::{Upstreams, authority};
use super::{Body, headers};
use crate::engine::decide::Outcome;
use crate::engine::request::RequestView;
use crate::engine::state::RouteStats;
use crate::engine::{Engine, Listener};
use crate::policy::Plan;

/// The engine in force, and what the data plane derives from its plan.
#[derive(Debug)]
pub struct Active {
    engine: Engine,
    /// Index of the listener on each bound address.
    bound: HashMap<SocketAddr, usize>,
    /// Authorities of the endpoints of each backend.
    authorities: Vec<Vec<Option<Authority>>>,
}

impl Active {
    #[must_use]
    pub fn new(plan: &Plan, engine: Engine) -> Self {
        let bound = plan
            .listeners
            .iter()
            .enumerate()
            .flat_map(|(index, listener)| listener.binds.iter().map(move |bind| (*bind, index)))
            .collect();
        let authorities = engine
            .backends
            .iter()
            .map(|b| b.endpoints().iter().map(authority).collect())
            .collect();
        Self {
            engine,
            bound,
            authorities,
        }
    }

    fn listener(&self, bind: SocketAddr) -> Option<&Listener> {
        self.bound
            .get(&bind)
            .map(|index| &self.engine.listeners[*index])
    }

    fn endpoint(&self, backend: usize) -> Option<Authority> {
        let endpoint = self.engine.backends[backend].next()?;
        self.authorities[backend][endpoint].clone()
    }
}

/// What a worker's requests need.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) active: Arc<ArcSwap<Active>>,
    pub(super) upstreams: Upstreams,
    pub(super) clock: Clock,
    pub(super) counters: Arc<Counters>,
}

/// The connection that a request came on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Downstream {
    /// The address that we listen on.
    pub(super) bind: SocketAddr,
    /// The address of the client.
    pub(super) peer: SocketAddr,
}

/// What is decided about a request before it goes anywhere.
struct Decided {
    stats: Arc<RouteStats>,
    outcome: Option<Outcome>,
    target: Result<Authority, Refusal>,
}

impl Pipeline {
    /// Answers a request: route, client address, local limits, upstream, response headers, metrics.
    pub(super) async fn serve(
        &self,
        from: Downstream,
        mut request: Request<Incoming>,
    ) -> Response<Body> {
        let Decided {
            stats,
            outcome,
            target,
        } = match self.decide(from, &request) {
            Ok(decided) => decided,
            Err(refusal) => {
                self.counters.unrouted.fetch_add(1, Ordering::Relaxed);
                return refusal.respond();
            }
        };
        let answer = match target {
            Ok(authority) => {
                prepare(from, &mut request);
                self.upstreams.send(authority, request).await
            }
            Err(refusal) => Err(refusal),
        };
        let mut response = match answer {
            Ok(mut response) => {
                headers::strip_hop_by_hop(response.headers_mut());
                response.map(Either::Left)
            }
            Err(refusal) => {
                log(&refusal, &stats.route);
                refusal.respond()
            }
        };
        if let Some(outcome) = &outcome {
            add_rate_limit_headers(response.headers_mut(), outcome);
        }
        stats.count(response.status());
        response
    }

    /// Everything that needs the plan; it is let go before anything is waited for.
    fn decide(&self, from: Downstream, request: &Request<Incoming>) -> Result<Decided, Refusal> {
        let active = self.active.load();
        let host = host(request)?;
        let rule = active
            .listener(from.bind)
            .and_then(|l| {
                l.routes.find(
                    &host,
                    request.uri().path(),
                    request.method(),
                    request.headers(),
                )
            })
            .ok_or(Refusal::NoRoute)?;
        let view = RequestView {
            method: request.method(),
            path: request.uri().path(),
            query: request.uri().query(),
            headers: request.headers(),
            client: from.peer.ip().to_canonical(),
        };
        let limits = rule.limits.as_ref();
        let outcome = limits.map(|limits| limits.decide(&view, self.clock.now()));
        let denied = outcome.as_ref().and_then(|outcome| outcome.denied.as_ref());
        let target = match denied {
            Some(denied) => Err(Refusal::Limited { wait: denied.wait }),
            None => {
                let backend = rule
                    .backends
                    .next()
                    .and_then(|backend| active.endpoint(backend));
                backend.ok_or(Refusal::NoBackend)
            }
        };
        Ok(Decided {
            stats: Arc::clone(&rule.route.stats),
            outcome,
            target,
        })
    }
}

/// The host that a request is for: of its target, else of its one `Host` header (RFC 9112 section
/// 3.2).
fn host(request: &Request<Incoming>) -> Result<Cow<'_, str>, Refusal> {
    if request.method() == Method::CONNECT {
        return Err(Refusal::Connect);
    }
    let mut values = request.headers().get_all(HOST).iter();
    let host = values.next();
    if values.next().is_some() {
        return Err(Refusal::BadRequest("more than one Host header"));
    }
    if let Some(authority) = request.uri().authority() {
        return Ok(Cow::Borrowed(authority.as_str()));
    }
    match host {
        Some(host) => host
            .to_str()
            .map(Cow::Borrowed)
            .map_err(|_invalid| Refusal::BadRequest("the Host header is not a host name")),
        None if request.version() < Version::HTTP_11 => Ok(Cow::Borrowed("")),
        None => Err(Refusal::BadRequest("no Host header")),
    }
}

/// Makes the request fit to forward.
fn prepare(from: Downstream, request: &mut Request<Incoming>) {
    // HTTP/2 and absolute targets carry the host in the target; HTTP/1.1 upstreams want the header.
    let authority = request
        .uri()
        .authority()
        .map(|a| HeaderValue::from_str(a.as_str()));
    let headers = request.headers_mut();
    if let Some(Ok(host)) = authority {
        headers.insert(HOST, host);
    }
    headers::strip_hop_by_hop(headers);
    headers::add_forwarded(headers, from.peer.ip());
}

fn log(refusal: &Refusal, route: &str) {
    match refusal {
        Refusal::Unreachable(error) | Refusal::Broken(error) => {
            tracing::debug!(route, error = chain(error.as_ref()), "upstream failed");
        }
        Refusal::Timeout => tracing::debug!(route, "upstream timed out"),
        _ => {}
    }
}

/// An error and what caused it, on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
