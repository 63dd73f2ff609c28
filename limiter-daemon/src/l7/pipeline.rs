//! The life of a connection and of a request, in their order.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::active::Active;
use super::admission;
use super::affinity::affinity;
use super::asked_headers::Told;
use super::asking;
use super::body::Body;
use super::client_address::{self, Client};
use super::clock::Clock;
use super::connection::{self, Conn};
use super::cost_body::CostBody;
use super::drain::Draining;
use super::eviction::Evictions;
use super::fault::Faults;
use super::forward::Forward;
use super::handshake;
use super::hold::hold;
use super::io::Rewind;
use super::life::Life;
use super::metrics::{Closed, Counters};
use super::mirror::Mirrors;
use super::offences::{self, Suspect};
use super::opening::{self, Why, preface, sniff, within};
use super::overrides::{self, Asked};
use super::path;
use super::proxy_protocol;
use super::record::{Ending, Record, Sink};
use super::request_id::Random;
use super::respond::Refusal;
use super::upstream::Upstreams;
use super::{filters, headers, limit_headers, record};
use crate::engine::decide::Decision;
use crate::engine::escalation::Court;
use crate::engine::outcome::Outcome;
use crate::engine::request::RequestView;
use crate::engine::route::Rule;
use crate::policy::plan::ClientSettings;

/// What a worker's requests need.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) active: Arc<ArcSwap<Active>>,
    pub(super) upstreams: Arc<Upstreams>,
    pub(super) mirrors: Mirrors,
    pub(super) faults: Faults,
    pub(super) clock: Clock,
    pub(super) counters: Arc<Counters>,
    pub(super) random: Random,
    pub(super) sink: Option<Arc<dyn Sink>>,
    /// Who passes sentences; `None`: nothing enforces them.
    pub(super) court: Option<Arc<dyn Court>>,
    pub(super) evictions: Evictions,
}

/// The life of a connection: bounds on connections, PROXY protocol, bounds on the source, TLS,
/// HTTP/1.1 or HTTP/2, requests. `None`: it was closed before its first request.
pub(super) async fn converse(
    pipeline: Arc<Pipeline>,
    bind: SocketAddr,
    stream: TcpStream,
    peer: SocketAddr,
    mut drain: Draining,
) -> Option<()> {
    let (settings, door, tls) = {
        let active = pipeline.active.load();
        let (listener, door) = active.door(bind)?;
        (Arc::clone(&listener.client), door, active.is_tls(bind))
    };
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
        })
    };
    let no_opening = |why: Why, begun| {
        if why.is_late() {
            close(Closed::HeadTimeout);
        }
        suspect.no_opening(&pipeline, &why, begun);
    };
    if tls {
        let accept = async |stream| handshake::accept(&pipeline, bind, stream).await;
        let undone = |why: Why, begun| {
            close(Closed::Handshake);
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

/// A request's life: route, client address, local limits, global limits, rate limit services, upstream,
/// response headers;
/// response cost, metrics and log when its response is over.
pub(super) fn answer(
    conn: Arc<Conn>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<CostBody<Body>>, Infallible>> + Send {
    // Before anything is waited for: the connection counts its requests.
    let now = conn.pipeline.clock.now();
    let last = conn.life.begin(now, conn.settings.connections.max_requests);
    let ending = Ending::new(Arc::clone(&conn));
    async move {
        let mut request = request;
        let mut ending = ending;
        let mut decided = Decided::default();
        if conn.pipeline.sink.is_some() {
            ending.keep(record::begin(&conn, &request, now));
        }
        let (version, grpc) = (request.version(), is_grpc(&request));
        let next = match conn.pipeline.decide(&conn, &mut request, &mut decided) {
            Ok((limits, next)) => {
                let outcome = match limits {
                    Decision::Ready(outcome) => outcome,
                    Decision::Pending(outcome) => outcome.await,
                };
                decided.take(outcome, &request, &mut ending).and(next)
            }
            Err(refusal) => Err(refusal),
        };
        let next = match (next, decided.client) {
            (Ok(Next::Forward(forward)), Some(client)) if !forward.rule.asks.is_empty() => {
                let mut forward = forward;
                let told = decided.told.get_or_insert_default();
                let asking =
                    asking::ask(&conn, &mut forward, &mut request, client, told, &mut ending);
                // What few routes have is boxed: each request carries the size of what is not.
                Box::pin(asking).await.map(|()| Next::Forward(forward))
            }
            (next, _) => next,
        };
        let answer = match next {
            Ok(Next::Forward(mut forward)) => {
                let held = match conn.pipeline.admit(&forward.rule, now) {
                    Ok(()) => hold(&conn, &mut forward, &mut request, &mut ending).await,
                    refused => refused,
                };
                match held {
                    Ok(()) => {
                        // A request is large: from here on it is handed on by reference.
                        let mut sending = forward.prepare(&conn, request, &mut ending);
                        let answer = forward.send(&conn, &mut sending, &mut ending, now).await;
                        forward.tell_admission(&answer, now);
                        if let Ok(response) = &answer {
                            let settings = decided.settings.as_deref();
                            offences::responded(&conn, settings, response.status());
                        }
                        answer
                    }
                    Err(refusal) => Err(refusal),
                }
            }
            Ok(Next::Answer(response)) => Ok(*response),
            Err(refusal) => Err(refusal),
        };
        let mut response = finish(&conn, answer, decided, &mut ending, (version, grpc));
        if last && version <= Version::HTTP_11 && response.status().as_u16() != 101 {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        let settlement = std::mem::take(&mut ending.settlement);
        let clock = conn.pipeline.clock;
        Ok(response.map(|body| CostBody::new(body.ends(ending), settlement, clock)))
    }
}

/// Refunds, response headers, metrics, and what the log needs to know.
fn finish(
    conn: &Conn,
    answer: Result<Response<Body>, Refusal>,
    mut decided: Decided,
    ending: &mut Ending,
    (version, grpc): (Version, bool),
) -> Response<Body> {
    let mut refused = None;
    let mut response = answer.unwrap_or_else(|refusal| {
        refused = Some(refusal.status());
        note(&refusal, decided.rule.as_deref());
        offences::refused(conn, decided.settings.as_deref(), &refusal);
        if let Some(failure) = refusal.failure() {
            let settlement = std::mem::take(&mut ending.settlement);
            settlement.failed(failure, conn.pipeline.clock.both());
        }
        if let Some(record) = ending.record() {
            record.refused = Some(refusal.name());
        }
        refusal.respond(version, grpc)
    });
    if let Some(settings) = &decided.settings {
        limit_headers::add(response.headers_mut(), &decided.outcome, settings);
    }
    if let Some(told) = decided.told.take() {
        told.write(response.headers_mut(), refused.is_some());
    }
    if let (Some(asked), Some(rule)) = (decided.asked.take(), &decided.rule) {
        let settlement = &mut ending.settlement;
        response = overrides::apply(rule, &asked, conn, response, refused, settlement);
    }
    match &decided.rule {
        Some(rule) => rule.route.stats.count(response.status()),
        None => {
            let unrouted = &conn.pipeline.counters.unrouted;
            unrouted.fetch_add(1, Ordering::Relaxed);
        }
    }
    if let Some(record) = ending.record() {
        decided.tell(record);
        record.status = response.status();
    }
    response
}

/// What is known of a request whose decision may have ended early.
#[derive(Default)]
struct Decided {
    client: Option<Client>,
    rule: Option<Arc<Rule>>,
    /// What overrides of the rule need; `None`: it has none.
    asked: Option<Box<Asked>>,
    outcome: Outcome,
    /// What rate limit services want to be told; `None`: none was asked.
    told: Option<Box<Told>>,
    /// Of the listener.
    settings: Option<Arc<ClientSettings>>,
}

/// What happens to a request that is not refused.
enum Next {
    Forward(Forward),
    Answer(Box<Response<Body>>),
}

impl Decided {
    /// Keeps what the limits say, and what is left to do about it.
    ///
    /// # Errors
    /// If they deny the request.
    fn take(
        &mut self,
        mut outcome: Outcome,
        request: &Request<Incoming>,
        ending: &mut Ending,
    ) -> Result<(), Refusal> {
        ending.settlement = std::mem::take(&mut outcome.settlement);
        self.outcome = outcome;
        self.note_limit(ending, request);
        refused(&self.outcome)
    }

    /// For the log: the bucket that decided, before the request is changed.
    fn note_limit(&mut self, ending: &mut Ending, request: &Request<Incoming>) {
        if let (Some(record), Some(client)) = (ending.record(), self.client)
            && let Some(decisive) = self.outcome.decisive.take()
        {
            record.limit = Some(record::DecidedBy {
                descriptor: decisive.descriptor(&view(request, client)),
                decisive,
                denied: self.outcome.denied.is_some(),
            });
        }
    }

    fn tell(self, record: &mut Record) {
        if let Some(client) = self.client {
            record.client = client.address;
        }
        record.rule = self.rule;
    }
}

impl Pipeline {
    /// Everything that needs the plan; it is let go before anything is waited for. What the limits
    /// say, which global ones may have to be asked elsewhere, and what follows if they admit.
    fn decide(
        &self,
        conn: &Conn,
        request: &mut Request<Incoming>,
        decided: &mut Decided,
    ) -> Result<(Decision, Result<Next, Refusal>), Refusal> {
        admission::admit(request, &conn.settings)?;
        path::normalise(request)?;
        let active = self.active.load();
        let engine = active.engine();
        let host = admission::host(request);
        let index = engine.listener(conn.bind, &host).ok_or(Refusal::NoRoute)?;
        if let Some(name) = &conn.sni
            && engine.listener(conn.bind, name) != Some(index)
        {
            return Err(Refusal::Misdirected);
        }
        let listener = &engine.listeners[index];
        let settings = &listener.client;
        decided.settings = Some(Arc::clone(settings));
        check_length(request, settings)?;
        let client =
            client_address::client(&settings.client_address, request.headers(), conn.peer.ip())?;
        decided.client = Some(client);
        let view = view(request, client);
        let matched = listener.routes.find(&host, &view).ok_or(Refusal::NoRoute)?;
        let rule = decided.rule.insert(Arc::clone(matched.rule));
        decided.asked = Asked::new(request, rule, matched.prefix);
        if rule.broken.is_some() {
            return Err(Refusal::Invalid);
        }
        let limits = match &rule.limits {
            Some(limits) => limits.decide(&view, self.clock.both()),
            None => Decision::Ready(Outcome::default()),
        };
        // Who is refused takes no turn from others.
        let admitted = match &limits {
            Decision::Ready(outcome) => refused(outcome),
            Decision::Pending(_) => Ok(()),
        };
        let next = admitted.and_then(|()| {
            self.next(
                conn,
                request,
                &active,
                (rule, matched.prefix),
                settings,
                client,
            )
        });
        Ok((limits, next))
    }

    /// Refuses a part of the requests if too many of them fail. `now`: in nanoseconds.
    fn admit(&self, rule: &Rule, now: u64) -> Result<(), Refusal> {
        match (&rule.admission, &rule.traffic.admission_control) {
            (Some(admission), Some(settings))
                if !admission.admit(settings, self.random.next(), now) =>
            {
                Err(Refusal::NotAdmitted)
            }
            _ => Ok(()),
        }
    }

    /// What happens to a request that the limits admit.
    fn next(
        &self,
        conn: &Conn,
        request: &Request<Incoming>,
        active: &Active,
        (rule, prefix): (&Arc<Rule>, Option<usize>),
        settings: &Arc<ClientSettings>,
        client: Client,
    ) -> Result<Next, Refusal> {
        if let Some(redirect) = &rule.filters.redirect {
            let tls = conn.sni.is_some();
            let response = filters::redirect(request, redirect, prefix, tls, conn.bind);
            return Ok(Next::Answer(Box::new(response)));
        }
        if let Some(answer) = &rule.filters.answer {
            return Ok(Next::Answer(Box::new(filters::answer(answer))));
        }
        let chosen = rule.backends.next().ok_or(Refusal::NoBackend)?;
        let backend = chosen.backend.ok_or(Refusal::NoBackend)?;
        let cluster = active.cluster(backend).ok_or(Refusal::NoEndpoint)?;
        let affinity = affinity(&cluster.settings, &view(request, client), &self.random);
        Ok(Next::Forward(Forward {
            cluster: Arc::clone(cluster),
            affinity,
            mirrors: self.mirrors(active, rule),
            rule: Arc::clone(rule),
            backend_filters: chosen.filters.clone(),
            prefix,
            settings: Arc::clone(settings),
            trusted: client.by_trusted,
            added: None,
            buffered: None,
        }))
    }
}

/// # Errors
/// If the limits deny.
fn refused(outcome: &Outcome) -> Result<(), Refusal> {
    let denied = outcome.denied.as_ref();
    denied.map_or(Ok(()), |denied| Err(denied.into()))
}

pub(super) fn view(request: &Request<Incoming>, client: Client) -> RequestView<'_> {
    RequestView {
        method: request.method(),
        path: request.uri().path(),
        query: request.uri().query(),
        headers: request.headers(),
        client: client.address,
    }
}

/// A body that is said to be too large is not read at all.
fn check_length(request: &Request<Incoming>, settings: &ClientSettings) -> Result<(), Refusal> {
    let declared = request.body().size_hint().exact();
    match (settings.max_body, declared) {
        (Some(max), Some(length)) if length > max => Err(Refusal::TooLarge),
        _ => Ok(()),
    }
}

pub(super) fn is_grpc(request: &Request<Incoming>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn note(refusal: &Refusal, rule: Option<&Rule>) {
    let route = rule.map_or("", |rule| rule.route.name.as_str());
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
