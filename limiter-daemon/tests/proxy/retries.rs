//! Retries: what is sent again, where, how often, and what never is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use limiter_daemon::engine::upstream::{Resource, Stat};
use limiter_daemon::policy::plan::{Plan, Retry, RetryTrigger};

use super::client::{Client, get};
use super::plans::{change_traffic, with_backend, with_breaker};
use super::stage::{Stage, address, eventually};
use super::upstream::{Seen, Upstream, nobody, ok, read};

fn quick(triggers: &[RetryTrigger]) -> Retry {
    Retry {
        triggers: triggers.iter().copied().collect(),
        any_method: true,
        base_interval: Duration::from_nanos(1),
        max_interval: Duration::from_nanos(1),
        ..Retry::default()
    }
}

fn plan(bind: SocketAddr, upstreams: &[SocketAddr], retry: Retry) -> Plan {
    let mut plan = with_backend(bind, upstreams, |_| {});
    change_traffic(&mut plan, |traffic| traffic.retry = Some(retry));
    plan
}

fn unavailable() -> Vec<u8> {
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy".to_vec()
}

/// Answers the first `failures` requests with `failure`, and then with the request's body.
fn failing(failures: usize, failure: impl Fn() -> Vec<u8> + Send + Sync + 'static) -> Upstream {
    let count = AtomicUsize::new(0);
    Upstream::answering(move |seen: &Seen| {
        if count.fetch_add(1, Ordering::SeqCst) < failures {
            failure()
        } else {
            ok(&seen.body)
        }
    })
}

fn stat(stage: &Stage, stat: Stat) -> u64 {
    stage.state.upstreams().breakers()[0].stats.get(stat)
}

#[test]
fn a_failure_is_not_noticed_and_too_many_are() {
    for (failures, wanted) in [(0, 200), (1, 200), (2, 200), (3, 503)] {
        let upstream = failing(failures, unavailable);
        let bind = address();
        let stage = Stage::new(&plan(
            bind,
            &[upstream.address],
            quick(&[RetryTrigger::GatewayError]),
        ));
        let answer = get(bind, "/", "");
        assert_eq!(answer.status, wanted, "{failures}");
        if wanted == 503 {
            assert_eq!(answer.text(), "busy", "the last failure is passed on whole");
        }
        assert_eq!(upstream.seen().len(), (failures + 1).min(3));
        assert_eq!(stat(&stage, Stat::RqRetry), failures.min(2) as u64);
        assert_eq!(
            stat(&stage, Stat::RqRetrySuccess),
            u64::from(failures > 0 && wanted == 200)
        );
        assert_eq!(
            stat(&stage, Stat::RqRetryLimitExceeded),
            u64::from(failures == 3)
        );
        // The answers that nobody wanted were read: one connection did.
        assert_eq!(upstream.connections(), 1);
        let breaker = &stage.state.upstreams().breakers()[0];
        eventually(|| (breaker.used(Resource::Parallel) == 0).then_some(()));
        assert_eq!(breaker.used(Resource::Retries), 0);
    }
}

#[test]
fn bodies_are_sent_again_whole_and_only_while_they_are_short() {
    let retry = || quick(&[RetryTrigger::GatewayError]);
    for length in [1, 1000, 64 << 10, (64 << 10) + 1, 300_000] {
        for chunked in [false, true] {
            let upstream = failing(1, unavailable);
            let bind = address();
            let stage = Stage::new(&plan(bind, &[upstream.address], retry()));
            let body: Vec<u8> = (0..=250).cycle().take(length).collect();
            let mut client = Client::connect(bind);
            if chunked {
                client.send("PUT / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n");
                for piece in body.chunks(10_000) {
                    client.send(format!("{:x}\r\n", piece.len()));
                    client.send(piece);
                    client.send("\r\n");
                }
                client.send("0\r\n\r\n");
            } else {
                client.send(format!(
                    "PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\n"
                ));
                client.send(&body);
            }
            let answer = client.answer().unwrap();
            if length <= 64 << 10 {
                assert_eq!(answer.status, 200, "{length} {chunked}");
                assert_eq!(answer.body, body);
                assert!(upstream.seen().iter().all(|seen| seen.body == body));
            } else {
                assert_eq!(answer.status, 503, "{length} {chunked}");
                assert_eq!(upstream.seen().len(), 1);
                assert_eq!(stat(&stage, Stat::RetryOrShadowAbandoned), 1);
            }
        }
    }
}

#[test]
fn what_may_have_been_done_is_only_done_again_if_the_policy_says_so() {
    let post = |retry: Retry| {
        let upstream = failing(1, unavailable);
        let bind = address();
        let _stage = Stage::new(&plan(bind, &[upstream.address], retry));
        let mut client = Client::connect(bind);
        client.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi");
        (client.answer().unwrap().status, upstream.seen().len())
    };
    assert_eq!(post(Retry::default()), (503, 1));
    assert_eq!(post(quick(&[RetryTrigger::RetriableStatusCodes])), (200, 2));
}

#[test]
fn another_endpoint_is_tried_next() {
    let good = Upstream::echo();
    let bind = address();
    let dead = [nobody(), nobody(), nobody()];
    let endpoints = [dead[0], good.address, dead[1], dead[2]];
    let retry = Retry {
        max_retries: 3,
        ..quick(&[RetryTrigger::ConnectFailure])
    };
    let _stage = Stage::new(&plan(bind, &endpoints, retry));
    for _ in 0..40 {
        assert_eq!(get(bind, "/", "").status, 200);
    }
    // A body goes with it.
    let mut client = Client::connect(bind);
    client.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello");
    assert_eq!(client.answer().unwrap().status, 200);
    assert_eq!(good.last().body, b"hello");
}

#[test]
fn connections_that_break_garbage_and_silence_are_failures_too() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let upstream = Upstream::new(move |mut client, number| {
        let Some(_) = read(&mut client) else {
            return;
        };
        count.fetch_add(1, Ordering::SeqCst);
        match number {
            0 => {}
            1 => client.send("SSH-2.0-x\r\n\r\n"),
            2 => drop(client.head()),
            _ => client.send(ok(b"at last")),
        }
    });
    let bind = address();
    let retry = Retry {
        max_retries: 3,
        per_try_timeout: Some(Duration::from_millis(200)),
        ..quick(&[RetryTrigger::Reset])
    };
    let stage = Stage::new(&plan(bind, &[upstream.address], retry));
    assert_eq!(get(bind, "/", "").text(), "at last");
    assert_eq!(seen.load(Ordering::SeqCst), 4);
    assert_eq!(stat(&stage, Stat::RqPerTryTimeout), 1);
}

#[test]
fn an_answer_that_has_begun_is_never_replaced() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let upstream = Upstream::new(move |mut client, _| {
        if read(&mut client).is_some() {
            count.fetch_add(1, Ordering::SeqCst);
            client.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
        }
    });
    let bind = address();
    let triggers = [RetryTrigger::Reset, RetryTrigger::ServerError];
    let _stage = Stage::new(&plan(bind, &[upstream.address], quick(&triggers)));
    let mut client = Client::connect(bind);
    client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    // Cut off: its head may have come by then, never all of it.
    let whole = client.head().and_then(|head| client.body(&head));
    assert!(whole.is_none(), "{whole:?}");
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

#[test]
fn retries_have_a_budget_of_their_own_and_take_a_slot_each() {
    let upstream = failing(9, unavailable);
    let bind = address();
    let mut plan = with_breaker(bind, &[upstream.address], |breaker| {
        breaker.max_parallel_retries = 0;
    });
    let retry = quick(&[RetryTrigger::GatewayError]);
    change_traffic(&mut plan, |traffic| traffic.retry = Some(retry));
    let stage = Stage::new(&plan);
    assert_eq!(get(bind, "/", "").status, 503);
    assert_eq!(upstream.seen().len(), 1);
    assert_eq!(stat(&stage, Stat::RqRetryOverflow), 1);
}

#[test]
fn a_retry_does_not_outlast_the_request() {
    let upstream = Upstream::answering(|_| {
        b"HTTP/1.1 503 Busy\r\nretry-after: 5\r\ncontent-length: 0\r\n\r\n".into()
    });
    let bind = address();
    let mut plan = plan(
        bind,
        &[upstream.address],
        quick(&[RetryTrigger::GatewayError]),
    );
    plan.listeners[0].routes[0].rules[0].timeouts.request = Some(Duration::from_secs(3));
    let _stage = Stage::new(&plan);
    let answer = get(bind, "/", "");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("retry-after"), "5");
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn a_kept_connection_that_turns_out_to_be_closed_is_no_failure() {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    // Each connection answers once, and closes when the next request has come.
    let upstream = Upstream::new(move |mut client, _| {
        if read(&mut client).is_some() {
            count.fetch_add(1, Ordering::SeqCst);
            client.send(ok(b"once"));
            drop(read(&mut client));
        }
    });
    let bind = address();
    let stage = Stage::new(&with_backend(bind, &[upstream.address], |_| {}));
    assert_eq!(get(bind, "/", "").status, 200);
    // What counts is how long the connection was idle by the clock.
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(get(bind, "/", "").status, 200);
    assert_eq!(stat(&stage, Stat::RqStale), 1);
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}
