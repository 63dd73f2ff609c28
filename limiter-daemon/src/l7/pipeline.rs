//! The life of a request, in its order.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use http::{HeaderValue, Request, Response, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;

use super::active::Active;
use super::admission;
use super::affinity::affinity;
use super::asked_headers::Told;
use super::asking;
use super::body::Body;
use super::client_address::{self, Client};
use super::clock::Clock;
use super::connection::Conn;
use super::cost_body::CostBody;
use super::eviction::Evictions;
use super::fault::Faults;
use super::forward::Forward;
use super::hold::hold;
use super::metrics::{Counters, Decided as Fate, Decisions};
use super::mirror::Mirrors;
use super::offences;
use super::overrides::{self, Asked};
use super::path;
use super::record::{Ending, Record, Sink};
use super::request_id::Random;
use super::respond::Refusal;
use super::upstream::Upstreams;
use super::{filters, limit_headers, record};
use crate::engine::decide::Decision;
use crate::engine::escalation::Court;
use crate::engine::limited::{Account, By};
use crate::engine::outcome::Outcome;
use crate::engine::request::RequestView;
use crate::engine::route::Rule;
use crate::policy::plan::ClientSettings;
use crate::traces::Tracer;

/// What a worker's requests need.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) active: Arc<ArcSwap<Active>>,
    pub(super) upstreams: Arc<Upstreams>,
    pub(super) mirrors: Mirrors,
    pub(super) faults: Faults,
    pub(super) clock: Clock,
    pub(super) counters: Arc<Counters>,
    /// Of this worker.
    pub(super) decisions: Arc<Decisions>,
    /// Whom its limits deny.
    pub(super) limited: Arc<Account>,
    pub(super) random: Random,
    pub(super) sink: Option<Arc<dyn Sink>>,
    /// Traces some of the requests; `None`: none.
    pub(super) tracer: Option<Arc<Tracer>>,
    /// Who passes sentences; `None`: nothing enforces them.
    pub(super) court: Option<Arc<dyn Court>>,
    pub(super) evictions: Evictions,
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
        if let Some(record) = record::begin(&conn, &request, now) {
            ending.keep(record);
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
        conn.pipeline.decided(&next, now);
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
        decided.note_denied(&conn.pipeline, &refusal);
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

    /// For who asks which clients are denied, and by what.
    fn note_denied(&self, pipeline: &Pipeline, refusal: &Refusal) {
        let by = match refusal {
            Refusal::Limited(_) => {
                let denied = self.outcome.denied.as_ref();
                denied.map(|denied| By::Limit(Arc::clone(&denied.rule.scope)))
            }
            Refusal::OverLimit(_) => {
                let rule = self.rule.as_ref();
                rule.map(|rule| By::Service(Arc::clone(&rule.route.stats)))
            }
            _ => None,
        };
        if let (Some(client), Some(by)) = (self.client, by) {
            let now = pipeline.clock.now();
            pipeline.limited.denied(client.address, by, now);
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
        let view = RequestView {
            connection: Some(&conn.buckets),
            ..view(request, client)
        };
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

    /// Counts how long limits took, since the request's head came at `began`.
    fn decided(&self, next: &Result<Next, Refusal>, began: u64) {
        let fate = match next {
            Ok(Next::Forward(_)) => Fate::Forwarded,
            Ok(Next::Answer(_)) | Err(_) => Fate::Answered,
        };
        let took = self.clock.now().saturating_sub(began);
        self.decisions.took(fate, took);
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
        connection: None,
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
