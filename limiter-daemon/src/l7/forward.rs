//! A request on its way to an upstream, and the response on its way back.

use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use http::{HeaderValue, Request, Response, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use smallvec::SmallVec;
use tokio::time::timeout;

use super::active::Active;
use super::body::{Body, Bounds, Buffered, Copy, Fault, RequestBody, Streamed, Upload};
use super::connection::Conn;
use super::pipeline::Pipeline;
use super::record::{Ending, Upstream};
use super::request_id::{self, X_REQUEST_ID};
use super::respond::Refusal;
use super::tunnel::Tunnel;
use super::upstream::{Lease, Switched, Target};
use super::{filters, headers};
use crate::engine::route::Rule;
use crate::policy::plan::{ClientSettings, Filters};

/// Mirrors of one rule; more than one is rare.
pub(super) type Copies = SmallVec<[Arc<Target>; 1]>;

/// Where a request goes, and what is done to it on the way.
pub(super) struct Forward {
    pub(super) target: Arc<Target>,
    pub(super) mirrors: Copies,
    pub(super) rule: Arc<Rule>,
    pub(super) backend_filters: Option<Arc<Filters>>,
    /// What the rule's prefix matched, in bytes.
    pub(super) prefix: Option<usize>,
    pub(super) settings: Arc<ClientSettings>,
    /// The connection's other end is a proxy whose word counts.
    pub(super) trusted: bool,
    /// The request's body, if it was to be read whole.
    pub(super) buffered: Option<Box<Buffered>>,
}

impl Pipeline {
    /// The endpoints that get a copy of this request.
    pub(super) fn mirrors(&self, active: &Active, rule: &Rule) -> Copies {
        let taken = rule.filters.mirrors.iter().filter(|mirror| {
            mirror.numerator >= mirror.denominator
                || self.random.next() % u64::from(mirror.denominator) < u64::from(mirror.numerator)
        });
        taken
            .filter_map(|mirror| active.endpoint(mirror.backend))
            .collect()
    }
}

/// A request that is ready to be sent.
pub(super) struct Sending {
    /// `None`: it was sent.
    request: Option<Request<RequestBody>>,
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
            .filter(|_| !self.target.is_http2());
        let upgrade = upgrade.map(|protocol| (protocol, hyper::upgrade::on(&mut request)));
        self.change_request(conn, &mut request);
        if let Some(record) = ending.record() {
            record.upstream = Some(Upstream(Arc::clone(&self.target)));
            record.request_id = request.headers().get(X_REQUEST_ID).cloned();
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
        Sending {
            request: Some(Request::from_parts(parts, body)),
            upgrade,
            upload,
        }
    }

    /// Sends the request and waits for the response's head. `began`: when the request's head had
    /// come, in nanoseconds.
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
        let upload = sending.upload.take();
        let mut exchange = pin!(self.exchange(conn, sending, ending, began));
        let answered = match self.wait(None) {
            Some(bound) => timeout(bound, exchange.as_mut())
                .await
                .unwrap_or(Err(Refusal::Timeout)),
            None => exchange.await,
        };
        answered.map_err(|refusal| match upload.and_then(|upload| upload.fault()) {
            Some(Fault::TooLarge) => Refusal::TooLarge,
            Some(Fault::TimedOut) => Refusal::Slow,
            Some(Fault::Broken | Fault::Copy) => Refusal::BrokenBody,
            None => refusal,
        })
    }

    async fn exchange(
        &self,
        conn: &Arc<Conn>,
        sending: &mut Sending,
        ending: &mut Ending,
        began: u64,
    ) -> Result<Response<Body>, Refusal> {
        let upstreams = &conn.pipeline.upstreams;
        let request = &mut sending.request;
        let (response, lease) = match sending.upgrade.take() {
            None => upstreams.send(&self.target, request).await?,
            Some((_, client)) => match Box::pin(upstreams.upgrade(&self.target, request)).await? {
                (response, Switched::No(lease)) => (response, lease),
                (response, Switched::Yes(upstream)) => {
                    let now = conn.pipeline.clock.both();
                    let (status, headers) = (response.status(), response.headers());
                    ending.settlement.answered(status, headers, now);
                    let tunnel = Tunnel {
                        client,
                        upstream,
                        ending: Some(ending.take_over()),
                    };
                    return Ok(self.switch(conn, response, tunnel));
                }
            },
        };
        let now = conn.pipeline.clock.now();
        ending.settlement.answered(
            response.status(),
            response.headers(),
            conn.pipeline.clock.both(),
        );
        if let Some(record) = ending.record() {
            record.responded = Some(now);
        }
        Ok(self.respond(response, lease, now.saturating_sub(began)))
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
        let send = |target: &Arc<Target>| {
            let target = Arc::clone(target);
            let (upstreams, counters) = (&pipeline.upstreams, &pipeline.counters);
            pipeline
                .mirrors
                .send(upstreams, counters, target, request, has_body)
        };
        self.mirrors.iter().filter_map(send).collect()
    }

    pub(super) fn bounds(&self) -> Bounds {
        let settings = &self.settings;
        Bounds {
            size: settings.max_body,
            idle: settings.timeouts.stream_idle,
            left: settings.timeouts.request_received,
            trailers: settings.http1.trailers,
        }
    }

    /// How long may be waited: for the head, or (`passed` since the request began) for the rest.
    fn wait(&self, passed: Option<Duration>) -> Option<Duration> {
        let timeouts = &self.rule.timeouts;
        let whole = [timeouts.request, timeouts.backend_request];
        let whole = whole.into_iter().flatten().min();
        match passed {
            None => whole
                .into_iter()
                .chain(self.settings.timeouts.stream_idle)
                .min(),
            Some(passed) => whole.map(|whole| whole.saturating_sub(passed)),
        }
    }

    fn respond(&self, response: Response<Incoming>, lease: Lease, passed: u64) -> Response<Body> {
        let (mut parts, body) = response.into_parts();
        parts.version = Version::HTTP_11;
        if parts.headers.contains_key(header::TRANSFER_ENCODING) {
            // Chunks said where the body ends (RFC 9112 section 6.3); a length would say it again.
            parts.headers.remove(header::CONTENT_LENGTH);
        }
        headers::strip_response(&mut parts.headers);
        self.change(&mut parts.headers);
        let body = Streamed::new(
            body,
            lease,
            self.settings.timeouts.stream_idle,
            self.wait(Some(Duration::from_nanos(passed))),
            self.settings.http1.trailers,
        );
        Response::from_parts(parts, Body::upstream(body))
    }

    fn change(&self, headers: &mut http::HeaderMap) {
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
