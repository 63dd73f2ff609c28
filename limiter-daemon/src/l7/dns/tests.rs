//! The resolver against a name server on loopback. Times are stated; nothing waits for them.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use super::*;
use crate::policy::plan::{Backend, BackendSettings, LookupFamily};

const SECOND: u64 = 1_000_000_000;

/// What a name server answers: data with a TTL for a name and a type, or an error for the name.
#[derive(Default)]
struct Zone {
    records: HashMap<(String, RecordType), Vec<(RData, u32)>>,
    broken: bool,
}

/// A name server, until the process ends.
struct Server {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    asked: Arc<AtomicUsize>,
}

impl Server {
    fn start() -> Self {
        let (udp, tcp) = sockets();
        let server = Self {
            address: udp.local_addr().unwrap(),
            zone: Arc::default(),
            asked: Arc::default(),
        };
        let (zone, asked) = (Arc::clone(&server.zone), Arc::clone(&server.asked));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let (length, from) = udp.recv_from(&mut buffer).unwrap();
                asked.fetch_add(1, Ordering::SeqCst);
                let answer = zone.lock().unwrap().answer(&buffer[..length]);
                let whole = answer.to_vec().unwrap();
                let short = if whole.len() > 1232 {
                    answer.truncate().to_vec().unwrap()
                } else {
                    whole
                };
                udp.send_to(&short, from).unwrap();
            }
        });
        let zone = Arc::clone(&server.zone);
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.unwrap();
                let mut length = [0; 2];
                while stream.read_exact(&mut length).is_ok() {
                    let mut request = vec![0; u16::from_be_bytes(length).into()];
                    stream.read_exact(&mut request).unwrap();
                    let answer = zone.lock().unwrap().answer(&request).to_vec().unwrap();
                    let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                    stream.write_all(&[&length, &*answer].concat()).unwrap();
                }
            }
        });
        server
    }

    fn set(&self, name: &str, data: &[RData], ttl: u32) {
        let mut zone = self.zone.lock().unwrap();
        for kind in [RecordType::A, RecordType::AAAA, RecordType::CNAME] {
            let records: Vec<_> = data.iter().filter(|d| d.record_type() == kind).collect();
            let records = records.into_iter().map(|data| (data.clone(), ttl));
            zone.records.insert((name.into(), kind), records.collect());
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Both on one port.
fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        // Somebody else may have the other one.
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
}

impl Zone {
    fn answer(&self, request: &[u8]) -> Message {
        let request = Message::from_vec(request).unwrap();
        let query = request.queries[0].clone();
        let (id, code) = (request.metadata.id, request.metadata.op_code);
        if self.broken {
            let mut error = Message::error_msg(id, code, ResponseCode::ServFail);
            error.add_query(query);
            return error;
        }
        let mut response = Message::response(id, code);
        response.add_query(query.clone());
        response.metadata.authoritative = true;
        response.metadata.recursion_available = true;
        let known = |name: &Name, kind| {
            let name = name.to_string().trim_end_matches('.').to_owned();
            self.records.get(&(name, kind))
        };
        let mut name = query.name().clone();
        if known(&name, RecordType::A).is_none() {
            response.metadata.response_code = ResponseCode::NXDomain;
        }
        while let Some((RData::CNAME(CNAME(to)), ttl)) =
            known(&name, RecordType::CNAME).and_then(|records| records.first())
        {
            let data = RData::CNAME(CNAME(to.clone()));
            response.add_answer(Record::from_rdata(name, *ttl, data));
            name = to.clone();
        }
        for (data, ttl) in known(&name, query.query_type()).into_iter().flatten() {
            response.add_answer(Record::from_rdata(name.clone(), *ttl, data.clone()));
        }
        response
    }
}

fn v4(last: u8) -> RData {
    RData::A(A(Ipv4Addr::new(192, 0, 2, last)))
}

fn v6() -> RData {
    RData::AAAA(AAAA("2001:db8::1".parse().unwrap()))
}

type Told = Arc<Mutex<Vec<(String, Vec<String>)>>>;

fn text(addresses: &[IpAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

fn resolver(server: SocketAddr) -> (Arc<Resolver>, Told) {
    let told = Told::default();
    let tell = Arc::clone(&told);
    let on_change: OnChange = Box::new(move |change| {
        let told = (change.host.to_owned(), text(change.addresses));
        tell.lock().unwrap().push(told);
    });
    let source = Source::Server(server);
    (Resolver::new(source, Clock::start(), on_change), told)
}

fn plan(backends: &[(&str, &[&str], Dns)]) -> Plan {
    let backend = |(name, hosts, dns): &(&str, &[&str], Dns)| Backend {
        name: (*name).into(),
        endpoints: hosts
            .iter()
            .map(|host| Endpoint::Fqdn((*host).into(), 80))
            .collect(),
        settings: Arc::new(BackendSettings {
            dns: *dns,
            ..BackendSettings::default()
        }),
        ..Backend::default()
    };
    Plan {
        backends: backends.iter().map(backend).collect(),
        ..Plan::default()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

/// Looks up all that is due at `now`; how many names that were.
fn turn(resolver: &Resolver, now: u64) -> usize {
    let due = resolver.set().due(now, MAX_IN_FLIGHT);
    for question in &due {
        let answer = runtime().block_on(resolver.lookups.lookup(question, now));
        resolver.answered(question, answer, now);
    }
    due.len()
}

fn addresses(resolver: &Resolver, host: &str, dns: &Dns) -> Vec<String> {
    let known = resolver.addresses(host, dns).unwrap().get();
    known.map_or_else(Vec::new, |known| text(&known))
}

#[test]
fn addresses_follow_their_name() {
    let server = Server::start();
    server.set("a.test", &[v4(2), v4(1), v4(1)], 5);
    let dns = Dns::default();
    let (resolver, told) = resolver(server.address);
    resolver.apply_at(&plan(&[("d/a", &["a.test"], dns)]), 0);
    assert_eq!(addresses(&resolver, "a.test", &dns), [""; 0]);
    assert!(resolver.addresses("b.test", &dns).is_none());

    assert_eq!(turn(&resolver, 0), 1);
    let both = ["192.0.2.1", "192.0.2.2"];
    assert_eq!(addresses(&resolver, "a.test", &dns), both);
    // Its TTL is not over.
    assert_eq!(turn(&resolver, 4 * SECOND), 0);
    assert_eq!(server.asked(), 1);
    server.set("a.test", &[v4(2), v4(1)], 300);
    assert_eq!(turn(&resolver, 6 * SECOND), 1);
    // A longer one is cut to the interval.
    assert_eq!(turn(&resolver, 35 * SECOND), 0);
    server.set("a.test", &[v4(7)], 60);
    assert_eq!(turn(&resolver, 40 * SECOND), 1);
    assert_eq!(addresses(&resolver, "a.test", &dns), ["192.0.2.7"]);
    let told = told.lock().unwrap();
    let text = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    let wanted = [
        ("a.test".to_owned(), text(&both)),
        ("a.test".to_owned(), text(&["192.0.2.7"])),
    ];
    assert_eq!(*told, wanted);
}

#[test]
fn a_server_that_fails_changes_nothing_and_is_asked_again() {
    let server = Server::start();
    server.set("a.test", &[v4(1)], 5);
    let dns = Dns::default();
    let (resolver, told) = resolver(server.address);
    resolver.apply_at(&plan(&[("d/a", &["a.test"], dns)]), 0);
    turn(&resolver, 0);
    server.zone.lock().unwrap().broken = true;
    assert_eq!(turn(&resolver, 6 * SECOND), 1);
    assert_eq!(turn(&resolver, 6 * SECOND + SECOND / 2), 0);
    assert_eq!(turn(&resolver, 8 * SECOND), 1);
    // There is no such name any more.
    server.zone.lock().unwrap().broken = false;
    server.zone.lock().unwrap().records.clear();
    assert_eq!(turn(&resolver, 20 * SECOND), 1);
    // There is, but without addresses.
    server.set("a.test", &[], 5);
    assert_eq!(turn(&resolver, 30 * SECOND), 1);
    assert_eq!(addresses(&resolver, "a.test", &dns), ["192.0.2.1"]);
    server.set("a.test", &[v4(2)], 5);
    assert_eq!(turn(&resolver, 60 * SECOND), 1);
    assert_eq!(addresses(&resolver, "a.test", &dns), ["192.0.2.2"]);
    assert_eq!(told.lock().unwrap().len(), 2);
    let wanted = Counts {
        attempts: 6,
        successes: 2,
        failures: 2,
        empty: 2,
        ..Counts::default()
    };
    assert_eq!(resolver.counts()[0].counts, wanted);
}

#[test]
fn families_are_those_that_are_wanted() {
    let server = Server::start();
    server.set("both.test", &[v4(1), v6()], 5);
    server.set("six.test", &[v6()], 5);
    for (family, both, six) in [
        (LookupFamily::Ipv4Preferred, &["192.0.2.1"][..], 1),
        (LookupFamily::Ipv6Preferred, &["2001:db8::1"], 1),
        (LookupFamily::Ipv4, &["192.0.2.1"], 0),
        (LookupFamily::Ipv6, &["2001:db8::1"], 1),
        (LookupFamily::Ipv4AndIpv6, &["192.0.2.1", "2001:db8::1"], 1),
    ] {
        let dns = Dns {
            family,
            ..Dns::default()
        };
        let (resolver, _) = resolver(server.address);
        resolver.apply_at(&plan(&[("d/a", &["both.test", "six.test"], dns)]), 0);
        assert_eq!(turn(&resolver, 0), 2);
        assert_eq!(addresses(&resolver, "both.test", &dns), both, "{family:?}");
        let found = addresses(&resolver, "six.test", &dns).len();
        assert_eq!(found, six, "{family:?}");
    }
}

#[test]
fn aliases_are_followed_and_their_ttl_counts() {
    let server = Server::start();
    let to = Name::from_ascii("real.test.").unwrap();
    server.set("alias.test", &[RData::CNAME(CNAME(to))], 3);
    server.set("real.test", &[v4(9)], 300);
    let dns = Dns::default();
    let (resolver, _) = resolver(server.address);
    resolver.apply_at(&plan(&[("d/a", &["alias.test"], dns)]), 0);
    turn(&resolver, 0);
    assert_eq!(addresses(&resolver, "alias.test", &dns), ["192.0.2.9"]);
    assert_eq!(turn(&resolver, 4 * SECOND), 1);
}

#[test]
fn long_answers_come_over_tcp_and_only_so_many_addresses_are_taken() {
    let server = Server::start();
    let many: Vec<_> = (1..=100).map(v4).collect();
    server.set("many.test", &many, 5);
    let dns = Dns::default();
    let (resolver, _) = resolver(server.address);
    resolver.apply_at(&plan(&[("d/a", &["many.test"], dns)]), 0);
    turn(&resolver, 0);
    let taken = addresses(&resolver, "many.test", &dns);
    assert_eq!(taken.len(), Addresses::MAX);
    assert_eq!(resolver.counts()[0].counts.left_out, 36);
}

#[test]
fn backends_share_lookups_and_reloads_keep_answers() {
    let server = Server::start();
    server.set("a.test", &[v4(1)], 30);
    let dns = Dns::default();
    let (resolver, told) = resolver(server.address);
    let both = plan(&[("d/b", &["a.test"], dns), ("d/a", &["a.test"], dns)]);
    resolver.apply_at(&both, 0);
    assert_eq!(turn(&resolver, 0), 1);
    let counts = resolver.counts();
    assert_eq!((&*counts[0].backend, &*counts[1].backend), ("d/a", "d/b"));
    assert_eq!(counts[0].counts, counts[1].counts);
    resolver.apply_at(&plan(&[("d/b", &["a.test"], dns)]), SECOND);
    assert_eq!(turn(&resolver, SECOND), 0);
    assert_eq!(addresses(&resolver, "a.test", &dns), ["192.0.2.1"]);
    assert_eq!((server.asked(), told.lock().unwrap().len()), (1, 1));
    resolver.apply_at(&Plan::default(), SECOND);
    assert!(resolver.addresses("a.test", &dns).is_none());
}

#[test]
fn the_task_looks_up_what_plans_bring() {
    let server = Server::start();
    server.set("a.test", &[v4(1)], 3600);
    server.set("b.test", &[v4(2)], 3600);
    let dns = Dns {
        refresh: Duration::from_secs(3600),
        ..Dns::default()
    };
    let (sender, changes) = std::sync::mpsc::channel();
    let on_change: OnChange = Box::new(move |change| {
        sender.send(text(change.addresses)).unwrap();
    });
    let source = Source::Server(server.address);
    let resolver = Resolver::new(source, Clock::start(), on_change);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let task = Arc::clone(&resolver);
    let thread = std::thread::spawn(move || {
        runtime().block_on(async move {
            tokio::select! {
                died = task.run() => panic!("{died}"),
                _ = stopped => {}
            }
        });
    });
    let patience = Duration::from_secs(20);
    resolver.apply(&plan(&[("d/a", &["a.test"], dns)]));
    assert_eq!(changes.recv_timeout(patience).unwrap(), ["192.0.2.1"]);
    resolver.apply(&plan(&[("d/a", &["a.test", "b.test"], dns)]));
    assert_eq!(changes.recv_timeout(patience).unwrap(), ["192.0.2.2"]);
    assert_eq!(server.asked(), 2);
    stop.send(()).unwrap();
    thread.join().unwrap();
}
