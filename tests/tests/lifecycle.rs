//! Start, reload, stop and crash.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use tests::daemon::{BACKEND, Daemon, Policies, Process, demo_backend, eventually, limiterd};
use tests::http_client::{count, get, gets};
use tests::netns::Netns;
use tests::policies::{GATEWAY, config, network, route, traffic};
use tests::topology::Topology;

const TEN: &str = "      - limit: {requests: 10, unit: Hour}\n";
const SIX: &str = "      - limit: {requests: 6, unit: Hour}\n";
const TWO_CONNECTIONS: &str = "  connections: {maxTokens: 2, tokensPerFill: 1, fillInterval: 1h}\n";

/// Policies with errors, and what must be said of them.
const BROKEN: [(&str, &str, &[&str]); 4] = [
    (
        "a misspelt field",
        "      - limit: {requets: 10, unit: Hour}\n",
        &[
            "limits.yaml:9:",
            "requets",
            "did you mean `requests`",
            "BackendTrafficPolicy default/p",
        ],
    ),
    (
        "a zero limit",
        "      - limit: {requests: 0, unit: Hour}\n",
        &["limits.yaml:9:", "requests"],
    ),
    (
        "an unknown unit",
        "      - limit: {requests: 10, unit: Hours}\n",
        &["limits.yaml:9:", "Hours", "`Hour`"],
    ),
    (
        "a missing Gateway",
        "",
        &["limits.yaml:", "no-such-gateway"],
    ),
];

fn broken(rules: &str) -> String {
    match rules {
        "" => traffic("p", ("Gateway", "no-such-gateway"), TEN),
        rules => traffic("p", ("Gateway", "eg"), rules),
    }
}

/// Files that refuse the start, and what the refusal must say.
const REFUSED: [(&str, &str, &[&str]); 3] = [
    ("no YAML", "{ this is [ no YAML", &["z.yaml:1:"]),
    (
        "settings that are wrong",
        "apiVersion: limiterd.io/v1alpha1\nkind: LimiterConfig\nmetadata: {name: z}\n\
         spec: {http: {workers: 0}}\n",
        &["z.yaml:4:", "workers", "it may be 1 to 1024"],
    ),
    (
        "a policy without readable targets",
        "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: BackendTrafficPolicy\n\
         metadata: {name: z}\nspec: {targetRfes: []}\n",
        &["z.yaml:4:", "did you mean `targetRefs`"],
    ),
];

#[test]
fn broken_files_are_told_with_their_place() -> Result<()> {
    for (what, rules, wanted) in BROKEN {
        let policies =
            Policies::new(&[("gateway.yaml", GATEWAY), ("limits.yaml", &broken(rules))])?;
        let dir = policies.path().to_str().context("not UTF-8")?;
        let check = limiterd(&["check", dir])?;
        let text = String::from_utf8_lossy(&check.stdout).into_owned();
        assert_eq!(check.status.code(), Some(1), "{what}: {text}");
        for part in wanted {
            assert!(text.contains(part), "{what}: no {part:?} in\n{text}");
        }
    }
    Ok(())
}

#[test]
fn files_that_may_hide_a_limit_refuse_the_start_and_nothing_is_attached() -> Result<()> {
    let topology = Topology::new()?;
    let gateway = &topology.gateway;
    let interface = topology.first.gateway_interface.as_str();
    let pins = topology.pins();
    for (what, text, wanted) in REFUSED {
        let policies = Policies::new(&[
            ("limiterd.yaml", &config(&[interface], &pins, "Detach")),
            ("gateway.yaml", GATEWAY),
            ("network.yaml", &network("edge", TWO_CONNECTIONS)),
            ("z.yaml", text),
        ])?;
        let dir = policies.path().to_str().context("not UTF-8")?;
        let check = limiterd(&["check", dir])?;
        let text = String::from_utf8_lossy(&check.stdout).into_owned();
        assert_eq!(check.status.code(), Some(1), "{what}: {text}");
        let mut run = Process::start(gateway, &["run", "--config", dir])?;
        assert_eq!(run.wait()?.code(), Some(1), "{what}");
        for part in wanted {
            assert!(text.contains(part), "{what}: no {part:?} in\n{text}");
            assert!(run.output().contains(part), "{what}: {}", run.output());
        }
        assert!(!pins.exist(), "{what}: something is pinned");
        assert!(
            !attached(gateway, interface)?,
            "{what}: something is attached"
        );
    }
    Ok(())
}

#[test]
fn requests_under_a_policy_that_was_never_valid_are_refused_until_it_is() -> Result<()> {
    let netns = Netns::new("invalid")?;
    let _backend = demo_backend(&netns)?;
    for (what, rules, wanted) in BROKEN.into_iter().filter(|(_, rules, _)| !rules.is_empty()) {
        let policies = Policies::new(&[
            ("gateway.yaml", GATEWAY),
            ("route.yaml", &route("api", "/")),
            ("limits.yaml", &broken(rules)),
        ])?;
        let dir = policies.path().to_str().context("not UTF-8")?;
        let check = limiterd(&["check", dir])?;
        let text = String::from_utf8_lossy(&check.stdout).into_owned();
        assert_eq!(check.status.code(), Some(1), "{what}: {text}");
        for part in wanted {
            assert!(text.contains(part), "{what}: no {part:?} in\n{text}");
        }
        let daemon = Daemon::start(&netns, policies.path())?;
        let status = || netns.enter(|| Ok(get("http://127.0.0.1:8080/")?.status.as_u16()));
        assert_eq!(status()?, 500, "{what}");
        assert!(daemon.process.output().contains(wanted[0]), "{what}");
        policies.write("limits.yaml", &broken(TEN))?;
        assert_eq!(daemon.reload(&netns)?, "ready\n");
        assert_eq!(status()?, 200, "{what}");
        assert!(daemon.stop()?.success());
    }
    Ok(())
}

#[test]
fn a_reload_keeps_buckets_and_a_broken_one_keeps_the_policy() -> Result<()> {
    let netns = Netns::new("reload")?;
    let _backend = demo_backend(&netns)?;
    let policies = Policies::new(&[
        ("gateway.yaml", GATEWAY),
        ("route.yaml", &route("api", "/")),
        ("limits.yaml", &traffic("p", ("Gateway", "eg"), TEN)),
    ])?;
    let daemon = Daemon::start(&netns, policies.path())?;
    let passed =
        |requests| netns.enter(|| Ok(count(&gets("http://127.0.0.1:8080/", &[], requests)?, 200)));
    assert_eq!(passed(4)?, 4);

    // 4 of 10 tokens are gone, 6 minutes each. Of a bucket of 6 tokens of 10 minutes that is 2.4.
    policies.write("limits.yaml", &traffic("p", ("Gateway", "eg"), SIX))?;
    assert_eq!(daemon.reload(&netns)?, "ready\n");
    assert_eq!(passed(10)?, 3);

    for (what, rules, wanted) in BROKEN {
        policies.write("limits.yaml", &broken(rules))?;
        let report = daemon.reload(&netns)?;
        assert!(
            report.starts_with("ready\nlast reload with errors, what is not valid stays as it was"),
            "{report}"
        );
        assert!(report.contains(wanted[0]), "{what}: {report}");
        assert_eq!(passed(1)?, 0, "{what}: the bucket was reset");
    }
    policies.write("limits.yaml", "")?;
    assert_eq!(daemon.reload(&netns)?, "ready\n");
    assert_eq!(passed(20)?, 20);
    let page = daemon.metrics(&netns)?;
    // Some may have been read twice: the files are watched, and the signal came besides.
    let reloads = |result| page.sum("limiterd_policy_reloads_total", &[("result", result)]);
    assert!(reloads("rejected") >= 4.0 && reloads("applied") >= 2.0);
    assert_eq!(page.sum("limiterd_policy_last_reload_successful", &[]), 1.0);
    Ok(())
}

#[test]
fn a_reload_opens_and_closes_listeners() -> Result<()> {
    let netns = Netns::new("ports")?;
    let _backend = demo_backend(&netns)?;
    let policies = Policies::new(&[
        ("gateway.yaml", GATEWAY),
        ("route.yaml", &route("api", "/")),
    ])?;
    let daemon = Daemon::start(&netns, policies.path())?;
    let open = |port: u16| netns.enter(|| Ok(get(&format!("http://127.0.0.1:{port}/")).is_ok()));
    assert!(open(8080)? && !open(8081)?);
    policies.write("gateway.yaml", &GATEWAY.replace("8080", "8081"))?;
    assert_eq!(daemon.reload(&netns)?, "ready\n");
    eventually("the listeners to move", || {
        Ok((!open(8080)? && open(8081)?).then_some(()))
    })?;
    Ok(())
}

#[test]
fn sigterm_finishes_what_is_in_flight() -> Result<()> {
    let netns = Netns::new("drain")?;
    let policies = Policies::new(&[
        ("gateway.yaml", GATEWAY),
        ("route.yaml", &route("api", "/")),
    ])?;
    let backend = netns.enter(|| Ok(TcpListener::bind(BACKEND)?))?;
    let daemon = Daemon::start(&netns, policies.path())?;
    let answer = thread::scope(|scope| {
        let client = scope.spawn(|| netns.enter(|| get("http://127.0.0.1:8080/slow")));
        let (mut upstream, _) = backend.accept()?;
        let mut head = [0; 4096];
        assert!(upstream.read(&mut head)? > 0);
        upstream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst")?;

        daemon.process.signal(Signal::TERM)?;
        let refused = || netns.enter(|| Ok(TcpStream::connect("127.0.0.1:8080").is_err()));
        eventually("the listener to close", || Ok(refused()?.then_some(())))?;
        upstream.write_all(b" last")?;
        client
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    assert_eq!(answer.text(), "first last");
    let mut process = daemon.process;
    assert_eq!(process.wait()?.code(), Some(0), "{}", process.output());
    Ok(())
}

#[test]
fn a_crash_leaves_the_kernel_enforcing_and_a_restart_adopts_it() -> Result<()> {
    let topology = Topology::new()?;
    let (gateway, client) = (&topology.gateway, &topology.first);
    let interface = client.gateway_interface.as_str();
    let pins = topology.pins();
    let policies = Policies::new(&[
        ("limiterd.yaml", &config(&[interface], &pins, "Keep")),
        ("gateway.yaml", GATEWAY),
        ("network.yaml", &network("edge", TWO_CONNECTIONS)),
    ])?;
    let dropped = |daemon: &Daemon| -> Result<f64> {
        Ok(daemon
            .metrics(gateway)?
            .packets("default/edge", "over_connections"))
    };

    let first = Daemon::start(gateway, policies.path())?;
    assert!(client.let_in(8080)? && client.let_in(8080)? && client.kept_out(8080)?);
    let before = dropped(&first)?;
    assert!(before >= 1.0);
    first.kill()?;
    assert!(
        attached(gateway, interface)?,
        "the program went with the daemon"
    );
    // Still silence, where the kernel alone would say RST: nobody listens.
    assert!(client.kept_out(8080)?);

    let second = Daemon::start(gateway, policies.path())?;
    assert!(
        second.process.output().contains("adopted"),
        "{}",
        second.process.output()
    );
    assert!(
        client.kept_out(8080)?,
        "the restart handed out a full bucket"
    );
    assert!(dropped(&second)? > before, "the restart lost the counters");
    // Keep: a clean exit leaves it enforced as well.
    assert!(second.stop()?.success());
    assert!(attached(gateway, interface)? && client.kept_out(8080)?);

    policies.write("limiterd.yaml", &config(&[interface], &pins, "Detach"))?;
    let third = Daemon::start(gateway, policies.path())?;
    assert!(third.stop()?.success());
    assert!(!attached(gateway, interface)? && !pins.exist());
    Ok(())
}

#[test]
fn an_interface_that_is_renamed_goes_or_comes_is_told() -> Result<()> {
    let topology = Topology::new()?;
    let (gateway, client) = (&topology.gateway, &topology.first);
    let interface = client.gateway_interface.as_str();
    let pins = topology.pins();
    let policies = Policies::new(&[
        ("limiterd.yaml", &config(&[interface], &pins, "Detach")),
        ("gateway.yaml", GATEWAY),
    ])?;
    let daemon = Daemon::start(gateway, policies.path())?;
    let told = |wanted: &str| {
        eventually("the change to be told", || {
            let report = gateway.enter(|| Ok(get("http://127.0.0.1:9901/ready")?.text()))?;
            Ok((report == wanted).then_some(()))
        })
    };
    told("ready\nxdp: gw1 native\n")?;
    for set in [
        ["gw1", "down"].as_slice(),
        &["gw1", "name", "wan1"],
        &["wan1", "up"],
    ] {
        gateway.ip(&[&["link", "set"], set].concat())?;
    }
    told("ready\nxdp: gw1 native, now called wan1\n")?;
    gateway.ip(&["link", "delete", "wan1"])?;
    told("ready\n")?;
    client.join(gateway)?;
    told("ready\nxdp: gw1 native\n")?;
    assert!(attached(gateway, interface)?);
    assert!(daemon.stop()?.success());
    Ok(())
}

/// Whether an XDP program is on `interface`.
fn attached(netns: &Netns, interface: &str) -> Result<bool> {
    let output = std::process::Command::new("ip")
        .args(["-n", netns.name(), "link", "show", interface])
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).contains("prog/xdp"))
}
