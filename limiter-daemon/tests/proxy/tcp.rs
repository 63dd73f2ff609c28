//! Connections that are passed on: TCP gateways.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use limiter_daemon::engine::tcp::Lost;
use limiter_daemon::engine::upstream::{Resource, Stat};
use limiter_daemon::l7::metrics::Closed;
use limiter_daemon::l7::record::TcpEnd;
use limiter_daemon::policy::plan::{
    Backend, BackendSettings, ClientSettings, Endpoint, Hostname, Plan, ProxyProtocol, TcpHost,
    TcpProxy, TcpTarget, UpstreamTls, WeightedBackend,
};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::certificates::{Authority, is_for, server, tls};
use super::client::{Client, tcp};
use super::plans::{backend, endpoint};
use super::stage::{PATIENCE, Passed, Stage, address, eventually};

/// An upstream that sends its name, then what it is sent, and ends when the other side has.
struct Echo {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Echo {
    fn new(name: &'static str) -> Self {
        Self::with(name, None)
    }

    /// With TLS.
    fn with(name: &'static str, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&connections);
        // It ends with the process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                let tls = tls.clone();
                thread::spawn(move || serve(stream.unwrap(), name, tls));
            }
        });
        Self {
            address,
            connections,
        }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Tests may cut connections off.
fn serve(stream: TcpStream, name: &str, tls: Option<Arc<ServerConfig>>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let Some(tls) = tls else {
        let mut writer = stream.try_clone()?;
        writer.write_all(name.as_bytes())?;
        std::io::copy(&mut &stream, &mut writer)?;
        return stream.shutdown(Shutdown::Write);
    };
    let connection = ServerConnection::new(tls).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    stream.write_all(name.as_bytes())?;
    let mut piece = [0; 1024];
    loop {
        let got = stream.read(&mut piece)?;
        if got == 0 {
            return Ok(());
        }
        stream.write_all(&piece[..got])?;
    }
}

fn to(backend: usize, weight: u32) -> WeightedBackend {
    WeightedBackend {
        backend: Some(backend),
        weight,
        filters: None,
    }
}

fn host(names: &[&str], backend: usize) -> TcpHost {
    let pattern = |name: &&str| match name.strip_prefix('*') {
        Some("") => Hostname::Any,
        Some(suffix) => Hostname::Wildcard(suffix.into()),
        None => Hostname::Exact((*name).into()),
    };
    TcpHost {
        name: names.join(","),
        names: names.iter().map(pattern).collect(),
        to: TcpTarget::Weighted(vec![to(backend, 1)]),
        ..TcpHost::default()
    }
}

/// A plan with a backend for each of `upstreams`.
fn plan(bind: SocketAddr, hosts: Vec<TcpHost>, upstreams: &[SocketAddr]) -> Plan {
    let backends = upstreams
        .iter()
        .enumerate()
        .map(|(index, upstream)| Backend {
            name: format!("d/backend-{index}"),
            ..backend(vec![endpoint(*upstream)])
        });
    Plan {
        tcp: vec![TcpProxy {
            name: "gateway".into(),
            binds: vec![bind],
            hosts,
            max_connect_attempts: 1,
            idle: Some(Duration::from_secs(3600)),
            ..TcpProxy::default()
        }],
        backends: backends.collect(),
        ..Plan::default()
    }
}

fn change_settings(plan: &mut Plan, change: impl FnOnce(&mut ClientSettings)) {
    let mut settings = (*plan.tcp[0].client).clone();
    change(&mut settings);
    plan.tcp[0].client = Arc::new(settings);
}

/// Everything that comes until the other side ends.
fn rest(mut stream: impl std::io::Read) -> String {
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    rest
}

/// The record of a connection to the host for all, from here and in clear text.
fn line(upstream: &Echo, received: u64, sent: u64) -> Passed {
    Passed {
        host: Some("*".into()),
        name: String::new(),
        client: "127.0.0.1".into(),
        upstream: Some(upstream.address.to_string()),
        received,
        sent,
        end: TcpEnd::Complete,
    }
}

/// What a client hears that says `text` and nothing more.
fn talk(bind: SocketAddr, text: &str) -> String {
    let mut stream = tcp(bind);
    stream.write_all(text.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    rest(stream)
}

/// The next bytes.
fn next(stream: &mut impl std::io::Read, length: usize) -> String {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn read(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[test]
fn bytes_go_both_ways_and_each_side_ends_for_itself() {
    let (bind, upstream) = (address(), Echo::new("a:"));
    let stage = Stage::new(&plan(bind, vec![host(&["*"], 0)], &[upstream.address]));
    // The upstream speaks first.
    let mut stream = tcp(bind);
    assert_eq!(next(&mut stream, 2), "a:");
    stream.write_all(b"one").unwrap();
    assert_eq!(next(&mut stream, 3), "one");
    // The client has said all, and hears the rest.
    stream.write_all(b"two").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(stream), "two");
    let large = "x".repeat(3 << 20);
    let reader = tcp(bind);
    let mut writer = reader.try_clone().unwrap();
    let heard = thread::scope(|scope| {
        let heard = scope.spawn(|| rest(&reader));
        writer.write_all(large.as_bytes()).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
        heard.join().unwrap()
    });
    assert_eq!(heard.len(), large.len() + 2);
    let stats = stage.state.tcp_stats("gateway");
    let passed = 6 + large.len() as u64;
    let logged = stage.log.passed_on(2);
    assert_eq!(logged[0], line(&upstream, 6, 8));
    let long = large.len() as u64;
    assert_eq!(logged[1], line(&upstream, long, long + 2));
    eventually(|| (read(&stage.counters.active) == 0).then_some(()));
    assert_eq!(read(&stats.connections), 2);
    assert_eq!(read(&stats.received), passed);
    assert_eq!(read(&stats.sent), passed + 4);
    assert_eq!(read(&stats.no_route), 0);
    let breaker = stage.state.upstreams().breaker("d/backend-0", "");
    assert_eq!(breaker.stats.get(Stat::CxTotal), 2);
    assert_eq!(breaker.used(Resource::Connections), 0);
}

#[test]
fn an_upstream_may_end_first() {
    let (bind, listener) = (address(), TcpListener::bind("127.0.0.1:0").unwrap());
    let upstream = listener.local_addr().unwrap();
    let _stage = Stage::new(&plan(bind, vec![host(&["*"], 0)], &[upstream]));
    let mut client = tcp(bind);
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.write_all(b"bye").unwrap();
    accepted.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&client), "bye");
    client.write_all(b"last words").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&accepted), "last words");
}

#[test]
fn weights_are_shares() {
    let (bind, many, few, none) = (address(), Echo::new("a"), Echo::new("b"), Echo::new("c"));
    let mut weighted = host(&["*"], 0);
    weighted.to = TcpTarget::Weighted(vec![to(0, 3), to(1, 1), to(2, 0)]);
    let upstreams = [many.address, few.address, none.address];
    let _stage = Stage::new(&plan(bind, vec![weighted], &upstreams));
    let heard: Vec<_> = (0..20).map(|_| talk(bind, "")).collect();
    assert_eq!(heard.iter().filter(|name| *name == "a").count(), 15);
    assert_eq!(heard.iter().filter(|name| *name == "b").count(), 5);
    assert_eq!([many, few, none].map(|one| one.connections()), [15, 5, 0]);
}

#[test]
fn tls_is_passed_on_by_name_and_ends_at_the_upstream() {
    let (bind, authority) = (address(), Authority::new());
    let echo = |name: &'static str, host: &str| {
        Echo::with(name, Some(server(&authority.certificate(&[host]), &[])))
    };
    let (exact, wildcard) = (echo("1", "x.a.test"), echo("2", "*.a.test"));
    let clear = Echo::new("3");
    let hosts = vec![host(&["x.a.test"], 0), host(&["*.a.test"], 1)];
    let upstreams = [exact.address, wildcard.address, clear.address];
    let mut plan = plan(bind, hosts, &upstreams);
    let stage = Stage::new(&plan);
    for (name, shown, wanted) in [
        ("x.a.test", "x.a.test", "1"),
        ("X.A.Test", "x.a.test", "1"),
        ("y.a.test", "y.a.test", "2"),
    ] {
        let mut client = authority.connect(bind, name, None).unwrap();
        assert!(is_for(&client, shown), "{name}");
        assert_eq!(next(&mut client.stream, 1), wanted);
        client.send("and so on");
        assert_eq!(next(&mut client.stream, 9), "and so on");
    }
    // No host is for it, and there is none for all else.
    assert!(authority.connect(bind, "b.test", None).is_err());
    assert!(Client::on(tcp(bind)).try_clear());
    let stats = stage.state.tcp_stats("gateway");
    eventually(|| (read(&stats.no_route) == 2).then_some(()));
    assert_eq!(stage.counters.closed(Closed::Handshake), 0);
    let logged = stage.log.passed_on(5);
    let of = |name: &str| logged.iter().find(|line| line.name == name).unwrap();
    assert_eq!(of("y.a.test").host.as_deref(), Some("*.a.test"));
    let wanted = wildcard.address.to_string();
    assert_eq!(of("y.a.test").upstream.as_ref(), Some(&wanted));
    assert_eq!(
        (of("b.test").end, &of("b.test").host),
        (TcpEnd::NoRoute, &None)
    );
    // What is not for them goes to a host without names: other names, and what is no TLS.
    plan.tcp[0].hosts.push(host(&["*"], 2));
    stage.reload(&plan);
    assert_eq!(talk(bind, "plain"), "3plain");
    assert!(authority.connect(bind, "b.test", None).is_err());
    eventually(|| (clear.connections() == 2).then_some(()));
    let mut client = authority.connect(bind, "x.a.test", None).unwrap();
    assert_eq!(next(&mut client.stream, 1), "1");
    assert_eq!(read(&stats.no_route), 2);
}

impl Client {
    /// Whether the other side closes after a line in clear text, without a word.
    fn try_clear(&mut self) -> bool {
        self.try_send("HELO there\r\n");
        self.is_closed()
    }
}

#[test]
fn names_of_backends_may_be_asked_for() {
    let (bind, authority) = (address(), Authority::new());
    let config = server(&authority.certificate(&["db_default"]), &[]);
    let upstream = Echo::with("db", Some(config));
    let mut by_name = host(&["*"], 0);
    by_name.to = TcpTarget::ByName([("db_default".to_owned(), 0)].into());
    let stage = Stage::new(&plan(bind, vec![by_name], &[upstream.address]));
    let mut client = authority.connect(bind, "db_default", None).unwrap();
    assert_eq!(next(&mut client.stream, 2), "db");
    assert!(authority.connect(bind, "other_default", None).is_err());
    assert!(Client::on(tcp(bind)).try_clear());
    let stats = stage.state.tcp_stats("gateway");
    eventually(|| (read(&stats.no_route) == 2).then_some(()));
}

#[test]
fn tls_ends_where_there_is_a_certificate() {
    let (bind, authority, upstream) = (address(), Authority::new(), Echo::new("up:"));
    let other = Echo::new("other:");
    let secured = |name: &str, backend, alpn: &[&str]| {
        let mut tls = tls(vec![authority.certificate(&[name])]);
        tls.alpn = alpn.iter().map(ToString::to_string).collect();
        TcpHost {
            tls: Some(Arc::new(tls)),
            ..host(&[name], backend)
        }
    };
    let hosts = vec![
        secured("a.test", 0, &["h2", "http/1.1"]),
        secured("b.test", 1, &[]),
    ];
    let stage = Stage::new(&plan(bind, hosts, &[upstream.address, other.address]));
    for (name, wanted, agreed) in [
        ("a.test", "up:", Some(b"http/1.1".as_slice())),
        ("b.test", "other:", None),
    ] {
        let mut client = authority.connect(bind, name, None).unwrap();
        assert!(is_for(&client, name));
        assert_eq!(client.stream.get_ref().conn.alpn_protocol(), agreed);
        client.send("hello");
        assert_eq!(
            next(&mut client.stream, wanted.len() + 5),
            format!("{wanted}hello")
        );
        // The client ends its half, and hears the end.
        let stream = client.stream.get_mut();
        stream.conn.send_close_notify();
        stream.flush().unwrap();
        stream.sock.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(stream), "");
    }
    // A client with a protocol of its own is not refused.
    let config = authority.client(&["postgresql"], None);
    let name = rustls::pki_types::ServerName::try_from("a.test").unwrap();
    let mut connection = rustls::ClientConnection::new(config, name).unwrap();
    connection.complete_io(&mut tcp(bind)).unwrap();
    assert_eq!(connection.alpn_protocol(), None);
    assert!(authority.connect(bind, "c.test", None).is_err());
    let stats = stage.state.tcp_stats("gateway");
    eventually(|| (read(&stats.no_route) == 1).then_some(()));
}

#[test]
fn the_only_host_may_end_tls_for_whoever_comes() {
    let (bind, authority, upstream) = (address(), Authority::new(), Echo::new("up:"));
    let mut secured = host(&["*"], 0);
    secured.tls = Some(Arc::new(tls(vec![authority.certificate(&["a.test"])])));
    let stage = Stage::new(&plan(bind, vec![secured], &[upstream.address]));
    let mut client = authority.connect(bind, "a.test", None).unwrap();
    assert_eq!(next(&mut client.stream, 3), "up:");
    let mut clear = tcp(bind);
    clear.write_all(b"HELO there\r\n").unwrap();
    let mut answer = Vec::new();
    let _reset = clear.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"up"));
    eventually(|| (stage.counters.closed(Closed::Handshake) == 1).then_some(()));
    assert_eq!(upstream.connections(), 1);
}

/// An upstream's TLS is ours to agree on; what is spoken in it is not.
#[test]
fn tls_begins_where_the_backend_wants_it() {
    let (bind, authority) = (address(), Authority::new());
    let certificate = authority.certificate(&["up.test"]);
    // It refuses clients that offer any other protocol, and takes those that offer none.
    let upstream = Echo::with("up", Some(server(&certificate, &["postgresql"])));
    let mut plan = plan(bind, vec![host(&["*"], 0)], &[upstream.address]);
    let tls = UpstreamTls {
        server_name: Some("up.test".into()),
        authorities: vec![authority.pem()],
        insecure: false,
    };
    plan.backends[0].tls = Some(tls.clone());
    let stage = Stage::new(&plan);
    let mut client = tcp(bind);
    client.write_all(b"hello").unwrap();
    assert_eq!(next(&mut client, 7), "uphello");
    plan.backends[0].tls = Some(UpstreamTls {
        server_name: Some("other.test".into()),
        ..tls
    });
    stage.reload(&plan);
    assert!(Client::on(tcp(bind)).is_closed());
    let stats = stage.state.tcp_stats("gateway");
    assert_eq!(stats.lost(Lost::Unreachable), 1);
}

/// How hellos may go wrong: each is closed, counted, and no endpoint hears of it.
#[test]
fn bad_hellos_are_closed() {
    let (bind, upstream) = (address(), Echo::new("up"));
    let hosts = vec![host(&["a.test"], 0), host(&["*"], 0)];
    let mut plan = plan(bind, hosts, &[upstream.address]);
    let stage = Stage::new(&plan);
    let closed = |count: u64| {
        eventually(|| (stage.counters.closed(Closed::Handshake) == count).then_some(()));
    };
    // A record of a handshake with nonsense in it.
    let mut garbage = Client::on(tcp(bind));
    garbage.try_send([22, 3, 1, 0, 5, 9, 9, 9, 9, 9]);
    assert!(garbage.is_closed());
    closed(1);
    // Fragments of a hello that is said to have 61,440 bytes.
    let mut endless = Client::on(tcp(bind));
    let fragment = [&[22, 3, 1, 0x10, 0][..], &[1, 0, 0xf0, 0], &[0; 0x0ffc]].concat();
    endless.try_send(&fragment);
    for _ in 0..16 {
        endless.try_send([&[22, 3, 1, 0x10, 0][..], &[0; 0x1000]].concat());
    }
    assert!(endless.is_closed());
    closed(2);
    assert_eq!(upstream.connections(), 0);
    assert_eq!(talk(bind, "well"), "upwell");
    // A hello that does not come, and one that does not go on.
    change_settings(&mut plan, |settings| {
        settings.timeouts.handshake = Duration::from_millis(50);
    });
    stage.reload(&plan);
    assert!(Client::on(tcp(bind)).is_closed());
    closed(3);
    let mut slow = Client::on(tcp(bind));
    slow.try_send([22, 3, 1, 0x10, 0, 1]);
    assert!(slow.is_closed());
    closed(4);
    assert_eq!(upstream.connections(), 1);
}

/// An address at which nobody listens.
fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

#[test]
fn an_endpoint_that_is_down_is_left_for_another() {
    let (bind, upstream) = (address(), Echo::new("up"));
    let mut plan = plan(bind, vec![host(&["*"], 0)], &[upstream.address]);
    let both = vec![endpoint(nobody()), endpoint(upstream.address)];
    plan.backends[0].endpoints.clone_from(&both);
    plan.tcp[0].max_connect_attempts = 2;
    let stage = Stage::new(&plan);
    for _ in 0..10 {
        assert_eq!(talk(bind, "!"), "up!");
    }
    let breaker = stage.state.upstreams().breaker("d/backend-0", "");
    assert!(breaker.stats.get(Stat::CxConnectFail) > 0);
    assert_eq!(breaker.stats.get(Stat::CxConnectAttemptsExceeded), 0);
    // None that could be reached, and none at all.
    let stats = stage.state.tcp_stats("gateway");
    plan.backends[0].endpoints = both[..1].to_vec();
    stage.reload(&plan);
    assert!(Client::on(tcp(bind)).is_closed());
    assert_eq!(stats.lost(Lost::Unreachable), 1);
    assert_eq!(breaker.stats.get(Stat::CxConnectAttemptsExceeded), 1);
    plan.backends[0].endpoints = Vec::<Endpoint>::new();
    stage.reload(&plan);
    assert!(Client::on(tcp(bind)).is_closed());
    assert_eq!(stats.lost(Lost::NoEndpoint), 1);
    let logged = stage.log.passed_on(12);
    assert_eq!(logged[10].end, TcpEnd::Lost(Lost::Unreachable));
    assert_eq!(logged[11].end, TcpEnd::Lost(Lost::NoEndpoint));
    plan.tcp[0].hosts[0].to = TcpTarget::Weighted(vec![WeightedBackend {
        backend: None,
        ..to(0, 1)
    }]);
    stage.reload(&plan);
    assert!(Client::on(tcp(bind)).is_closed());
    assert_eq!(read(&stats.no_route), 1);
}

#[test]
fn the_breaker_holds_over_all_workers() {
    let (bind, upstream) = (address(), Echo::new("up"));
    let mut plan = plan(bind, vec![host(&["*"], 0)], &[upstream.address]);
    let mut settings = BackendSettings::default();
    settings.circuit_breaker.max_connections = 2;
    plan.backends[0].settings = Arc::new(settings);
    let stage = Stage::with_workers(&plan, 2);
    let mut open: Vec<_> = (0..2).map(|_| tcp(bind)).collect();
    for stream in &mut open {
        assert_eq!(next(stream, 2), "up");
    }
    // Nobody waits: it is closed at once.
    for _ in 0..3 {
        assert!(Client::on(tcp(bind)).is_closed());
    }
    let stats = stage.state.tcp_stats("gateway");
    assert_eq!(stats.lost(Lost::Overflow), 3);
    let breaker = stage.state.upstreams().breaker("d/backend-0", "");
    assert_eq!(breaker.stats.get(Stat::CxOverflow), 3);
    drop(open.pop());
    eventually(|| (breaker.used(Resource::Connections) == 1).then_some(()));
    assert_eq!(talk(bind, ""), "up");
}

#[test]
fn silence_has_an_end() {
    let (bind, upstream) = (address(), Echo::new("up"));
    let mut plan = plan(bind, vec![host(&["*"], 0)], &[upstream.address]);
    plan.tcp[0].idle = Some(Duration::from_millis(100));
    let stage = Stage::new(&plan);
    let mut client = Client::on(tcp(bind));
    assert_eq!(next(&mut client.stream, 2), "up");
    assert!(client.is_closed());
    let stats = stage.state.tcp_stats("gateway");
    eventually(|| (read(&stats.idle) == 1).then_some(()));
    assert_eq!(stage.log.passed_on(1)[0].end, TcpEnd::Idle);
}

#[test]
fn connections_outlive_reloads_and_new_ones_meet_the_new_plan() {
    let (bind, old, new) = (address(), Echo::new("old"), Echo::new("new"));
    let mut plan = plan(bind, vec![host(&["*"], 0)], &[old.address, new.address]);
    let mut stage = Stage::new(&plan);
    let mut open = tcp(bind);
    assert_eq!(next(&mut open, 3), "old");
    plan.tcp[0].hosts[0].to = TcpTarget::Weighted(vec![to(1, 1)]);
    stage.reload(&plan);
    assert_eq!(talk(bind, ""), "new");
    open.write_all(b"still").unwrap();
    assert_eq!(next(&mut open, 5), "still");
    // It is finished before the workers end, and cut off if it does not end by itself.
    let mut other = tcp(bind);
    assert_eq!(next(&mut other, 3), "new");
    thread::scope(|scope| {
        let drained = scope.spawn(|| stage.drain(Duration::from_secs(2)));
        eventually(|| TcpStream::connect(bind).is_err().then_some(()));
        open.write_all(b"more").unwrap();
        assert_eq!(next(&mut open, 4), "more");
        open.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(open), "");
        assert!(Client::on(other).is_closed());
        drained.join().unwrap();
    });
    let logged = stage.log.passed_on(3);
    let cut = logged.iter().filter(|line| line.end == TcpEnd::Cancelled);
    assert_eq!(cut.count(), 1);
}

#[test]
fn connections_are_bounded_by_listener_and_by_stated_source() {
    let (bind, upstream) = (address(), Echo::new("up"));
    let mut plan = plan(bind, vec![host(&["*"], 0)], &[upstream.address]);
    change_settings(&mut plan, |settings| {
        settings.proxy_protocol = ProxyProtocol::Required;
        settings.connections.max = Some(3);
        settings.connections.max_per_source = Some(1);
    });
    let stage = Stage::new(&plan);
    let from = |source: &str| {
        let mut stream = tcp(bind);
        write!(stream, "PROXY TCP4 {source} 198.51.100.1 5000 80\r\nhi").unwrap();
        stream
    };
    let mut first = from("192.0.2.1");
    assert_eq!(next(&mut first, 4), "uphi");
    assert!(Client::on(from("192.0.2.1")).is_closed());
    assert_eq!(stage.counters.closed(Closed::SourceFull), 1);
    let mut second = from("192.0.2.2");
    assert_eq!(next(&mut second, 4), "uphi");
    let mut third = from("192.0.2.3");
    assert_eq!(next(&mut third, 4), "uphi");
    assert!(Client::on(tcp(bind)).is_closed());
    assert_eq!(stage.counters.closed(Closed::ListenerFull), 1);
    assert_eq!(upstream.connections(), 3);
}
