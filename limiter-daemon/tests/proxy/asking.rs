//! Rate limit services that are asked about requests, as far as it is the pipeline's business.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use limiter_common::Limit;
use limiter_daemon::engine::ask::{Answer, Failure, Question, RateLimitService, Reply, Services};
use limiter_daemon::engine::state::State;
use limiter_daemon::engine::time::Now;
use limiter_daemon::policy::plan::{
    Action, AskFilter, AskedService, Asking, DescriptorRule, HeaderSource, LimitRule, Plan,
    PolicyLimits, Quota, RateLimits, Redirect, RequestType,
};

use super::client::Client;
use super::plans::with_rule;
use super::stage::{PATIENCE, Stage, address, eventually};
use super::upstream::{Upstream, nobody};

/// Answers by the value of the last entry, and keeps what it was asked.
#[derive(Clone, Debug, Default)]
struct Fake(Arc<Mutex<Vec<String>>>);

impl Services for Fake {
    fn find(&self, _service: &AskedService) -> Arc<dyn RateLimitService> {
        Arc::new(self.clone())
    }
}

impl RateLimitService for Fake {
    fn ask(&self, question: &Question<'_>, _now: Now) -> Answer {
        let (_, value) = question.descriptors[0].entries.last().unwrap();
        let said = format!("{}: {value}", question.domain);
        self.0.lock().unwrap().push(said);
        let over = |over_limit| {
            Ok(Reply {
                over_limit,
                body: Bytes::from_static(b"slow down"),
                ..Reply::default()
            })
        };
        match &**value {
            "silent" => Answer::Pending(Box::pin(std::future::pending())),
            "later" => Answer::Pending(Box::pin(std::future::ready(over(true)))),
            "over" => Answer::Ready(over(true)),
            "error" => Answer::Ready(Err(Failure::Disconnected)),
            _ => Answer::Ready(over(false)),
        }
    }
}

impl Fake {
    fn asked(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

fn filter(change: impl FnOnce(&mut AskFilter)) -> Arc<AskFilter> {
    let mut filter = AskFilter {
        name: "d/p/filter/0".into(),
        stage: 0,
        requests: RequestType::Both,
        service: AskedService::Own,
        timeout: PATIENCE,
        error_status: None,
        limited_status: StatusCode::TOO_MANY_REQUESTS,
        resource_exhausted: false,
        headers: false,
        envoy_header: true,
        retry_after: false,
        response_headers: Vec::new(),
        stat_prefix: String::new(),
    };
    change(&mut filter);
    Arc::new(filter)
}

/// Asks for the value of the header `name`.
fn asking(domain: &str, filter: Arc<AskFilter>, headers: &[(&'static str, bool)]) -> Asking {
    let descriptors = headers.iter().map(|(name, at_the_end)| {
        Arc::new(DescriptorRule {
            stage: 0,
            disable_key: String::new(),
            actions: vec![Action::RequestHeader {
                header: HeaderSource::Named(http::HeaderName::from_static(name)),
                key: "k".into(),
                skip_if_absent: false,
            }],
            limit: None,
            hits: None,
            at_the_end: *at_the_end,
            headers: None,
        })
    });
    Asking {
        filter,
        domain: domain.into(),
        source: "d/g".into(),
        descriptors: descriptors.collect(),
    }
}

/// A bucket of two tokens that does not fill within a test.
fn two() -> Arc<RateLimits> {
    let limit = Limit::new(2, 1, 1 << 50).unwrap();
    let rule = LimitRule::new("d/p/rule/0".into(), Vec::new(), Quota::bucket(limit, 60));
    let limits = || {
        vec![PolicyLimits {
            policy: "d/p".into(),
            rules: vec![rule.clone()],
            default: None,
        }]
    };
    Arc::new(RateLimits {
        local: limits(),
        global: limits(),
    })
}

fn asked(bind: SocketAddr, upstream: SocketAddr, asks: Vec<Asking>) -> Plan {
    with_rule(bind, upstream, |rule| {
        rule.asks = Arc::new(asks);
        rule.limits = two();
    })
}

fn stage(plan: &Plan) -> (Stage, Fake) {
    let fake = Fake::default();
    let state = State::new(1024).with_services(Arc::new(fake.clone()));
    (Stage::with_state(plan, 1, state), fake)
}

fn refunded(stage: &Stage) -> u64 {
    let scopes = stage.state.scopes();
    let counters = scopes.iter().map(|scope| &scope.counters.refunded);
    counters
        .map(|one| one.load(std::sync::atomic::Ordering::Relaxed))
        .sum()
}

#[test]
fn tokens_come_back_if_the_client_goes_away_meanwhile() {
    let upstream = Upstream::echo();
    let bind = address();
    let plan = asked(
        bind,
        upstream.address,
        vec![asking("d", filter(|_| ()), &[("x-say", false)])],
    );
    let (stage, fake) = stage(&plan);
    for given_up in 1..=3 {
        let mut client = Client::connect(bind);
        client.send("GET / HTTP/1.1\r\nhost: h\r\nx-say: silent\r\n\r\n");
        eventually(|| (fake.asked().len() == given_up).then_some(()));
        drop(client);
        // One of the local limit and one of the global one.
        eventually(|| (refunded(&stage) == 2 * given_up as u64).then_some(()));
    }
    let mut client = Client::connect(bind);
    let statuses = [(); 3].map(|()| client.get("/", "x-say: ok\r\n").status);
    assert_eq!(statuses, [200, 200, 429]);
}

#[test]
fn what_a_service_denies_costs_no_limit_anything() {
    let bind = address();
    let upstream = Upstream::echo();
    let plan = asked(
        bind,
        upstream.address,
        vec![asking("d", filter(|_| ()), &[("x-say", false)])],
    );
    let (stage, _fake) = stage(&plan);
    let mut client = Client::connect(bind);
    for say in ["over", "later", "over", "later"] {
        let answer = client.get("/", &format!("x-say: {say}\r\n"));
        assert_eq!((answer.status, answer.text()), (429, "slow down".into()));
        assert_eq!(answer.header("x-envoy-ratelimited"), "true");
    }
    assert_eq!(refunded(&stage), 8);
    assert_eq!(client.get("/", "x-say: ok\r\n").status, 200);
    // What the service lets pass, or is not asked about, stays charged.
    assert_eq!(client.get("/", "").status, 200);
    assert_eq!(
        client.get("/", "x-say: over\r\n").text(),
        "local_rate_limited"
    );
    assert_eq!(refunded(&stage), 8);
    let lines = stage.log.lines(7);
    assert_eq!(lines[0].refused, Some("request_rate_limited"));
    assert_eq!(lines[6].refused, Some("rate_limited"));
}

#[test]
fn filters_ask_in_their_order_until_one_denies() {
    let bind = address();
    let upstream = Upstream::echo();
    let failing = filter(|filter| filter.error_status = Some(StatusCode::BAD_GATEWAY));
    let plan = asked(
        bind,
        upstream.address,
        vec![
            asking("one", filter(|_| ()), &[("x-one", false)]),
            asking("two", failing, &[("x-two", false)]),
            asking("three", filter(|_| ()), &[("x-three", false)]),
        ],
    );
    let (stage, fake) = stage(&plan);
    let mut client = Client::connect(bind);
    let mut ask = |headers: &str, status: u16, wanted: &[&str]| {
        let before = fake.asked().len();
        assert_eq!(client.get("/", headers).status, status, "{headers}");
        assert_eq!(fake.asked()[before..], *wanted, "{headers}");
    };
    ask(
        "x-three: over\r\nx-two: a\r\nx-one: b\r\n",
        429,
        &["one: b", "two: a", "three: over"],
    );
    ask("x-one: over\r\nx-two: a\r\n", 429, &["one: over"]);
    ask(
        "x-one: error\r\nx-two: error\r\nx-three: a\r\n",
        502,
        &["one: error", "two: error"],
    );
    ask(
        "x-one: error\r\nx-three: a\r\n",
        200,
        &["one: error", "three: a"],
    );
    assert_eq!(stage.log.lines(3)[2].refused, Some("rate_limiter_error"));
}

#[test]
fn nobody_waits_longer_than_the_filter_says() {
    let bind = address();
    let upstream = Upstream::echo();
    let short = |deny: bool| {
        filter(|filter| {
            filter.timeout = Duration::from_millis(1);
            filter.error_status = deny.then_some(StatusCode::INTERNAL_SERVER_ERROR);
        })
    };
    let plan = asked(
        bind,
        upstream.address,
        vec![
            asking("open", short(false), &[("x-open", false)]),
            asking("closed", short(true), &[("x-closed", false)]),
        ],
    );
    let (stage, _fake) = stage(&plan);
    let mut client = Client::connect(bind);
    assert_eq!(client.get("/", "x-open: silent\r\n").status, 200);
    let failed = client.get("/", "x-closed: silent\r\n");
    assert_eq!((failed.status, failed.text()), (500, String::new()));
    assert_eq!(refunded(&stage), 2);
}

#[test]
fn what_is_asked_at_the_end_is_asked_when_the_response_is_over() {
    let bind = address();
    let upstream = Upstream::echo();
    let plan = asked(
        bind,
        upstream.address,
        vec![asking(
            "d",
            filter(|_| ()),
            &[("x-say", false), ("x-end", true)],
        )],
    );
    let (_stage, fake) = stage(&plan);
    let mut client = Client::connect(bind);
    // Also of a request that was denied; nobody waits for the answer.
    for (headers, status, wanted) in [
        (
            "x-say: ok\r\nx-end: silent\r\n",
            200,
            vec!["d: ok", "d: silent"],
        ),
        ("x-say: over\r\nx-end: a\r\n", 429, vec!["d: over", "d: a"]),
        ("x-end: over\r\n", 200, vec!["d: over"]),
    ] {
        let before = fake.asked().len();
        assert_eq!(client.get("/", headers).status, status);
        let asked = eventually(|| {
            let asked = fake.asked().split_off(before);
            (asked.len() == wanted.len()).then_some(asked)
        });
        assert_eq!(asked, wanted);
    }
}

#[test]
fn redirects_are_not_asked_about() {
    let bind = address();
    let nobody = nobody();
    let mut plan = asked(
        bind,
        nobody,
        vec![asking("d", filter(|_| ()), &[("x-say", false)])],
    );
    plan.listeners[0].routes[0].rules[0].filters.redirect = Some(Redirect {
        scheme: None,
        hostname: Some("other.example".into()),
        port: None,
        path: None,
        status: StatusCode::FOUND,
    });
    let (_stage, fake) = stage(&plan);
    let answer = Client::connect(bind).get("/", "x-say: over\r\n");
    assert_eq!((answer.status, fake.asked().len()), (302, 0));
}

#[test]
fn grpc_calls_get_a_status_of_grpc() {
    let bind = address();
    let upstream = Upstream::echo();
    let exhausted = filter(|filter| filter.resource_exhausted = true);
    let plan = asked(
        bind,
        upstream.address,
        vec![
            asking("d", filter(|_| ()), &[("x-say", false)]),
            asking("e", exhausted, &[("x-exhausted", false)]),
        ],
    );
    let (_stage, _fake) = stage(&plan);
    let mut client = Client::connect(bind);
    for (header, wanted) in [("x-say", "14"), ("x-exhausted", "8")] {
        let headers = format!("content-type: application/grpc\r\n{header}: over\r\n");
        let answer = client.get("/", &headers);
        assert_eq!(
            (answer.status, answer.header("grpc-status")),
            (200, wanted.into())
        );
        assert_eq!(answer.header("grpc-message"), "slow down");
        assert_eq!(answer.header("x-envoy-ratelimited"), "true");
    }
}
