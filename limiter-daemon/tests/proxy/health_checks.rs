//! Active health checks against hosts that answer when and what a test says.
//!
//! A host tells the test of each check and waits for its answer. When the next check comes, the one
//! before has been taken in: nothing here depends on time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use limiter_daemon::engine::upstream::{CheckStats, Exchange, Health, Host, Hosts, Kind, Outliers};
use limiter_daemon::l7::clock::Clock;
use limiter_daemon::l7::health_check::{Checked, HealthChecker, Watched};
use limiter_daemon::policy::plan::{
    Backend, BackendSettings, HealthCheck, OutlierDetection, Probe, UpstreamProtocol, UpstreamTls,
};
use tokio::sync::{mpsc, oneshot};

use super::certificates::{Authority, server};
use super::grpc_health::GrpcHost;
use super::http2::H2Upstream;
use super::plans::{backend, endpoint};
use super::stage::{PATIENCE, eventually};
use super::upstream::{Seen, Upstream, nobody, ok};

/// A check as it came, and where its answer goes.
type Check = (Seen, Sender<Vec<u8>>);
type Command = Box<dyn FnOnce(&mut HealthChecker) + Send>;

/// A health checker on a thread of its own.
struct Checks {
    commands: Option<mpsc::Sender<Command>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Checks {
    fn new() -> Self {
        let (commands, mut received) = mpsc::channel::<Command>(1);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let mut checker = HealthChecker::new(Clock::start());
                loop {
                    tokio::select! {
                        command = received.recv() => match command {
                            Some(command) => command(&mut checker),
                            None => break,
                        },
                        died = checker.died() => panic!("{died}"),
                    }
                }
            });
        });
        Self {
            commands: Some(commands),
            thread: Some(thread),
        }
    }

    /// How many tasks there are then.
    fn apply(&self, hosts: Vec<Checked>, backends: Vec<Watched>) -> usize {
        let (done, tasks) = oneshot::channel();
        let command: Command = Box::new(move |checker| {
            checker.apply(hosts, backends, 7);
            done.send(checker.tasks()).unwrap();
        });
        assert!(self.commands.as_ref().unwrap().try_send(command).is_ok());
        tasks.blocking_recv().unwrap()
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        drop(self.commands.take());
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

/// A host that asks the test what to answer.
struct Scripted {
    upstream: Upstream,
    asked: Receiver<Check>,
}

impl Scripted {
    fn http() -> Self {
        let (asks, asked) = channel();
        let asks = Mutex::new(asks);
        let upstream = Upstream::answering(move |seen| ask(&asks, seen.clone()));
        Self { upstream, asked }
    }

    /// Asks as soon as there is a connection.
    fn tcp() -> Self {
        let (asks, asked) = channel();
        let asks = Mutex::new(asks);
        let upstream = Upstream::new(move |mut client, _| {
            let answer = ask(&asks, Seen::default());
            client.try_send(answer);
        });
        Self { upstream, asked }
    }

    /// Waits for a check, and answers it.
    fn answer(&self, answer: impl Into<Vec<u8>>) -> Seen {
        let (seen, reply) = self.asked.recv_timeout(PATIENCE).unwrap();
        reply.send(answer.into()).unwrap();
        seen
    }

    /// Waits for a check, and leaves it waiting for as long as the sender is there.
    fn next(&self) -> Sender<Vec<u8>> {
        self.asked.recv_timeout(PATIENCE).unwrap().1
    }
}

/// Nothing, when the test is over or does not answer.
fn ask(asks: &Mutex<Sender<Check>>, seen: Seen) -> Vec<u8> {
    let (reply, replied) = channel();
    let sent = asks.lock().unwrap().send((seen, reply));
    sent.ok()
        .and_then(|()| replied.recv().ok())
        .unwrap_or_default()
}

fn http(change: impl FnOnce(&mut HealthCheck)) -> HealthCheck {
    let mut settings = HealthCheck {
        timeout: PATIENCE,
        interval: Duration::from_millis(1),
        initial_jitter: Some(Duration::from_millis(1)),
        unhealthy_threshold: 2,
        healthy_threshold: 2,
        probe: Probe::Http {
            host: None,
            path: "/health?deep=1".into(),
            method: Method::GET,
            expected_statuses: vec![200..=200, 204..=205],
            expected_body: None,
        },
    };
    change(&mut settings);
    settings
}

fn with_probe(probe: Probe) -> HealthCheck {
    http(|settings| settings.probe = probe)
}

struct Looked {
    host: Arc<Host>,
    stats: Arc<CheckStats>,
    backend: Backend,
}

impl Looked {
    fn new(at: std::net::SocketAddr, check: HealthCheck) -> Self {
        let mut backend = backend(vec![endpoint(at)]);
        backend.settings = settings(Some(check));
        Self {
            host: Arc::new(Host::new(at.to_string(), 0)),
            stats: Arc::default(),
            backend,
        }
    }

    fn checked(&self) -> Checked {
        let (host, stats) = (Arc::clone(&self.host), Arc::clone(&self.stats));
        Checked::new(&self.backend, &self.backend.endpoints[0], host, stats).unwrap()
    }

    fn is_healthy(&self) -> bool {
        self.host.is_healthy(0)
    }

    fn counts(&self) -> [u64; 4] {
        let stats = &self.stats;
        let all = [
            &stats.attempts,
            &stats.successes,
            &stats.failures,
            &stats.network_failures,
        ];
        all.map(|counter| counter.load(Ordering::Relaxed))
    }
}

fn settings(check: Option<HealthCheck>) -> Arc<BackendSettings> {
    Arc::new(BackendSettings {
        health_check: check,
        ..BackendSettings::default()
    })
}

/// Until there are so many.
fn reaches(counter: &AtomicU64, wanted: u64) {
    eventually(|| (counter.load(Ordering::Relaxed) >= wanted).then_some(()));
}

#[test]
fn http_checks_take_a_host_out_and_bring_it_back() {
    let script = Scripted::http();
    let looked = Looked::new(script.upstream.address, http(|_| {}));
    let checks = Checks::new();
    assert_eq!(checks.apply(vec![looked.checked()], Vec::new()), 1);
    let mut seen = Vec::new();
    // What it answers, and whether it is healthy before that.
    for (answer, healthy) in [
        // Not checked yet.
        (ok(b""), true),
        (b"nonsense\r\n\r\n".to_vec(), true),
        (b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(), true),
        (b"nonsense\r\n\r\n".to_vec(), true),
        (b"nonsense\r\n\r\n".to_vec(), true),
        (ok(b""), false),
        (b"nonsense\r\n\r\n".to_vec(), false),
        (ok(b""), false),
        (ok(b""), false),
        // What it says itself needs no threshold.
        (
            b"HTTP/1.1 503 Out\r\ncontent-length: 0\r\n\r\n".to_vec(),
            true,
        ),
        (ok(b""), false),
    ] {
        let waiting = script.asked.recv_timeout(PATIENCE).unwrap();
        assert_eq!(looked.is_healthy(), healthy, "before {}", seen.len());
        seen.push(waiting.0);
        waiting.1.send(answer).unwrap();
    }
    let last = script.next();
    assert_eq!(looked.host.health(0), Health::FailedCheck);
    assert_eq!(looked.counts(), [11, 6, 5, 4]);
    for seen in seen {
        assert_eq!(seen.target(), "GET /health?deep=1");
        assert_eq!(seen.header("host"), script.upstream.address.to_string());
        assert_eq!(seen.header("user-agent"), "limiterd-health-check");
    }
    // Each one had a connection of its own.
    assert_eq!(script.upstream.connections(), 12);
    drop(last);
}

#[test]
fn a_body_may_be_expected_within_its_first_kibibyte() {
    let script = Scripted::http();
    let looked = Looked::new(
        script.upstream.address,
        http(|settings| {
            settings.healthy_threshold = 1;
            if let Probe::Http {
                expected_body,
                host,
                method,
                ..
            } = &mut settings.probe
            {
                *expected_body = Some(b"ready".to_vec());
                *host = Some("health.example".into());
                *method = Method::POST;
            }
        }),
    );
    let checks = Checks::new();
    checks.apply(vec![looked.checked()], Vec::new());
    let padded = |length: usize| [vec![b'.'; length], b"ready".to_vec()].concat();
    for (body, healthy) in [
        (b"we are ready.".to_vec(), true),
        (b"we are read".to_vec(), false),
        (padded(1_019), true),
        (padded(1_020), false),
        (padded(1_000), true),
        (padded(1 << 20), false),
        (Vec::new(), false),
    ] {
        let seen = script.answer(ok(&body));
        assert_eq!(seen.target(), "POST /health?deep=1");
        assert_eq!(seen.header("host"), "health.example");
        let (_, reply) = script.asked.recv_timeout(PATIENCE).unwrap();
        assert_eq!(looked.is_healthy(), healthy, "{} bytes", body.len());
        // In pieces, and closed behind them.
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                       2\r\nre\r\n3\r\nady\r\n0\r\n\r\n";
        reply.send(chunked.into()).unwrap();
    }
}

#[test]
fn a_host_that_is_silent_or_not_there_fails() {
    let script = Scripted::http();
    let quick = |settings: &mut HealthCheck| settings.timeout = Duration::from_millis(20);
    let silent = Looked::new(script.upstream.address, http(quick));
    let absent = Looked::new(nobody(), http(quick));
    let checks = Checks::new();
    checks.apply(vec![silent.checked(), absent.checked()], Vec::new());
    let held: Vec<_> = (0..3).map(|_| script.next()).collect();
    reaches(&absent.stats.network_failures, 2);
    for looked in [&silent, &absent] {
        assert_eq!(looked.host.health(0), Health::FailedCheck);
        let [_, successes, failures, network] = looked.counts();
        assert!(successes == 0 && failures == network);
    }
    drop(held);
}

#[test]
fn checks_speak_what_the_backend_speaks() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let certificate = authority.certificate(&["up.example"]);
    let tls = |by: &Authority| UpstreamTls {
        server_name: Some("up.example".into()),
        authorities: vec![by.pem()],
        insecure: false,
    };
    let clear = H2Upstream::new(None);
    let secured = H2Upstream::new(Some(server(&certificate, &["h2"])));
    let checks = Checks::new();
    for (at, tls, well) in [
        (clear.address, None, true),
        (secured.address, Some(tls(&authority)), true),
        (secured.address, Some(tls(&stranger)), false),
        (secured.address, None, false),
    ] {
        for probe in [
            http(|_| {}).probe,
            Probe::Tcp {
                send: Vec::new(),
                receive: Vec::new(),
            },
        ] {
            // A connection alone says nothing about what is spoken over it.
            let well = well || (tls.is_none() && matches!(probe, Probe::Tcp { .. }));
            let mut looked = Looked::new(at, with_probe(probe));
            looked.backend.protocol = UpstreamProtocol::Http2;
            looked.backend.tls.clone_from(&tls);
            checks.apply(vec![looked.checked()], Vec::new());
            reaches(&looked.stats.attempts, 2);
            reaches(
                if well {
                    &looked.stats.successes
                } else {
                    &looked.stats.network_failures
                },
                2,
            );
            let [_, successes, failures, _] = looked.counts();
            assert!(if well { failures } else { successes } == 0, "{tls:?}");
        }
    }
}

#[test]
fn tcp_checks_wait_for_what_is_to_come() {
    let script = Scripted::tcp();
    let looked = Looked::new(
        script.upstream.address,
        http(|settings| {
            settings.unhealthy_threshold = 1;
            settings.healthy_threshold = 1;
            settings.probe = Probe::Tcp {
                send: b"PING".to_vec(),
                receive: vec![b"PO".to_vec(), b"NG".to_vec()],
            };
        }),
    );
    let checks = Checks::new();
    checks.apply(vec![looked.checked()], Vec::new());
    let flood = [vec![b'.'; 64 << 10], b"PONG".to_vec()].concat();
    let mut expected = true;
    for (answer, healthy) in [
        (b"+PONG\r\n".to_vec(), true),
        (b"NGPO".to_vec(), false),
        (b"PO...NG".to_vec(), true),
        (flood, false),
        (b"PONG".to_vec(), true),
        (Vec::new(), false),
    ] {
        let reply = script.next();
        assert_eq!(looked.is_healthy(), expected);
        reply.send(answer).unwrap();
        expected = healthy;
    }
    let _last = script.next();
    assert!(!looked.is_healthy());
    assert_eq!(looked.counts()[..3], [6, 3, 3]);
}

#[test]
fn grpc_checks_ask_for_a_service() {
    let host = GrpcHost::new();
    let looked = Looked::new(
        host.address,
        with_probe(Probe::Grpc {
            service: "shop.Cart".into(),
        }),
    );
    let checks = Checks::new();
    checks.apply(vec![looked.checked()], Vec::new());
    const SERVING: &[u8] = b"\0\0\0\0\x02\x08\x01";
    const NOT_SERVING: &[u8] = b"\0\0\0\0\x02\x08\x02";
    // The message, the status in the trailers, whether it is healthy before.
    for (message, status, healthy) in [
        (SERVING, "0", true),
        (NOT_SERVING, "0", true),
        (SERVING, "0", false),
        (SERVING, "0", false),
        (SERVING, "5", true),
        (b"", "12", false),
        (SERVING, "0", false),
        (SERVING, "0", false),
        (b"\0\0\0", "0", true),
        (SERVING, "0", false),
    ] {
        let (asked, reply) = host.next();
        assert_eq!(looked.is_healthy(), healthy, "before {message:?} {status}");
        assert_eq!(asked.path, "/grpc.health.v1.Health/Check");
        assert_eq!(asked.content_type, "application/grpc");
        assert_eq!(asked.body, b"\0\0\0\0\x0b\x0a\x09shop.Cart"[..]);
        reply.send((message.to_vec(), status)).unwrap();
    }
    let _last = host.next();
    let [_, successes, failures, network] = looked.counts();
    assert_eq!((successes, failures, network), (6, 4, 0));
}

#[test]
fn a_reload_keeps_what_stays() {
    let (script, other) = (Scripted::http(), Scripted::http());
    let mut looked = Looked::new(script.upstream.address, http(|_| {}));
    let beside = Looked::new(other.upstream.address, http(|_| {}));
    let checks = Checks::new();
    let (first, second) = (looked.checked(), beside.checked());
    assert_eq!(
        checks.apply(vec![first.clone(), second.clone()], Vec::new()),
        2
    );
    script.answer(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n");
    let waiting = script.next();
    assert!(!looked.is_healthy());
    // The same again: the check under way goes on, and nobody asks twice.
    assert_eq!(checks.apply(vec![first, second], Vec::new()), 2);
    waiting.send(ok(b"")).unwrap();
    let waiting = script.next();
    assert_eq!((looked.counts()[0], script.upstream.connections()), (2, 3));
    // Other settings: it asks anew, and what is known of the host stays.
    looked.backend.settings = settings(Some(http(|settings| settings.healthy_threshold = 3)));
    assert_eq!(
        checks.apply(vec![looked.checked(), beside.checked()], Vec::new()),
        2
    );
    drop(waiting);
    script.answer(ok(b""));
    let waiting = script.next();
    assert!(!looked.is_healthy());
    waiting.send(ok(b"")).unwrap();
    let waiting = script.next();
    assert!(looked.is_healthy());
    waiting
        .send(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".to_vec())
        .unwrap();
    let _waiting = script.next();
    assert!(!looked.is_healthy());
    // Without checks nobody says that it is unwell.
    looked.backend.settings = settings(None);
    assert_eq!(checks.apply(vec![looked.checked()], Vec::new()), 0);
    assert!(looked.is_healthy());
}

#[test]
fn intervals_of_outlier_detection_end_by_themselves() {
    let detection = OutlierDetection {
        interval: Duration::from_millis(1),
        consecutive_5xx: None,
        failure_percentage: Some(50),
        max_ejection_percent: 100,
        ..OutlierDetection::default()
    };
    let settings = BackendSettings {
        outlier_detection: Some(detection),
        ..BackendSettings::default()
    };
    let all = (0..5).map(|n| Arc::new(Host::new(format!("192.0.2.{n}:80"), 0)));
    let hosts = Arc::new(Hosts::new(&settings, all.collect()));
    let outliers = Arc::new(Outliers::new("d/b".into(), "d/p".into()));
    for request in 0..500 {
        let (host, status) = (request % 5, if request % 5 == 3 { 500 } else { 200 });
        outliers.report(
            Some(&detection),
            &hosts,
            host,
            Exchange::Answered(status),
            0,
        );
    }
    let watched = Watched {
        hosts: Arc::clone(&hosts),
        outliers: Arc::clone(&outliers),
        settings: Arc::new(settings),
    };
    let checks = Checks::new();
    assert_eq!(checks.apply(Vec::new(), vec![watched]), 1);
    eventually(|| (outliers.enforced(Kind::FailurePercentage) == 1).then_some(()));
    assert!(matches!(hosts.all()[3].health(0), Health::Ejected { .. }));
    assert_eq!(hosts.ejected(0), 1);
    assert_eq!(checks.apply(Vec::new(), Vec::new()), 0);
}
