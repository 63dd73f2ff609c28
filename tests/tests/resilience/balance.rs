//! Which endpoint a request goes to.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use anyhow::{Context as _, Result};
use socket2::{Domain, Socket, Type};
use tests::daemon::eventually;
use tests::netns::Netns;
use tests::raw::Raw;
use tests::scripted::{Script, Scripted};

use super::support::{Host, PROXY, stage, told};

const PORTS: [u16; 3] = [3001, 3002, 3003];

fn backends(netns: &Netns) -> Result<Vec<Scripted>> {
    PORTS
        .iter()
        .map(|port| Scripted::start(netns, &format!("127.0.0.1:{port}")))
        .collect()
}

fn balancer(said: &str) -> String {
    format!("  loadBalancer: {{{said}}}\n")
}

/// Which of them has seen one request more than before.
fn asked(backends: &[Scripted], ask: impl FnOnce() -> Result<()>) -> Result<usize> {
    let counts = || -> Vec<_> { backends.iter().map(|b| b.counts().requests).collect() };
    let before = counts();
    ask()?;
    let more = counts()
        .iter()
        .zip(&before)
        .position(|(now, before)| now > before);
    more.context("nobody was asked")
}

#[test]
fn in_turn_at_random_or_who_has_least_to_do() -> Result<()> {
    let netns = Netns::new("balance")?;
    let backends = backends(&netns)?;
    let (turns, random, least) = (
        balancer("type: RoundRobin"),
        balancer("type: Random"),
        balancer("type: LeastRequest"),
    );
    let hosts = [
        ("turns", &PORTS[..], turns.as_str()),
        ("random", &PORTS, &random),
        ("least", &PORTS[..2], &least),
    ];
    let scene = stage(netns, &hosts)?;
    let counts = || -> Vec<_> { backends.iter().map(|b| b.counts().requests).collect() };
    // Each is asked on a connection of its own, so that all workers take part.
    let turns = Host::new(&scene, "turns");
    for _ in 0..30 {
        assert_eq!(turns.get()?.status, 200);
    }
    assert_eq!(counts(), [10, 10, 10]);

    let random = Host::new(&scene, "random");
    for _ in 0..120 {
        assert_eq!(random.get()?.status, 200);
    }
    // One of them being left out is as likely as 10^-20.
    assert!(counts().iter().all(|count| *count > 10), "{:?}", counts());

    // One is busy; of two, that leaves the other.
    let least = Host::new(&scene, "least");
    for backend in &backends {
        backend.plays(Script::Hold);
    }
    let mut held = None;
    let before: usize = counts().iter().sum();
    let busy = asked(&backends, || {
        held = Some(least.send("GET /", "", "")?);
        least.becomes("upstream_rq_active", 1)?;
        eventually("the request", || {
            Ok((counts().iter().sum::<usize>() > before).then_some(()))
        })
    })?;
    for backend in &backends {
        backend.plays(Script::Echo);
    }
    for _ in 0..20 {
        least.becomes("upstream_rq_active", 1)?;
        let other = asked(&backends, || {
            assert_eq!(least.get()?.status, 200);
            Ok(())
        })?;
        assert_ne!(other, busy);
    }
    backends[busy].release(1);
    assert_eq!(told(&mut held.context("nothing was sent")?)?.status, 200);
    least.rests()
}

/// A connection to the proxy from another address of this machine.
fn from(host: &Host<'_>, address: Ipv4Addr) -> Result<Raw<TcpStream>> {
    let stream = host.scene.netns.enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((address, 0)).into())?;
        socket.connect(&PROXY.parse::<SocketAddr>()?.into())?;
        Ok(TcpStream::from(socket))
    })?;
    Ok(Raw::on(stream))
}

/// Asserts that each of these requests goes to an endpoint of its own choice, again and again, and that
/// not all of them choose the same one.
fn sticks(backends: &[Scripted], ask: impl Fn(u8) -> Result<()>) -> Result<()> {
    let mut chosen = BTreeSet::new();
    for value in 1..=20 {
        let place = asked(backends, || ask(value))?;
        for _ in 0..3 {
            assert_eq!(asked(backends, || ask(value))?, place, "{value}");
        }
        chosen.insert(place);
    }
    assert!(chosen.len() > 1, "all of them chose {chosen:?}");
    Ok(())
}

#[test]
fn by_a_hash_requests_of_one_kind_go_to_one_endpoint() -> Result<()> {
    let netns = Netns::new("hash")?;
    let backends = backends(&netns)?;
    let hash = |by: &str| balancer(&format!("type: ConsistentHash, consistentHash: {{{by}}}"));
    let source = hash("type: SourceIP");
    let header = hash("type: Headers, headers: [{name: x-user}]");
    let query = hash("type: QueryParams, queryParams: [{name: user}]");
    let cookie = hash("type: Cookie, cookie: {name: lb, ttl: 60s, attributes: {SameSite: Strict}}");
    let hosts = [
        ("source", &PORTS[..], source.as_str()),
        ("header", &PORTS, &header),
        ("query", &PORTS, &query),
        ("cookie", &PORTS, &cookie),
    ];
    let scene = stage(netns, &hosts)?;

    let source = Host::new(&scene, "source");
    sticks(&backends, |value| {
        let mut client = from(&source, Ipv4Addr::new(127, 0, 0, value))?;
        client.send(source.request("GET /", "", ""))?;
        assert_eq!(told(&mut client)?.status, 200);
        Ok(())
    })?;
    let header = Host::new(&scene, "header");
    sticks(&backends, |value| {
        let answer = header.ask("GET /", &format!("x-user: {value}\r\n"), "")?;
        assert_eq!(answer.status, 200);
        Ok(())
    })?;
    let query = Host::new(&scene, "query");
    sticks(&backends, |value| {
        let answer = query.ask(&format!("GET /?a=1&user={value}"), "", "")?;
        assert_eq!(answer.status, 200);
        Ok(())
    })?;

    // Who has no cookie is given one, and comes back by it.
    let cookie = Host::new(&scene, "cookie");
    let mut given = BTreeSet::new();
    let mut chosen = BTreeSet::new();
    for _ in 0..20 {
        let mut set = String::new();
        let place = asked(&backends, || {
            set = cookie.get()?.header("set-cookie");
            Ok(())
        })?;
        assert!(
            set.starts_with("lb=") && set.contains("; Max-Age=60; SameSite=Strict"),
            "{set}"
        );
        let pair = set.split(';').next().context("no cookie")?.to_owned();
        for _ in 0..3 {
            let again = asked(&backends, || {
                let answer = cookie.ask("GET /", &format!("cookie: a=b; {pair}\r\n"), "")?;
                assert_eq!(answer.header("set-cookie"), "", "it has one");
                Ok(())
            })?;
            assert_eq!(again, place);
        }
        chosen.insert(place);
        given.insert(pair);
    }
    assert_eq!(given.len(), 20, "two were given the same");
    assert!(chosen.len() > 1, "all of them chose {chosen:?}");
    cookie.rests()
}

#[test]
fn when_an_endpoint_is_gone_only_its_own_requests_move() -> Result<()> {
    let netns = Netns::new("move")?;
    let backends = backends(&netns)?;
    let spec = balancer(
        "type: ConsistentHash, consistentHash: {type: Headers, headers: [{name: x-user}]}",
    ) + "  retry: {numRetries: 2, perRetry: {backOff: {baseInterval: 1ms}}}\n";
    let scene = stage(netns, &[("moves", &PORTS, &spec)])?;
    let moves = Host::new(&scene, "moves");
    let ask = |user: usize| {
        asked(&backends, || {
            let answer = moves.ask("GET /", &format!("x-user: {user}\r\n"), "")?;
            assert_eq!(answer.status, 200);
            Ok(())
        })
    };
    let before = (0..30).map(ask).collect::<Result<Vec<_>>>()?;
    let gone = before[0];
    backends[gone].down();
    for (user, place) in before.iter().enumerate() {
        let now = ask(user)?;
        assert_ne!(now, gone);
        assert!(
            *place == gone || now == *place,
            "{user} moved from {place} to {now}"
        );
    }
    backends[gone].up(&scene.netns)?;
    assert_eq!((0..30).map(ask).collect::<Result<Vec<_>>>()?, before);
    moves.rests()
}
