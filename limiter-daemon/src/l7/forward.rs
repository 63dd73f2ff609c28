//! A request on its way to an upstream, and the response on its way back.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use smallvec::SmallVec;
use tokio::time::timeout;

use super::active::Active;
use super::affinity::Affinity;
use super::attempt::{Bound, Template, Times, Tried, stream_idle};
use super::body::{Body, Bounds, Buffered, Copy, RequestBody, Streamed, Upload};
use super::connection::Conn;
use super::pipeline::Pipeline;
use super::record::{Ending, Upstream};
use super::request_id::{self, X_REQUEST_ID};
use super::respond::Refusal;
use super::retrying::Retrying;
use super::tunnel::Tunnel;
use super::upstream::{Cluster, Lease, Pick, Upgraded};
use super::{filters, headers};
use crate::engine::route::Rule;
use crate::engine::upstream::{Admission, Stat, splitmix64};
use crate::policy::plan::{ClientSettings, Filters, UpstreamProtocol};

/// Mirrors of one rule; more than one is rare.
pub(super) type Copies = SmallVec<[Arc<Cluster>; 1]>;

/// Where a request goes, and what is done to it on the way.
pub(super) struct Forward {
    pub(super) cluster: Arc<Cluster>,
    /// What a consistent hash makes of it.
    pub(super) affinity: Affinity,
    pub(super) mirrors: Copies,
    pub(super) rule: Arc<Rule>,
    pub(super) backend_filters: Option<Arc<Filters>>,
    /// What the rule's prefix matched, in bytes.
    pub(super) prefix: Option<usize>,
    pub(super) settings: Arc<ClientSettings>,
    /// The connection's other end is a proxy whose word counts.
    pub(super) trusted: bool,
    /// What rate limit services want to be added to it.
    pub(super) added: Option<Box<HeaderMap>>,
    /// The request's body, if it was to be read whole.
    pub(super) buffered: Option<Box<Buffered>>,
}

impl Pipeline {
    /// The backends that get a copy of this request.
    pub(super) fn mirrors(&self, active: &Active, rule: &Rule) -> Copies {
        let taken = rule.filters.mirrors.iter().filter(|mirror| {
            mirror.numerator >= mirror.denominator
                || self.random.next() % u64::from(mirror.denominator) < u64::from(mirror.numerator)
        });
        taken
            .filter_map(|mirror| active.cluster(mirror.backend).cloned())
            .collect()
    }
}

/// A request that is ready to be sent.
pub(super) struct Sending {
    /// `None`: it was sent.
    request: Option<Request<RequestBody>>,
    /// `None`: it is sent once.
    template: Option<Template>,
    upgrade: Option<(HeaderValue, OnUpgrade)>,
    upload: Option<Arc<Upload>>,
}

impl Forward {
    /// Makes the request fit to forward, and sends copies to mirrors.
    pub(super) fn prepare(
        &self,
        conn: &Conn,
        mut request: Request<Incoming>,
        ending: &mut Ending,
    ) -> Sending {
        let upgrade = headers::upgrade(request.version(), request.method(), request.headers())
            .filter(|_| self.cluster.protocol != UpstreamProtocol::Http2);
        let upgrade = upgrade.map(|protocol| (protocol, hyper::upgrade::on(&mut request)));
        self.change_request(conn, &mut request);
        let traced = ending.record().and_then(|record| {
            record.request_id = request.headers().get(X_REQUEST_ID).cloned();
            record.traced.as_deref()
        });
        match (&conn.pipeline.tracer, traced) {
            (Some(_), Some(traced)) => traced.write(request.headers_mut()),
            (Some(tracer), None) => tracer.strip(request.headers_mut()),
            (None, _) => {}
        }
        let copies = self.copy(conn, &request);
        self.change_for_backend(&mut request);
        if let Some((protocol, _)) = &upgrade {
            headers::set_upgrade(request.headers_mut(), protocol.clone());
        }
        let (parts, body) = request.into_parts();
        let (body, upload) = match &self.buffered {
            Some(buffered) => RequestBody::buffered(buffered, copies),
            None => RequestBody::client(body, self.bounds(), copies),
        };
        ending.uploads(upload.clone());
        let request = Request::from_parts(parts, body);
        let (template, request) = if self.rule.traffic.retry.is_some() && upgrade.is_none() {
            let (template, request) = Template::new(request);
            (Some(template), request)
        } else {
            (None, request)
        };
        Sending {
            request: Some(request),
            template,
            upgrade,
            upload,
        }
    }

    /// Sends the request, again if need be, and waits for the response's head. `began`: when the
    /// request's head had come, in nanoseconds.
    ///
    /// # Errors
    /// [`Refusal`] as the client is to see it.
    pub(super) async fn send(
        &self,
        conn: &Arc<Conn>,
        sending: &mut Sending,
        ending: &mut Ending,
        began: u64,
    ) -> Result<Response<Body>, Refusal> {
        let clock = conn.pipeline.clock;
        let upload = sending.upload.take();
        let times = Times {
            rule: &self.rule,
            settings: &self.settings,
            began,
        };
        let mut pick = Pick::new(Arc::clone(&self.cluster), self.affinity.hash);
        let mut retrying = None;
        let mut from = clock.now();
        let mut now;
        let tried = loop {
            // Spread evenly enough: no two requests see one instant.
            pick.choose(splitmix64(from), from);
            note_upstream(&pick, ending);
            let tried = self.attempt(conn, &mut pick, sending, &times, from).await;
            now = clock.both();
            self.report(&pick, &tried, now.mono);
            let Some(template) = &sending.template else {
                break tried;
            };
            // What is rare is boxed: each request carries the size of what is not.
            let again = Retrying {
                forward: self,
                upload: upload.as_deref(),
                template,
                times: &times,
                random: &conn.pipeline.random,
            };
            match Box::pin(again.wait(tried, &mut retrying, now)).await {
                Ok(request) => {
                    sending.request = Some(request);
                    note_retry(ending);
                }
                Err(tried) => break tried,
            }
            pick.avoid_current();
            from = clock.now();
        };
        self.done(retrying.is_some(), &tried);
        note_upstream(&pick, ending);
        let fault = upload.and_then(|upload| upload.fault());
        match tried {
            Tried::Answered(response, lease) => {
                let (status, headers) = (response.status(), response.headers());
                ending.settlement.answered(status, headers, now);
                if let Some(record) = ending.record() {
                    record.responded = Some(now.mono);
                }
                let rest = times.rest(from, now.mono);
                Ok(self.respond(response, lease, times.idle(), rest))
            }
            Tried::Switched(response, upstream, hold) => {
                let (status, headers) = (response.status(), response.headers());
                ending.settlement.answered(status, headers, now);
                let Some((_, client)) = sending.upgrade.take() else {
                    return Err(Refusal::NoUpgrade);
                };
                let tunnel = Tunnel {
                    client,
                    upstream,
                    _hold: hold,
                    ending: Some(ending.take_over()),
                };
                Ok(self.switch(conn, response, tunnel))
            }
            Tried::Failed(failed) => Err(fault.map_or_else(|| failed.into(), Refusal::from)),
            Tried::TimedOut(bound) => Err(fault.map_or_else(|| bound.into(), Refusal::from)),
        }
    }

    /// Takes note of what admission control makes of the answer.
    pub(super) fn tell_admission(&self, answer: &Result<Response<Body>, Refusal>, now: u64) {
        let (Some(admission), Some(settings)) =
            (&self.rule.admission, &self.rule.traffic.admission_control)
        else {
            return;
        };
        let success = match answer {
            Ok(response) => {
                let grpc = response.headers().get("grpc-status");
                let grpc = grpc.and_then(|status| status.to_str().ok()?.parse().ok());
                Admission::is_success(settings, response.status().as_u16(), grpc)
            }
            // What is the client's fault says nothing.
            Err(refusal) if refusal.failure().is_none() => return,
            Err(_) => false,
        };
        admission.record(success, now);
    }

    async fn attempt(
        &self,
        conn: &Arc<Conn>,
        pick: &mut Pick,
        sending: &mut Sending,
        times: &Times<'_>,
        now: u64,
    ) -> Tried {
        let upstreams = &conn.pipeline.upstreams;
        let request = &mut sending.request;
        let upgrade = sending.upgrade.is_some();
        let exchange = async {
            if upgrade {
                let upgraded = Box::pin(upstreams.upgrade(pick, request)).await;
                return match upgraded {
                    Ok((response, Upgraded::Yes(io, hold))) => Tried::Switched(response, io, hold),
                    Ok((response, Upgraded::No(lease))) => Tried::Answered(response, lease),
                    Err(failed) => Tried::Failed(failed),
                };
            }
            match upstreams.send(pick, request).await {
                Ok((response, lease)) => Tried::Answered(response, lease),
                Err(failed) => Tried::Failed(failed),
            }
        };
        match times.head(now) {
            Some((bound, which)) => {
                let tried = timeout(bound, exchange).await;
                tried.unwrap_or(Tried::TimedOut(which))
            }
            None => exchange.await,
        }
    }

    /// Takes note of what the attempt says of the endpoint.
    fn report(&self, pick: &Pick, tried: &Tried, now: u64) {
        if let Tried::TimedOut(bound) = tried {
            self.cluster.breaker.stats.count(match bound {
                Bound::Try => Stat::RqPerTryTimeout,
                Bound::Request => Stat::RqTimeout,
            });
        }
        if let (Some(host), Some(exchange)) = (pick.current(), tried.exchange()) {
            let hosts = &pick.endpoints.hosts;
            self.cluster.report(hosts, host, exchange, now);
        }
    }

    fn done(&self, retried: bool, tried: &Tried) {
        let status = match tried {
            Tried::Answered(response, _) => response.status(),
            Tried::Switched(response, ..) => response.status(),
            Tried::Failed(_) | Tried::TimedOut(_) => return,
        };
        let stats = &self.cluster.breaker.stats;
        stats.answered(status);
        // Envoy: a retry has succeeded if its answer is none that fails.
        if retried && !status.is_server_error() {
            stats.count(Stat::RqRetrySuccess);
        }
    }

    fn change_request(&self, conn: &Conn, request: &mut Request<Incoming>) {
        let http2 = request.version() == Version::HTTP_2;
        let headers = request.headers_mut();
        headers::strip_request(headers);
        // The client was or will be told to go on by us.
        headers.remove(header::EXPECT);
        headers::forward(headers, conn, self.trusted);
        request_id::apply(self.settings.request_id, headers, &conn.pipeline.random);
        if http2 {
            headers::join_cookies(headers);
        }
        for (name, value) in self.added.iter().flat_map(|added| added.iter()) {
            headers.append(name, value.clone());
        }
        let filters = &self.rule.filters;
        filters::change(headers, &filters.request_headers);
        if let Some(rewrite) = &filters.rewrite {
            filters::rewrite(request, rewrite, self.prefix);
        }
    }

    /// What is done for the chosen backend only.
    fn change_for_backend(&self, request: &mut Request<Incoming>) {
        if let Some(filters) = &self.backend_filters {
            filters::change(request.headers_mut(), &filters.request_headers);
            if let Some(rewrite) = &filters.rewrite {
                filters::rewrite(request, rewrite, self.prefix);
            }
        }
    }

    fn copy(&self, conn: &Conn, request: &Request<Incoming>) -> Vec<Copy> {
        let pipeline = &conn.pipeline;
        let has_body = self.buffered.is_some() || !request.body().is_end_stream();
        let send = |mirror: &Arc<Cluster>| {
            let mut mirror = Pick::new(Arc::clone(mirror), None);
            mirror.choose(pipeline.random.next(), pipeline.clock.now());
            let (upstreams, counters) = (&pipeline.upstreams, &pipeline.counters);
            pipeline
                .mirrors
                .send(upstreams, counters, mirror, request, has_body)
        };
        self.mirrors.iter().filter_map(send).collect()
    }

    pub(super) fn bounds(&self) -> Bounds {
        let settings = &self.settings;
        Bounds {
            size: settings.max_body,
            idle: stream_idle(&self.rule.traffic, settings),
            left: settings.timeouts.request_received,
            trailers: settings.http1.trailers,
        }
    }

    fn respond(
        &self,
        response: Response<Incoming>,
        lease: Lease,
        idle: Option<Duration>,
        rest: Option<Duration>,
    ) -> Response<Body> {
        let (mut parts, body) = response.into_parts();
        parts.version = Version::HTTP_11;
        if parts.headers.contains_key(header::TRANSFER_ENCODING) {
            // Chunks said where the body ends (RFC 9112 section 6.3); a length would say it again.
            parts.headers.remove(header::CONTENT_LENGTH);
        }
        headers::strip_response(&mut parts.headers);
        self.change(&mut parts.headers);
        if let Some(cookie) = &self.affinity.cookie {
            parts.headers.append(header::SET_COOKIE, (**cookie).clone());
        }
        let trailers = self.settings.http1.trailers;
        let body = Streamed::new(body, lease, idle, rest, trailers);
        Response::from_parts(parts, Body::upstream(body))
    }

    fn change(&self, headers: &mut HeaderMap) {
        if let Some(filters) = &self.backend_filters {
            filters::change(headers, &filters.response_headers);
        }
        filters::change(headers, &self.rule.filters.response_headers);
    }

    /// Answers that the protocol is switched; the connection becomes the tunnel behind the answer.
    fn switch(&self, conn: &Conn, response: Response<Incoming>, tunnel: Tunnel) -> Response<Body> {
        let (mut parts, _nothing) = response.into_parts();
        parts.version = Version::HTTP_11;
        let protocol = parts.headers.get(header::UPGRADE).cloned();
        headers::strip_response(&mut parts.headers);
        self.change(&mut parts.headers);
        if let Some(protocol) = protocol {
            headers::set_upgrade(&mut parts.headers, protocol);
        }
        let mut slot = conn.tunnel.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(tunnel);
        Response::from_parts(parts, Body::empty())
    }
}

fn note_retry(ending: &mut Ending) {
    if let Some(record) = ending.record() {
        record.retries += 1;
    }
}

fn note_upstream(pick: &Pick, ending: &mut Ending) {
    if let Some(record) = ending.record() {
        record.upstream = pick.current_target().cloned().map(Upstream);
    }
}
