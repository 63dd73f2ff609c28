//! A new process takes the sockets of an old one, and no client notices.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use socket2::{Domain, Socket, Type};
use tests::activation::activated;
use tests::daemon::{Daemon, Policies, Process, binary, demo_backend, eventually};
use tests::http_client::{count, get, gets};
use tests::netns::Netns;
use tests::policies::{GATEWAY, config, limited_host, network, route};
use tests::storm::Storm;
use tests::topology::Topology;
use tests::user::{User, open};

const ROUNDS: usize = 3;
/// Clients that come before, between and after.
const CLIENTS: usize = 500;

fn files() -> Result<Policies> {
    Policies::new(&[
        ("gateway.yaml", GATEWAY),
        ("route.yaml", &route("api", "/")),
    ])
}

fn two_ports() -> String {
    GATEWAY.replace(
        "port: 8080}\n",
        "port: 8080}\n  - {name: more, protocol: HTTP, port: 8081}\n",
    )
}

fn front(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn takeover(netns: &Netns, policies: &Policies) -> Result<Process> {
    takeover_by(netns, policies, Command::new(binary()))
}

fn takeover_by(netns: &Netns, policies: &Policies, mut limiterd: Command) -> Result<Process> {
    limiterd
        .args(["run", "--takeover", "--config"])
        .arg(policies.path());
    Process::spawn(netns, limiterd)
}

/// Waits until `new` has taken over from `old`, and `old` has ended well.
fn taken_over(netns: &Netns, old: Daemon, new: Process) -> Result<Daemon> {
    let mut old = old.process;
    let status = old.wait().with_context(|| new.output())?;
    assert_eq!(status.code(), Some(0), "{}", old.output());
    assert!(old.output().contains("taken over"), "{}", old.output());
    Daemon::ready(netns, new)
}

fn answers(netns: &Netns, port: u16) -> Result<bool> {
    netns.enter(|| Ok(get(&format!("http://127.0.0.1:{port}/")).is_ok()))
}

#[test]
fn a_takeover_in_a_storm_refuses_and_loses_nobody() -> Result<()> {
    let netns = Netns::new("takeover")?;
    let _backend = demo_backend(&netns)?;
    let policies = files()?;
    let mut daemon = Some(Daemon::start(&netns, policies.path())?);
    let storm = Storm::during(&netns, front(8080), |storm| {
        for round in 0..ROUNDS {
            storm.pass(CLIENTS)?;
            // More workers than sockets, and fewer.
            let workers = [3, 1, 2][round % 3];
            let settings = format!(
                "apiVersion: limiterd.io/v1alpha1\nkind: LimiterConfig\nmetadata: {{name: l}}\n\
                 spec: {{http: {{workers: {workers}}}}}\n"
            );
            policies.write("limiterd.yaml", &settings)?;
            let old = daemon.take().context("no daemon")?;
            let new = takeover(&netns, &policies)?;
            daemon = Some(taken_over(&netns, old, new)?);
        }
        storm.pass(CLIENTS)
    })?;
    storm.all_answered()?;
    assert_eq!(storm.refused(), 0);
    assert!(daemon.context("no daemon")?.stop()?.success());
    Ok(())
}

#[test]
fn restarts_on_systemds_sockets_in_a_storm_refuse_and_lose_nobody() -> Result<()> {
    let netns = Netns::new("activated")?;
    let _backend = demo_backend(&netns)?;
    let policies = files()?;
    let socket = netns.enter(|| Ok(TcpListener::bind("[::]:8080")?))?;
    let start = || {
        let limiterd = activated(&[("limiterd.socket", socket.as_fd())]);
        Daemon::start_by(&netns, policies.path(), limiterd)
    };
    let mut daemon = Some(start()?);
    let storm = Storm::during(&netns, front(8080), |storm| {
        for _ in 0..ROUNDS {
            storm.pass(CLIENTS)?;
            assert!(daemon.take().context("no daemon")?.stop()?.success());
            daemon = Some(start()?);
        }
        storm.pass(CLIENTS)
    })?;
    storm.all_answered()?;
    assert_eq!(storm.refused(), 0);
    Ok(())
}

/// Nobody takes these sockets over: clients may be refused, but whoever was let in is answered.
#[test]
fn closing_in_a_storm_loses_nobody_who_was_let_in() -> Result<()> {
    let netns = Netns::new("closing")?;
    let _backend = demo_backend(&netns)?;
    let policies = files()?;
    let mut daemon = Some(Daemon::start(&netns, policies.path())?);
    let storm = Storm::during(&netns, front(8080), |storm| {
        for _ in 0..ROUNDS {
            let daemon = daemon.as_ref().context("no daemon")?;
            storm.pass(CLIENTS)?;
            policies.write("gateway.yaml", &GATEWAY.replace("8080", "8081"))?;
            assert_eq!(daemon.reload(&netns)?, "ready\n");
            policies.write("gateway.yaml", GATEWAY)?;
            // At once: the sockets may not be closed yet.
            assert_eq!(daemon.reload(&netns)?, "ready\n");
        }
        storm.pass(CLIENTS)?;
        let daemon = daemon.take().context("no daemon")?;
        assert!(daemon.stop()?.success());
        let refused = storm.refused();
        eventually("clients to be refused", || {
            Ok((storm.refused() > refused).then_some(()))
        })
    })?;
    storm.all_answered()
}

/// Both processes count in the same words, while both serve as well.
#[test]
fn a_takeover_keeps_the_buckets_of_requests() -> Result<()> {
    const LIMIT: &str = "local: {rules: [\
        {clientSelectors: [{headers: [{name: x-user, type: Distinct}]}], limit: {requests: 10, unit: Day}}]}";
    let netns = Netns::new("takeover-buckets")?;
    let _backend = demo_backend(&netns)?;
    let policies = files()?;
    policies.write("limit.yaml", &limited_host("users", LIMIT))?;
    let admitted = |requests| {
        let headers = [("host", "users.test"), ("x-user", "alice")];
        let answers = netns.enter(|| gets("http://127.0.0.1:8080/", &headers, requests))?;
        anyhow::Ok([200, 429].map(|status| count(&answers, status)))
    };
    let mut daemon = Daemon::start(&netns, policies.path())?;
    assert_eq!(admitted(4)?, [4, 0]);
    let new = takeover(&netns, &policies)?;
    daemon = taken_over(&netns, daemon, new)?;
    assert_eq!(admitted(4)?, [4, 0]);
    // With a table of another size, what was counted goes on in that.
    let settings = "apiVersion: limiterd.io/v1alpha1\nkind: LimiterConfig\nmetadata: {name: l}\n\
                    spec: {http: {maxBuckets: 4096}}\n";
    policies.write("limiterd.yaml", settings)?;
    let new = takeover(&netns, &policies)?;
    daemon = taken_over(&netns, daemon, new)?;
    assert_eq!(admitted(4)?, [2, 2]);
    assert!(daemon.stop()?.success());
    Ok(())
}

#[test]
fn a_takeover_keeps_the_kernel_half_and_its_buckets() -> Result<()> {
    const TWO: &str = "  connections: {maxTokens: 2, tokensPerFill: 1, fillInterval: 1h}\n";
    let topology = Topology::new()?;
    let (gateway, client) = (&topology.gateway, &topology.first);
    let pins = topology.pins();
    let interfaces = [client.gateway_interface.as_str()];
    let policies = Policies::new(&[
        ("limiterd.yaml", &config(&interfaces, &pins, "Detach")),
        ("gateway.yaml", GATEWAY),
        ("network.yaml", &network("edge", TWO)),
    ])?;
    let old = Daemon::start(gateway, policies.path())?;
    assert!(client.let_in(8080)? && client.let_in(8080)? && client.kept_out(8080)?);
    let new = takeover(gateway, &policies)?;
    let new = taken_over(gateway, old, new)?;
    assert!(new.process.output().contains("adopted"));
    // `Detach` was meant for an end of limiterd, and this was none.
    assert!(pins.exist());
    assert!(
        client.kept_out(8080)?,
        "the limit is gone, or the bucket is full"
    );
    assert!(
        new.metrics(gateway)?
            .packets("default/edge", "over_connections")
            >= 2.0
    );
    assert!(new.stop()?.success());
    assert!(!pins.exist());
    Ok(())
}

#[test]
fn what_the_new_process_does_not_serve_is_closed() -> Result<()> {
    let netns = Netns::new("leftover")?;
    let _backend = demo_backend(&netns)?;
    let policies = files()?;
    policies.write("gateway.yaml", &two_ports())?;
    let old = Daemon::start(&netns, policies.path())?;
    assert!(answers(&netns, 8080)? && answers(&netns, 8081)?);
    let mine = Policies::new(&[
        ("gateway.yaml", &GATEWAY.replace("8080", "8081")),
        ("route.yaml", &route("api", "/")),
    ])?;
    let new = takeover(&netns, &mine)?;
    let new = taken_over(&netns, old, new)?;
    assert!(answers(&netns, 8081)? && !answers(&netns, 8080)?);
    // And it is free again.
    policies.write("gateway.yaml", &two_ports())?;
    mine.write("gateway.yaml", &two_ports())?;
    assert_eq!(new.reload(&netns)?, "ready\n");
    assert!(answers(&netns, 8080)?);
    Ok(())
}

#[test]
fn a_new_process_that_fails_leaves_the_old_one_as_it_was() -> Result<()> {
    let netns = Netns::new("failing")?;
    let _backend = demo_backend(&netns)?;
    let policies = files()?;
    let old = Daemon::start(&netns, policies.path())?;
    let _stranger = netns.enter(|| Ok(TcpListener::bind("[::]:8081")?))?;
    let mine = Policies::new(&[
        ("gateway.yaml", &two_ports()),
        ("route.yaml", &route("api", "/")),
    ])?;
    let mut new = takeover(&netns, &mine)?;
    assert_eq!(new.wait()?.code(), Some(1));
    assert!(new.output().contains("[::]:8081"), "{}", new.output());
    eventually("the old one to notice", || {
        let output = old.process.output();
        Ok(output.contains("this one goes on").then_some(()))
    })?;
    assert!(answers(&netns, 8080)?);
    assert_eq!(old.reload(&netns)?, "ready\n");
    // Without being told to, a second one does not push the first aside.
    let dir = policies.path().to_str().context("not UTF-8")?;
    let mut second = Process::start(&netns, &["run", "--config", dir])?;
    assert_eq!(second.wait()?.code(), Some(1));
    assert!(
        second.output().contains("--takeover"),
        "{}",
        second.output()
    );
    assert!(answers(&netns, 8080)?);
    let new = takeover(&netns, &policies)?;
    let new = taken_over(&netns, old, new)?;
    assert!(new.stop()?.success());
    Ok(())
}

#[test]
fn nobody_takes_the_sockets_of_another_user() -> Result<()> {
    let netns = Netns::new("stranger")?;
    let _backend = demo_backend(&netns)?;
    let policies = files()?;
    open(policies.path())?;
    let old = Daemon::start(&netns, policies.path())?;
    let stranger = User::new(&[])?;
    let mut new = takeover_by(&netns, &policies, stranger.limiterd())?;
    assert_eq!(new.wait()?.code(), Some(1));
    assert!(
        new.output().contains("cannot be taken over"),
        "{}",
        new.output()
    );
    let said = old.process.output();
    assert!(said.contains("a process of another user"), "{said}");
    assert!(answers(&netns, 8080)?);
    Ok(())
}

#[test]
fn where_there_is_nothing_to_take_over_it_just_starts() -> Result<()> {
    let netns = Netns::new("nothing")?;
    let policies = files()?;
    let new = takeover(&netns, &policies)?;
    let new = Daemon::ready(&netns, new)?;
    let said = new.process.output();
    assert!(said.contains("there is nothing to take over"), "{said}");
    assert!(new.stop()?.success());
    Ok(())
}

#[test]
fn systemds_sockets_serve_the_listeners_whose_address_they_have() -> Result<()> {
    let netns = Netns::new("matching")?;
    let _backend = demo_backend(&netns)?;
    let policies = files()?;
    policies.write("gateway.yaml", &two_ports())?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("admin");
    let admin = UnixListener::bind(&path)?;
    let bind = |address: &str| netns.enter(|| Ok(TcpListener::bind(address)?));
    let (wanted, unwanted) = (bind("[::]:8081")?, bind("[::]:8090")?);
    let sockets = [
        ("admin", admin.as_fd()),
        ("a", unwanted.as_fd()),
        ("b", wanted.as_fd()),
    ];
    let mut limiterd = activated(&sockets);
    limiterd.args(["run", "--config"]).arg(policies.path());
    let process = Process::spawn(&netns, limiterd)?;
    let ask = |page: &str| -> Result<String> {
        let mut stream = UnixStream::connect(&path)?;
        write!(stream, "GET {page} HTTP/1.0\r\nhost: a\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    eventually("the daemon to be ready", || {
        Ok(ask("/ready")?.contains("\r\n\r\nready\n").then_some(()))
    })
    .with_context(|| process.output())?;
    assert!(answers(&netns, 8080)? && answers(&netns, 8081)?);
    assert!(
        process.output().contains("address=[::]:8090"),
        "{}",
        process.output()
    );

    // A policy that wants the socket gets it, lets go of it, and gets it again.
    for (gateway, served) in [
        (two_ports().replace("8081", "8090"), true),
        (two_ports(), false),
        (two_ports().replace("8081", "8090"), true),
    ] {
        policies.write("gateway.yaml", &gateway)?;
        process.signal(Signal::HUP)?;
        let loaded = if served { "8090" } else { "8081" };
        eventually("the reload", || {
            Ok(ask("/config")?
                .contains(&format!("[::]:{loaded}"))
                .then_some(()))
        })
        .with_context(|| process.output())?;
        if served {
            assert!(answers(&netns, 8090)?);
        }
    }
    assert!(
        !process.output().contains("reload rejected"),
        "{}",
        process.output()
    );
    Ok(())
}

#[test]
fn a_socket_that_is_of_no_use_is_named() -> Result<()> {
    let netns = Netns::new("useless")?;
    let policies = files()?;
    let directory = tempfile::tempdir()?;
    let datagrams = UdpSocket::bind("127.0.0.1:0")?;
    let silent = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let unix = UnixListener::bind(directory.path().join("a"))?;
    for (socket, wanted) in [
        (datagrams.as_fd(), "it is no TCP and no Unix stream socket"),
        (silent.as_fd(), "it does not listen"),
        (unix.as_fd(), "FileDescriptorName=admin"),
    ] {
        let mut limiterd = activated(&[("thing", socket)]);
        limiterd.args(["run", "--config"]).arg(policies.path());
        let mut process = Process::spawn(&netns, limiterd)?;
        assert_eq!(process.wait()?.code(), Some(1));
        let said = process.output();
        let place = "socket 0 that systemd passed (`thing`)";
        assert!(said.contains(wanted) && said.contains(place), "{said}");
    }
    Ok(())
}

#[test]
fn who_lingers_stays_until_told_or_until_nobody_serves() -> Result<()> {
    let netns = Netns::new("linger")?;
    let _backend = demo_backend(&netns)?;
    let policies = files()?;
    let start = || -> Result<Process> {
        let mut limiterd = Command::new(binary());
        limiterd
            .arg("run")
            .args(["--takeover", "--linger", "--config"]);
        limiterd.arg(policies.path());
        let process = Process::spawn(&netns, limiterd)?;
        said(&process, "ready listeners")?;
        Ok(process)
    };
    fn said(process: &Process, part: &str) -> Result<()> {
        eventually(part, || Ok(process.output().contains(part).then_some(())))
            .with_context(|| process.output())
    }
    let waiting = "waiting to be told to stop";

    let mut first = start()?;
    let mut second = start()?;
    said(&first, waiting)?;
    assert!(answers(&netns, 8080)?);
    first.signal(Signal::TERM)?;
    assert!(first.wait()?.success());
    assert!(!second.output().contains(waiting));

    let third = start()?;
    said(&second, waiting)?;
    third.signal(Signal::KILL)?;
    assert!(second.wait()?.success());
    said(&second, "nobody serves any more")?;
    let last = start()?;
    assert!(answers(&netns, 8080)?);
    last.signal(Signal::TERM)?;
    let mut last = last;
    assert!(last.wait()?.success());
    assert!(!last.output().contains(waiting), "nobody had taken over");
    Ok(())
}
