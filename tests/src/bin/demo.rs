//! The story that `cargo xtask run --demo` plays: two sources against one port, one of them flooding;
//! then users over HTTP. It prints what each sent and got, and fails if the numbers are not what the
//! policy says.

use std::net::{SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use tests::capture::Capture;
use tests::daemon::{Daemon, Policies, Process, demo_backend};
use tests::flood::syns;
use tests::http_client::{count, gets};
use tests::policies::{GATEWAY, config, network, route, traffic};
use tests::topology::Topology;

const NETWORK: &str = "  connections: {maxTokens: 100, tokensPerFill: 10, fillInterval: 1s}\n";
const USERS: &str = "      - clientSelectors: [{headers: [{name: x-user-id, type: Distinct}]}]
        limit: {requests: 50, unit: Minute}
      - clientSelectors: [{headers: [{name: x-user-id, type: Distinct, invert: true}]}]
        limit: {requests: 10, unit: Minute}
";
const FLOOD: u16 = 10_000;
const CALM: usize = 6;

/// What one actor sent and got.
struct Row {
    who: &'static str,
    how: String,
    sent: usize,
    passed: usize,
    dropped: usize,
    limited: usize,
    /// How many should have passed.
    policy: RangeInclusive<usize>,
}

impl Row {
    fn as_the_policy_says(&self) -> bool {
        let all = self.passed + self.dropped + self.limited;
        self.policy.contains(&self.passed) && all == self.sent
    }
}

fn main() -> ExitCode {
    match play() {
        Ok(rows) => {
            print(&rows);
            let right = rows.iter().all(Row::as_the_policy_says);
            println!(
                "{}",
                if right {
                    "as the policy says"
                } else {
                    "NOT as the policy says"
                }
            );
            if right {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn play() -> Result<Vec<Row>> {
    let topology = Topology::new()?;
    let gateway = &topology.gateway;
    let pins = topology.pins();
    let interfaces = [
        topology.first.gateway_interface.as_str(),
        topology.second.gateway_interface.as_str(),
    ];
    let policies = Policies::new(&[
        ("limiterd.yaml", &config(&interfaces, &pins, "Detach")),
        ("gateway.yaml", GATEWAY),
        ("route.yaml", &route("api", "/")),
        ("network.yaml", &network("edge", NETWORK)),
        ("users.yaml", &traffic("users", ("HTTPRoute", "api"), USERS)),
    ])?;
    println!("a gateway and two clients, each in a network namespace of its own");
    println!(
        "kernel: 100 connections a source at once, then 10 a second; HTTP: 50 a minute a user,"
    );
    println!("10 a minute for requests without x-user-id\n");
    let backend = demo_backend(gateway)?;
    let daemon = Daemon::start(gateway, policies.path())?;

    let mut rows = connections(&topology, &daemon)?;
    for (who, headers, sent, quota) in [
        ("alice", &[("x-user-id", "alice")][..], 60, 50),
        ("bob", &[("x-user-id", "bob")], 30, 50),
        ("anonymous", &[], 20, 10),
    ] {
        let answers = gateway.enter(|| gets("http://127.0.0.1:8080/", headers, sent))?;
        rows.push(Row {
            who,
            how: "GET".to_owned(),
            sent,
            passed: count(&answers, 200),
            dropped: 0,
            limited: count(&answers, 429),
            policy: quota.min(sent)..=quota.min(sent),
        });
    }
    stop(daemon, backend)?;
    Ok(rows)
}

/// The flooder and the well-behaved client, at the same time.
fn connections(topology: &Topology, daemon: &Daemon) -> Result<Vec<Row>> {
    let Topology {
        gateway,
        first: flooder,
        second: calm,
    } = topology;
    let capture = Capture::start(&flooder.netns, &flooder.interface)?;
    let (took, served) = thread::scope(|scope| {
        let calm = scope.spawn(|| {
            let target = SocketAddr::new(calm.gateway_v4.into(), 8080);
            calm.netns.enter(|| {
                let one = |_| {
                    let accepted =
                        TcpStream::connect_timeout(&target, Duration::from_secs(5)).is_ok();
                    thread::sleep(Duration::from_millis(200));
                    accepted
                };
                Ok((0..CALM).map(one).filter(|accepted| *accepted).count())
            })
        });
        let target = SocketAddr::new(flooder.gateway_v4.into(), 8080);
        let took = flooder
            .netns
            .enter(|| syns(flooder.v4.into(), target, FLOOD, Duration::from_secs(1)));
        (
            took,
            calm.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        )
    });
    let (took, served) = (took?, served?);
    let seen = capture.stop()?;
    let page = daemon.metrics(gateway)?;
    let refilled = usize::try_from(took.as_millis() / 100)? + 1;
    let accepted = seen.accepted.len();
    let silent = seen.reset.is_empty() && seen.icmp_errors == 0;
    println!(
        "the flooder's capture: {accepted} SYN+ACK, {} RST, {} ICMP errors",
        seen.reset.len(),
        seen.icmp_errors
    );
    anyhow::ensure!(silent, "what was dropped was answered");
    let dropped = page.packets("default/edge", "over_connections");
    Ok(vec![
        Row {
            who: "flooder",
            how: format!("TCP SYN in {took:.1?}"),
            sent: FLOOD.into(),
            passed: accepted,
            dropped: format!("{dropped}").parse()?,
            limited: 0,
            policy: 100..=100 + refilled,
        },
        Row {
            who: "well-behaved",
            how: "connect, 5 a second".to_owned(),
            sent: CALM,
            passed: served,
            dropped: CALM - served,
            limited: 0,
            policy: CALM..=CALM,
        },
    ])
}

fn stop(daemon: Daemon, backend: Process) -> Result<()> {
    let status = daemon.stop()?;
    anyhow::ensure!(status.success(), "the daemon ended with {status}");
    drop(backend);
    Ok(())
}

fn print(rows: &[Row]) {
    println!(
        "\n{:<14}{:<22}{:>7}{:>8}{:>9}{:>9}   policy says",
        "source", "what", "sent", "passed", "dropped", "limited"
    );
    for row in rows {
        let policy = if row.policy.start() == row.policy.end() {
            row.policy.start().to_string()
        } else {
            format!("{}..{}", row.policy.start(), row.policy.end())
        };
        println!(
            "{:<14}{:<22}{:>7}{:>8}{:>9}{:>9}   {policy}",
            row.who, row.how, row.sent, row.passed, row.dropped, row.limited
        );
    }
    println!();
}
