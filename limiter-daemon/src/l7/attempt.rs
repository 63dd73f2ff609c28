//! One attempt at an upstream, how long it may take, and what follows from it.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response};
use hyper::body::Incoming;

use super::body::{Buffered, Replay, RequestBody};
use super::io::{Rewind, UpstreamIo};
use super::respond::{self, Refusal};
use super::upstream::{Failed, Hold, Lease};
use crate::engine::retry::Attempt;
use crate::engine::route::Rule;
use crate::engine::upstream::Exchange;
use crate::policy::plan::{ClientSettings, RouteTraffic};

/// What an attempt came to.
pub(super) enum Tried {
    Answered(Response<Incoming>, Lease),
    /// The connection is no HTTP any more.
    Switched(Response<Incoming>, Box<Rewind<UpstreamIo>>, Hold),
    Failed(Failed),
    TimedOut(Bound),
}

/// Which bound on time was hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// The one on an attempt.
    Try,
    /// One on the request, or on the time in which nothing comes.
    Request,
}

impl Tried {
    /// As retries see it; `None`: it never leads to one. `now`: seconds since 1970.
    pub(super) fn attempt(&self, now: u64) -> Option<Attempt> {
        match self {
            Self::Answered(response, _) => Some(Attempt::answered(
                response.status(),
                response.headers(),
                now,
            )),
            Self::Switched(..) | Self::TimedOut(Bound::Request) => None,
            Self::Failed(failed) => failed.attempt(),
            Self::TimedOut(Bound::Try) => Some(Attempt::TimedOut),
        }
    }

    /// What it says of the endpoint; `None`: nothing.
    pub(super) fn exchange(&self) -> Option<Exchange> {
        match self {
            Self::Answered(response, _) | Self::Switched(response, ..) => {
                let grpc = response.headers().get("grpc-status");
                let grpc = grpc.and_then(|status| status.to_str().ok()?.parse().ok());
                let status = grpc.map_or_else(|| response.status(), respond::http_status);
                Some(Exchange::Answered(status.as_u16()))
            }
            Self::Failed(failed) => failed.exchange(),
            Self::TimedOut(_) => Some(Exchange::TimedOut),
        }
    }

    /// Nobody wants the answer. What is there of it is read, so that the connection can be used
    /// again.
    pub(super) fn let_go(self) {
        if let Self::Answered(response, lease) = self {
            super::body::let_go(response.into_body(), lease);
        }
    }
}

impl From<Bound> for Refusal {
    fn from(_: Bound) -> Self {
        Self::Timeout
    }
}

/// What a request is made of again for each attempt.
#[derive(Debug)]
pub(super) struct Template {
    head: Request<()>,
    body: Again,
}

/// A body that can be sent again.
#[derive(Debug)]
enum Again {
    Empty,
    /// It has come whole.
    Whole(Box<Buffered>),
    /// It is kept as it passes.
    Kept(Replay),
}

impl Template {
    /// Of `request`, and the request for the first attempt.
    pub(super) fn new(request: Request<RequestBody>) -> (Self, Request<RequestBody>) {
        let (parts, body) = request.into_parts();
        let (first, body) = match body {
            RequestBody::Client(body) => {
                let kept = Replay::new(body);
                let first = kept.attempt().map_or(RequestBody::Empty, |first| {
                    RequestBody::Replayed(Box::new(first))
                });
                (first, Again::Kept(kept))
            }
            RequestBody::Buffered(body) => {
                let whole = Again::Whole(body.clone());
                (RequestBody::Buffered(body), whole)
            }
            other => (other, Again::Empty),
        };
        let head = Request::from_parts(parts.clone(), ());
        (Self { head, body }, Request::from_parts(parts, first))
    }

    pub(super) fn method(&self) -> &Method {
        self.head.method()
    }

    /// Whether [`Self::again`] makes one.
    pub(super) fn is_whole(&self) -> bool {
        match &self.body {
            Again::Empty | Again::Whole(_) => true,
            Again::Kept(kept) => kept.is_whole(),
        }
    }

    /// The request for another attempt; `None`: too much of its body has passed.
    pub(super) fn again(&self) -> Option<Request<RequestBody>> {
        let body = match &self.body {
            Again::Empty => RequestBody::Empty,
            Again::Whole(body) => RequestBody::Buffered(body.clone()),
            Again::Kept(kept) => RequestBody::Replayed(Box::new(kept.attempt()?)),
        };
        Some(self.head.clone().map(|()| body))
    }
}

/// The bounds on the time of a request.
pub(super) struct Times<'a> {
    pub(super) rule: &'a Rule,
    pub(super) settings: &'a Arc<ClientSettings>,
    /// When the request's head had come, in nanoseconds.
    pub(super) began: u64,
}

impl Times<'_> {
    fn whole(&self) -> Option<Duration> {
        let bounds = [
            self.rule.timeouts.request,
            self.rule.traffic.max_stream_duration,
        ];
        bounds.into_iter().flatten().min()
    }

    fn attempt(&self) -> Option<Duration> {
        let retry = self.rule.traffic.retry.as_ref();
        let bounds = [
            self.rule.timeouts.backend_request,
            retry.and_then(|retry| retry.per_try_timeout),
        ];
        bounds.into_iter().flatten().min()
    }

    /// Between two pieces.
    pub(super) fn idle(&self) -> Option<Duration> {
        stream_idle(&self.rule.traffic, self.settings)
    }

    /// What is left at `now` of the time for the whole request; `None`: no bound.
    pub(super) fn left(&self, now: u64) -> Option<Duration> {
        let passed = Duration::from_nanos(now.saturating_sub(self.began));
        self.whole().map(|whole| whole.saturating_sub(passed))
    }

    /// How long may be waited at `now` for the head of an answer.
    pub(super) fn head(&self, now: u64) -> Option<(Duration, Bound)> {
        let request = self.left(now).into_iter().chain(self.idle()).min();
        let request = request.map(|bound| (bound, Bound::Request));
        let attempt = self.attempt().map(|bound| (bound, Bound::Try));
        request
            .into_iter()
            .chain(attempt)
            .min_by_key(|(bound, _)| *bound)
    }

    /// How long the rest of an answer may take at `now`, if its attempt began at `from`.
    pub(super) fn rest(&self, from: u64, now: u64) -> Option<Duration> {
        let passed = Duration::from_nanos(now.saturating_sub(from));
        let attempt = self.attempt().map(|bound| bound.saturating_sub(passed));
        self.left(now).into_iter().chain(attempt).min()
    }
}

/// Between two pieces of a request or response: the route's, or else the listener's.
pub(super) fn stream_idle(traffic: &RouteTraffic, settings: &ClientSettings) -> Option<Duration> {
    if traffic.stream_idle_unbounded {
        return None;
    }
    traffic.stream_idle.or(settings.timeouts.stream_idle)
}
