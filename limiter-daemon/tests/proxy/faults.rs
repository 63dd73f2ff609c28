//! Faults made on purpose: delays, aborts, and what limits make of them.

use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use limiter_common::Limit;
use limiter_daemon::policy::plan::{
    Abort, Fault, Fraction, LimitRule, PolicyLimits, Quota, RateLimits, RefundOn,
};

use super::client::{Client, get};
use super::http2::{H2Client, request};
use super::plans::{with_rule, with_traffic};
use super::stage::{Stage, address, eventually};
use super::upstream::Upstream;

const GRPC: [(&str, &str); 2] = [("content-type", "application/grpc"), ("te", "trailers")];

fn aborting(abort: Abort) -> Option<Fault> {
    Some(Fault {
        delay: None,
        abort: Some((abort, Fraction::ALL)),
    })
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[test]
fn aborts_are_answered_here_in_http_and_in_grpc() {
    let upstream = Upstream::echo();
    let (http, grpc) = (address(), address());
    let mut plan = with_traffic(http, upstream.address, |traffic| {
        traffic.fault = aborting(Abort::Http(StatusCode::IM_A_TEAPOT));
    });
    let in_grpc = with_traffic(grpc, upstream.address, |traffic| {
        traffic.fault = aborting(Abort::Grpc(8));
    });
    plan.listeners.extend(in_grpc.listeners);
    let stage = Stage::new(&plan);

    let mut client = Client::connect(http);
    for _ in 0..2 {
        // Its body is not waited for.
        let answer = client.get("/", "");
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (418, "fault filter abort")
        );
    }
    assert_eq!(get(grpc, "/", "").status, 429);
    for (bind, status, message) in [
        (http, "2", "fault filter abort"),
        (grpc, "8", "fault filter abort"),
    ] {
        let answer = H2Client::connect(bind).send(request("POST", "http://h/s/m", &GRPC, "x"));
        assert_eq!((answer.status, answer.body.len()), (200, 0));
        assert_eq!(answer.header("grpc-status"), status);
        assert_eq!(answer.header("grpc-message"), message);
    }
    assert_eq!(read(&stage.counters.fault_aborts), 5);
    assert_eq!(upstream.connections(), 0);
    assert!(
        stage
            .log
            .lines(5)
            .iter()
            .all(|line| line.refused == Some("fault_abort"))
    );
}

#[test]
fn limits_come_first_and_are_settled_as_with_an_upstream() {
    let (bind, upstream) = (address(), Upstream::echo());
    let limit = Limit::new(2, 1, 1 << 40).unwrap();
    let mut rule = LimitRule::new("d/p/rule/0".into(), Vec::new(), Quota::bucket(limit, 60));
    let fault = |status| {
        Arc::new(limiter_daemon::policy::plan::RouteTraffic {
            fault: aborting(Abort::Http(StatusCode::from_u16(status).unwrap())),
            ..Default::default()
        })
    };
    rule.refund_on = RefundOn {
        server_error: true,
        ..RefundOn::default()
    };
    let plan = with_rule(bind, upstream.address, |route| {
        route.limits = Arc::new(RateLimits {
            local: vec![PolicyLimits {
                policy: "d/p".into(),
                rules: vec![rule],
                default: None,
            }],
            global: Vec::new(),
        });
        route.traffic = fault(503);
    });
    let stage = Stage::new(&plan);
    for _ in 0..5 {
        // Each gets its token back.
        assert_eq!(get(bind, "/", "").status, 503);
    }
    let mut next = plan.clone();
    next.listeners[0].routes[0].rules[0].traffic = fault(404);
    stage.reload(&next);
    let statuses: Vec<_> = (0..4).map(|_| get(bind, "/", "").status).collect();
    assert_eq!(statuses, [404, 404, 429, 429]);
    assert_eq!(read(&stage.counters.fault_aborts), 7);
}

#[test]
fn a_delay_is_waited_for_and_ends_with_its_client() {
    let (bind, upstream) = (address(), Upstream::echo());
    let delayed = |delay| {
        with_traffic(bind, upstream.address, |traffic| {
            traffic.fault = Some(Fault {
                delay: Some((delay, Fraction::ALL)),
                abort: None,
            });
        })
    };
    let mut stage = Stage::new(&delayed(Duration::from_secs(3600)));
    let mut client = Client::connect(bind);
    client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    let counters = Arc::clone(&stage.counters);
    let active = |wanted| {
        eventually(|| (read(&counters.fault_active) == wanted).then_some(()));
    };
    active(1);
    client.stream.get_mut().shutdown(Shutdown::Both).unwrap();
    active(0);
    assert_eq!(upstream.connections(), 0);

    stage.reload(&delayed(Duration::from_millis(1)));
    assert_eq!(get(bind, "/", "").status, 200);
    assert_eq!(read(&counters.fault_delays), 2);
    assert_eq!(
        (read(&counters.fault_active), read(&counters.fault_overflow)),
        (0, 0)
    );

    // A drain does not wait for one that is longer.
    stage.reload(&delayed(Duration::from_secs(3600)));
    let mut client = Client::connect(bind);
    client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    active(1);
    stage.drain(Duration::from_millis(10));
    assert!(client.is_closed());
    active(0);
}
