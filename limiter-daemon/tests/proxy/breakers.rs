//! Circuit breakers: what may be under way, who waits, and that nothing is lost whatever becomes of a
//! request.

use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use limiter_daemon::engine::upstream::{Breaker, Resource, Stat};
use limiter_daemon::policy::plan::OutlierDetection;

use super::client::{Client, get};
use super::plans::{with_backend, with_breaker};
use super::stage::{Stage, address, eventually};
use super::upstream::{Upstream, ok, read};

/// An upstream that answers a request when it is told to.
struct Gate {
    upstream: Upstream,
    /// The targets of requests that have come.
    came: Receiver<String>,
    open: Sender<()>,
}

impl Gate {
    fn new() -> Self {
        let (arrived, came) = mpsc::channel();
        let (open, opened) = mpsc::channel();
        let opened = Mutex::new(opened);
        let upstream = Upstream::new(move |mut client, _| {
            while let Some(seen) = read(&mut client) {
                let _nobody_asks = arrived.send(seen.target().to_owned());
                if opened.lock().unwrap().recv().is_err() {
                    return;
                }
                client.try_send(ok(b"done"));
            }
        });
        Self {
            upstream,
            came,
            open,
        }
    }

    fn come(&self) -> String {
        self.came.recv().unwrap()
    }

    fn open(&self) {
        self.open.send(()).unwrap();
    }
}

fn breaker(stage: &Stage) -> Arc<Breaker> {
    stage.state.upstreams().breakers().remove(0)
}

/// Sends a request and leaves it.
fn ask(bind: SocketAddr, path: &str) -> Client {
    let mut client = Client::connect(bind);
    client.send(format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n"));
    client
}

fn wait_for(breaker: &Breaker, resource: Resource, wanted: u32) {
    eventually(|| (breaker.used(resource) == wanted).then_some(()));
}

#[test]
fn of_a_hundred_at_once_ten_reach_the_backend_and_ninety_are_told_at_once() {
    let gate = Gate::new();
    let bind = address();
    let plan = with_breaker(bind, &[gate.upstream.address], |breaker| {
        breaker.max_parallel_requests = 10;
    });
    let stage = Stage::with_workers(&plan, 4);
    let mut clients: Vec<_> = (0..100).map(|_| ask(bind, "/")).collect();
    for _ in 0..10 {
        gate.come();
    }
    let breaker = breaker(&stage);
    eventually(|| (breaker.stats.get(Stat::RqPendingOverflow) == 90).then_some(()));
    assert!(breaker.is_open(Resource::Parallel));
    for _ in 0..10 {
        gate.open();
    }
    let answers: Vec<_> = clients.iter_mut().filter_map(Client::answer).collect();
    let (good, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|a| a.status == 200);
    assert_eq!((good.len(), refused.len()), (10, 90));
    for answer in refused {
        assert_eq!(answer.status, 503);
        assert_eq!(answer.header("x-envoy-overloaded"), "true");
    }
    assert!(gate.came.try_recv().is_err(), "an eleventh came");
    wait_for(&breaker, Resource::Parallel, 0);
    assert!(!breaker.is_open(Resource::Parallel));
    // The refused are on connections that go on.
    assert!(clients.iter_mut().all(|client| {
        client.send("GET /more HTTP/1.1\r\nhost: h\r\n\r\n");
        gate.come();
        gate.open();
        client.answer().is_some_and(|answer| answer.status == 200)
    }));
}

#[test]
fn who_finds_no_connection_waits_in_turn_and_not_too_many_wait() {
    for workers in [1, 3] {
        let gate = Gate::new();
        let bind = address();
        let plan = with_breaker(bind, &[gate.upstream.address], |breaker| {
            breaker.max_connections = 1;
            breaker.max_pending_requests = 4;
        });
        let stage = Stage::with_workers(&plan, workers);
        let mut first = ask(bind, "/first");
        assert_eq!(gate.come(), "GET /first");
        let breaker = breaker(&stage);
        let mut waiting = Vec::new();
        for number in 1..=4 {
            waiting.push(ask(bind, &format!("/{number}")));
            wait_for(&breaker, Resource::Pending, number);
        }
        let refused = get(bind, "/5", "");
        assert_eq!(refused.status, 503);
        assert_eq!(refused.header("x-envoy-overloaded"), "true");
        assert_eq!(
            breaker.used(Resource::Parallel),
            1,
            "who waits is not under way"
        );
        gate.open();
        assert_eq!(first.answer().unwrap().status, 200);
        for (number, client) in waiting.iter_mut().enumerate() {
            assert_eq!(gate.come(), format!("GET /{}", number + 1));
            gate.open();
            assert_eq!(client.answer().unwrap().status, 200);
        }
        // Each was done with it and handed it on.
        assert_eq!(gate.upstream.connections(), 1);
        assert_eq!(breaker.used(Resource::Pending), 0);
        assert_eq!(breaker.used(Resource::Connections), 1);
    }
}

#[test]
fn who_waits_in_vain_is_told() {
    let gate = Gate::new();
    let bind = address();
    let plan = with_backend(bind, &[gate.upstream.address], |settings| {
        settings.circuit_breaker.max_connections = 1;
        settings.connect_timeout = Duration::from_millis(50);
    });
    let stage = Stage::new(&plan);
    let mut first = ask(bind, "/");
    gate.come();
    let refused = get(bind, "/", "");
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("x-envoy-overloaded"), "true");
    assert_eq!(stage.log.lines(1)[0].refused, Some("pending_timeout"));
    gate.open();
    assert_eq!(first.answer().unwrap().status, 200);
    let breaker = breaker(&stage);
    assert_eq!(breaker.stats.get(Stat::RqPendingFailureEject), 1);
    assert_eq!(breaker.used(Resource::Pending), 0);
}

#[test]
fn an_idle_connection_of_one_worker_is_not_in_the_way_of_another() {
    let upstream = Upstream::echo();
    let bind = address();
    let plan = with_breaker(bind, &[upstream.address], |breaker| {
        breaker.max_connections = 1;
    });
    let stage = Stage::with_workers(&plan, 4);
    // They are spread over the workers.
    let mut clients: Vec<_> = (0..16).map(|_| Client::connect(bind)).collect();
    for _ in 0..4 {
        for client in &mut clients {
            assert_eq!(client.get("/", "").status, 200);
        }
    }
    assert_eq!(breaker(&stage).used(Resource::Connections), 1);
}

#[test]
fn a_client_that_goes_away_frees_its_place_at_once() {
    let gate = Gate::new();
    let bind = address();
    let plan = with_breaker(bind, &[gate.upstream.address], |breaker| {
        breaker.max_connections = 1;
        breaker.max_parallel_requests = 1;
        breaker.max_pending_requests = 1;
    });
    let stage = Stage::new(&plan);
    let breaker = breaker(&stage);
    let leave = |mut client: Client| client.stream.get_mut().shutdown(Shutdown::Both).unwrap();
    // Under way.
    let first = ask(bind, "/");
    gate.come();
    assert_eq!(get(bind, "/", "").status, 503);
    leave(first);
    wait_for(&breaker, Resource::Parallel, 0);
    wait_for(&breaker, Resource::Connections, 0);
    let mut second = ask(bind, "/second");
    assert_eq!(gate.come(), "GET /second");
    // One answer for the thread of the one that left, which finds its client gone.
    gate.open();
    gate.open();
    assert_eq!(second.answer().unwrap().status, 200);
}

#[test]
fn who_leaves_the_queue_leaves_room_in_it() {
    let gate = Gate::new();
    let bind = address();
    let plan = with_breaker(bind, &[gate.upstream.address], |breaker| {
        breaker.max_connections = 1;
        breaker.max_pending_requests = 1;
    });
    let stage = Stage::new(&plan);
    let breaker = breaker(&stage);
    let mut first = ask(bind, "/");
    gate.come();
    for _ in 0..3 {
        let mut waits = ask(bind, "/waits");
        wait_for(&breaker, Resource::Pending, 1);
        waits.stream.get_mut().shutdown(Shutdown::Both).unwrap();
        wait_for(&breaker, Resource::Pending, 0);
    }
    let mut last = ask(bind, "/last");
    wait_for(&breaker, Resource::Pending, 1);
    gate.open();
    assert_eq!(first.answer().unwrap().status, 200);
    assert_eq!(gate.come(), "GET /last");
    gate.open();
    assert_eq!(last.answer().unwrap().status, 200);
}

#[test]
fn a_connection_has_so_many_requests_and_an_endpoint_so_many_connections() {
    let upstream = Upstream::echo();
    let bind = address();
    let plan = with_breaker(bind, &[upstream.address], |breaker| {
        breaker.max_requests_per_connection = Some(2);
    });
    let stage = Stage::new(&plan);
    for _ in 0..6 {
        assert_eq!(get(bind, "/", "").status, 200);
    }
    assert_eq!(upstream.connections(), 3);
    assert_eq!(breaker(&stage).used(Resource::Connections), 0);

    let gates = [Gate::new(), Gate::new()];
    let bind = address();
    let addresses = [gates[0].upstream.address, gates[1].upstream.address];
    let plan = with_breaker(bind, &addresses, |breaker| {
        breaker.max_connections_per_endpoint = 1;
        breaker.max_pending_requests = 1;
    });
    let stage = Stage::new(&plan);
    let mut clients = [ask(bind, "/"), ask(bind, "/")];
    for gate in &gates {
        gate.come();
    }
    let breaker = breaker(&stage);
    let mut third = ask(bind, "/");
    wait_for(&breaker, Resource::Pending, 1);
    assert_eq!(get(bind, "/", "").status, 503);
    gates[1].open();
    gates[1].come();
    gates[0].open();
    gates[1].open();
    for client in &mut clients {
        assert_eq!(client.answer().unwrap().status, 200);
    }
    assert_eq!(third.answer().unwrap().status, 200);
}

#[test]
fn a_reload_keeps_what_is_under_way_and_takes_new_limits_at_once() {
    let gate = Gate::new();
    let bind = address();
    let plan = |most| {
        with_breaker(bind, &[gate.upstream.address], |breaker| {
            breaker.max_parallel_requests = most;
        })
    };
    let stage = Stage::new(&plan(1));
    let mut first = ask(bind, "/");
    gate.come();
    stage.reload(&plan(1));
    assert_eq!(get(bind, "/", "").status, 503);
    stage.reload(&plan(2));
    let mut second = ask(bind, "/");
    gate.come();
    assert_eq!(get(bind, "/", "").status, 503);
    gate.open();
    gate.open();
    assert_eq!(first.answer().unwrap().status, 200);
    assert_eq!(second.answer().unwrap().status, 200);
    assert_eq!(breaker(&stage).used(Resource::Parallel), 0);
}

#[test]
fn an_endpoint_that_fails_is_ejected_and_a_reload_remembers() {
    let counts = [Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0))];
    let upstream = |count: &Arc<AtomicUsize>, status: &'static str| {
        let count = Arc::clone(count);
        Upstream::answering(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").into()
        })
    };
    let good = upstream(&counts[0], "200 OK");
    let bad = upstream(&counts[1], "500 Broken");
    let bind = address();
    let plan = with_backend(bind, &[good.address, bad.address], |settings| {
        settings.panic_threshold = 0;
        settings.outlier_detection = Some(OutlierDetection {
            consecutive_5xx: Some(3),
            base_ejection_time: Duration::from_secs(3600),
            max_ejection_percent: 50,
            ..OutlierDetection::default()
        });
    });
    let stage = Stage::with_workers(&plan, 2);
    for _ in 0..100 {
        get(bind, "/", "");
    }
    assert_eq!(counts[1].load(Ordering::SeqCst), 3);
    stage.reload(&plan);
    for _ in 0..50 {
        assert_eq!(get(bind, "/", "").status, 200);
    }
    assert_eq!(counts[1].load(Ordering::SeqCst), 3);
    assert_eq!(counts[0].load(Ordering::SeqCst), 147);
}
