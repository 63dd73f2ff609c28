//! Bodies that pass on what they get, and are paid for once.

use std::collections::VecDeque;
use std::task::Waker;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use limiter_common::Limit;

use super::*;
use crate::engine::decide::{Decision, Limits};
use crate::engine::request::RequestView;
use crate::engine::state::State;
use crate::policy::plan::{LimitRule, PolicyLimits, Quota, RateLimits, ResponseCost};

/// Frames that come one at a poll, with a pause before each.
struct Frames {
    frames: VecDeque<Result<Frame<Bytes>, &'static str>>,
    ready: bool,
    /// The end is known with the last frame.
    sized: bool,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        self.ready = !self.ready;
        if self.ready {
            return Poll::Pending;
        }
        Poll::Ready(self.frames.pop_front())
    }

    fn is_end_stream(&self) -> bool {
        self.sized && self.frames.is_empty()
    }
}

fn data(text: &'static str) -> Result<Frame<Bytes>, &'static str> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

/// A limit of 1,000 whose responses cost their number `n`, and one request admitted by it.
fn admitted() -> (Limits, Settlement) {
    let limit = Limit::new(1_000, 1, 1 << 40).unwrap();
    let mut rule = LimitRule::new("d/p/rule/0".into(), Vec::new(), Quota::bucket(limit, 1));
    rule.request_cost = 0;
    rule.refund_on.upstream_failure = true;
    rule.response_cost = Some(ResponseCost::JsonField {
        path: vec!["n".into()],
        max_bytes: 64,
    });
    let limits = RateLimits {
        local: vec![PolicyLimits {
            policy: "d/p".into(),
            rules: vec![rule],
            default: None,
        }],
        global: Vec::new(),
    };
    let limits = Limits::compile(&limits, "d/r", &State::new(8)).unwrap();
    let headers = HeaderMap::new();
    let Decision::Ready(outcome) = limits.decide(&request(&headers), Clock::start().both()) else {
        panic!("local limits are decided at once");
    };
    (limits, outcome.settlement)
}

fn request(headers: &HeaderMap) -> RequestView<'_> {
    RequestView {
        connection: None,
        method: &Method::GET,
        path: "/",
        query: None,
        headers,
        client: [192, 0, 2, 1].into(),
    }
}

fn used(limits: &Limits) -> u64 {
    let (rule, _) = limits.rules().next().unwrap();
    let counters = &rule.scope.counters;
    counters
        .response_tokens
        .load(std::sync::atomic::Ordering::Relaxed)
}

fn body(
    settlement: Settlement,
    frames: Vec<Result<Frame<Bytes>, &'static str>>,
    sized: bool,
) -> CostBody<Frames> {
    let clock = Clock::start();
    let mut settlement = settlement;
    let name = HeaderName::from_static("content-type");
    let head = HeaderMap::from_iter([(name, HeaderValue::from_static("text/event-stream"))]);
    settlement.answered(StatusCode::OK, &head, clock.both());
    let frames = Frames {
        frames: frames.into(),
        ready: false,
        sized,
    };
    CostBody::new(frames, settlement, clock)
}

/// Polls once for each result wanted: nothing is held back, and a pause is a pause.
fn poll(body: &mut CostBody<Frames>) -> Poll<Option<Result<Bytes, &'static str>>> {
    let polled = Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()));
    polled.map(|frame| frame.map(|frame| frame.map(|f| f.into_data().unwrap_or_default())))
}

#[test]
fn frames_pass_as_they_come_and_the_last_event_is_paid_for() {
    let (limits, settlement) = admitted();
    let pieces = [
        "data: {\"n\":",
        "3}\n\n",
        "data: {\"n\":4",
        "2}\n\n",
        "data: [DONE]\n\n",
    ];
    let frames = pieces.iter().map(|piece| data(piece)).collect();
    let mut body = body(settlement, frames, false);
    for piece in pieces {
        assert!(poll(&mut body).is_pending());
        assert_eq!(poll(&mut body), Poll::Ready(Some(Ok(Bytes::from(piece)))));
        assert_eq!(used(&limits), 0);
    }
    assert!(poll(&mut body).is_pending());
    assert_eq!(poll(&mut body), Poll::Ready(None));
    assert_eq!(used(&limits), 42);
    drop(body);
    assert_eq!(used(&limits), 42);
}

#[test]
fn a_body_whose_end_is_known_is_paid_for_with_its_last_frame() {
    let (limits, settlement) = admitted();
    let mut body = body(settlement, vec![data("data: {\"n\":5}\n\n")], true);
    assert!(poll(&mut body).is_pending());
    assert!(poll(&mut body).is_ready());
    assert_eq!(used(&limits), 5);
}

#[test]
fn a_client_that_goes_pays_for_what_was_seen() {
    let (limits, settlement) = admitted();
    let frames = vec![data("data: {\"n\":5}\n\n"), data("data: {\"n\":9}\n\n")];
    let mut body = body(settlement, frames, false);
    assert!(poll(&mut body).is_pending());
    assert!(poll(&mut body).is_ready());
    drop(body);
    assert_eq!(used(&limits), 5);
}

#[test]
fn a_response_that_breaks_off_is_not_paid_for_where_the_rule_refunds_it() {
    let (limits, settlement) = admitted();
    let frames = vec![data("data: {\"n\":5}\n\n"), Err("reset")];
    let mut body = body(settlement, frames, false);
    for _ in 0..3 {
        assert!(!matches!(poll(&mut body), Poll::Ready(None)));
    }
    assert_eq!(poll(&mut body), Poll::Ready(Some(Err("reset"))));
    drop(body);
    assert_eq!(used(&limits), 0);
}
