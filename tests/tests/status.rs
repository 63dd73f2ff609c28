//! `limiterd status`: what it says of a daemon in each state that can be made, and its exit status.

use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::daemon::{BACKEND, Daemon, Policies, demo_backend, eventually, limiterd};
use tests::netns::Netns;
use tests::policies::{GATEWAY, config, limited_host, network, treated_host};
use tests::raw::{Raw, tcp};
use tests::redis::{Redis, envoy_gateway};
use tests::scene::Scene;
use tests::topology::Topology;
use tests::upstream::response;

const TWO: &str = "local: {rules: [{limit: {requests: 2, unit: Hour}}]}";

/// What `limiterd status ARGS` exits with and writes.
fn run(netns: &Netns, args: &[&str]) -> Result<(i32, String)> {
    let args = [&["status"], args].concat();
    let output = netns.enter(|| limiterd(&args))?;
    let code = output.status.code().context("it was killed")?;
    Ok((code, String::from_utf8(output.stdout)?))
}

/// The document at once, without rates.
fn status(netns: &Netns) -> Result<Value> {
    let (code, text) = run(netns, &["--json", "--over", "0s"])?;
    let document: Value = serde_json::from_str(&text).with_context(|| text)?;
    ensure!(document["exit_status"] == code, "{code}: {document}");
    Ok(document)
}

/// Waits until the exit status and the codes of conditions are these.
fn until(netns: &Netns, exit_status: u8, codes: &[&str]) -> Result<Value> {
    let mut seen = Value::Null;
    let found = eventually("that status", || {
        seen = status(netns)?;
        let conditions = seen["conditions"].as_array().context("no conditions")?;
        let found: Vec<_> = conditions.iter().map(|one| one["code"].clone()).collect();
        let wanted = seen["exit_status"] == exit_status && json!(found) == json!(codes);
        Ok(wanted.then_some(()))
    });
    found.with_context(|| format!("{seen:#}"))?;
    Ok(seen)
}

#[test]
fn one_that_is_well_tells_what_it_does() -> Result<()> {
    let netns = Netns::new("well")?;
    let _backend = demo_backend(&netns)?;
    let files = [
        ("gateway.yaml", GATEWAY),
        ("api.yaml", &limited_host("api", TWO)),
    ];
    let scene = Scene::start(netns, &files)?;
    let seen = until(&scene.netns, 0, &[])?;
    assert_eq!(
        (&seen["state"], &seen["ready"]),
        (&json!("well"), &json!(true))
    );
    assert_eq!(seen["phase"], "serving");
    assert_eq!(seen["policy"]["generation"], 1);
    assert_eq!(seen["policy"]["last_read"]["trigger"], "start");
    let listeners = seen["listeners"].as_array().context("no listeners")?;
    let serves: Vec<_> = listeners.iter().map(|one| &one["serves"]).collect();
    assert_eq!(serves, ["http", "admin"]);
    assert_eq!(seen["kernel"], Value::Null);
    assert_eq!(seen["traffic"]["requests_per_second"], Value::Null);

    // While somebody is limited: that is told, and well.
    let stop = AtomicBool::new(false);
    let (code, text) = thread::scope(|scope| {
        let load = scope.spawn(|| -> Result<()> {
            while !stop.load(Ordering::Relaxed) {
                scene.statuses("api", &[], 5)?;
            }
            Ok(())
        });
        let told = run(&scene.netns, &[]);
        stop.store(true, Ordering::Relaxed);
        load.join()
            .map_err(|_panic| anyhow::anyhow!("the load panicked"))??;
        told
    })?;
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("well: limiterd "), "{text}");
    assert!(text.contains("/s by default/api/rule/0"), "{text}");
    assert!(text.lines().count() <= 24, "{text}");
    let wide = text.lines().find(|line| line.chars().count() > 80);
    assert_eq!(wide, None, "{text}");

    // Who cannot be asked, and what cannot be understood.
    let (code, text) = run(&scene.netns, &["--json", "--admin", "127.0.0.1:9"])?;
    let document: Value = serde_json::from_str(&text)?;
    assert_eq!((code, &document["state"]), (3, &json!("unknown")));
    let error = document["error"].as_str().context("no error")?;
    assert!(error.contains("is it running?"), "{error}");
    assert_eq!(run(&scene.netns, &["--no-such"])?.0, 3);
    assert_eq!(run(&scene.netns, &["--over", "1h"])?.0, 3);
    assert_eq!(run(&scene.netns, &["--fleet"])?.0, 3);
    assert_eq!(run(&scene.netns, &["--help"])?.0, 0);
    Ok(())
}

#[test]
fn policy_files_that_are_not_valid_or_wait_for_a_restart() -> Result<()> {
    let netns = Netns::new("files")?;
    let limits = limited_host("api", TWO);
    let files = [("gateway.yaml", GATEWAY), ("api.yaml", limits.as_str())];
    let scene = Scene::start(netns, &files)?;
    until(&scene.netns, 0, &[])?;
    let wrong = limits.replace("requests: 2", "requets: 2");
    scene.policies.write("api.yaml", &wrong)?;
    let seen = until(&scene.netns, 1, &["policy_errors"])?;
    let last = &seen["policy"]["last_read"];
    assert_eq!(last["kept"], json!(["BackendTrafficPolicy default/api"]));
    assert_eq!(last["findings"][0]["severity"], "error");
    let (_, text) = run(&scene.netns, &["--over", "0s"])?;
    assert!(text.starts_with("degraded: limiterd "), "{text}");
    assert!(text.contains("\n  > limiterd check "), "{text}");

    let waits = "apiVersion: limiterd.io/v1alpha1\nkind: LimiterConfig\nmetadata: {name: l}\nspec: {http: {drainTimeout: 3s}}\n";
    scene.policies.write("limiterd.yaml", waits)?;
    scene.policies.write("api.yaml", &limits)?;
    until(&scene.netns, 1, &["restart_pending"])?;
    fs::remove_file(scene.policies.path().join("limiterd.yaml"))?;
    let seen = until(&scene.netns, 0, &[])?;
    assert!(seen["policy"]["generation"].as_u64() >= Some(3), "{seen:#}");
    // An address that somebody else has.
    let _taken = scene.netns.enter(|| Ok(TcpListener::bind("[::]:8090")?))?;
    let elsewhere = GATEWAY.replace("port: 8080", "port: 8090");
    scene.policies.write("gateway.yaml", &elsewhere)?;
    let seen = until(&scene.netns, 1, &["policy_rejected"])?;
    assert_eq!(seen["policy"]["last_read"]["applied"], false);
    assert_eq!(seen["listeners"][0]["address"], "[::]:8080");
    scene.policies.write("gateway.yaml", GATEWAY)?;
    until(&scene.netns, 0, &[])?;
    Ok(())
}

#[test]
fn a_store_that_is_gone() -> Result<()> {
    let redis_netns = Netns::new("redis")?;
    let mut redis = Redis::start(&redis_netns)?;
    let netns = Netns::new("store")?;
    let store = envoy_gateway(&redis.url(), "timeout: 20ms");
    let files = [("gateway.yaml", GATEWAY), ("store.yaml", store.as_str())];
    let scene = Scene::start(netns, &files)?;
    let seen = until(&scene.netns, 0, &[])?;
    assert_eq!(seen["stores"][0]["state"], "asked");
    assert_eq!(seen["fleet"]["nodes"], 1);
    redis.kill()?;
    until(&scene.netns, 1, &["store_away", "fleet_away"])?;
    assert_eq!(run(&scene.netns, &["--fleet"])?.0, 1);
    redis.begin(&redis_netns)?;
    until(&scene.netns, 0, &[])?;
    assert_eq!(run(&scene.netns, &["--fleet"])?.0, 0);
    Ok(())
}

#[test]
fn a_breaker_that_is_open_and_endpoints_that_are_out() -> Result<()> {
    let netns = Netns::new("backends")?;
    let backend = netns.enter(|| Ok(TcpListener::bind(BACKEND)?))?;
    let narrow = treated_host(
        "narrow",
        &[3000],
        "  circuitBreaker: {maxParallelRequests: 1}\n",
    );
    // Nobody is at the second port.
    let check =
        "  healthCheck: {active: {interval: 100ms, unhealthyThreshold: 1, type: TCP, tcp: {}}}\n";
    let half = treated_host("half", &[3000, 3001], check);
    let files = [("gateway.yaml", GATEWAY), ("narrow.yaml", narrow.as_str())];
    let scene = Scene::start(netns, &files)?;
    until(&scene.netns, 0, &[])?;
    let mut client = Raw::on(tcp(&scene.netns, "127.0.0.1:8080")?);
    client.send("GET / HTTP/1.1\r\nhost: narrow.test\r\n\r\n")?;
    let (mut busy, _) = backend.accept()?;
    assert!(busy.read(&mut [0; 1024])? > 0);
    let seen = until(&scene.netns, 1, &["breaker_open"])?;
    let backends = seen["backends"].as_array().context("no backends")?;
    let open: Vec<_> = backends
        .iter()
        .filter(|one| one["open"] != json!([]))
        .collect();
    assert_eq!(open.len(), 1, "{seen:#}");
    assert_eq!(open[0]["backend"], "default/narrow");
    assert_eq!(open[0]["open"], json!(["requests"]));
    std::io::Write::write_all(&mut busy, response("200 OK", "", "late").as_bytes())?;
    assert_eq!(client.answer()?.2, "late");
    until(&scene.netns, 0, &[])?;

    scene.policies.write("half.yaml", &half)?;
    until(&scene.netns, 1, &["endpoints_out"])?;
    fs::remove_file(scene.policies.path().join("half.yaml"))?;
    until(&scene.netns, 0, &[])?;
    Ok(())
}

#[test]
fn one_that_takes_its_leave_is_not_ready() -> Result<()> {
    let netns = Netns::new("leave")?;
    let delay = "apiVersion: limiterd.io/v1alpha1\nkind: LimiterConfig\nmetadata: {name: l}\nspec: {http: {drainDelay: 1h}}\n";
    let files = [("gateway.yaml", GATEWAY), ("limiterd.yaml", delay)];
    let scene = Scene::start(netns, &files)?;
    until(&scene.netns, 0, &[])?;
    scene.daemon.process.signal(Signal::TERM)?;
    let seen = until(&scene.netns, 2, &["draining"])?;
    assert_eq!(seen["state"], "not_ready");
    Ok(())
}

#[test]
fn an_interface_that_is_gone_and_comes_back() -> Result<()> {
    let topology = Topology::new()?;
    let pins = topology.pins();
    let interface = topology.first.gateway_interface.clone();
    let policies = Policies::new(&[
        ("limiterd.yaml", &config(&[&interface], &pins, "Detach")),
        ("gateway.yaml", GATEWAY),
        (
            "network.yaml",
            &network("edge", "  connections: {maxTokens: 9, tokensPerFill: 1}\n"),
        ),
    ])?;
    let netns = &topology.gateway;
    let _daemon = Daemon::start(netns, policies.path())?;
    let seen = until(netns, 0, &[])?;
    assert_eq!(seen["kernel"]["interfaces"][0]["name"], interface.as_str());
    assert!(seen["kernel"]["interfaces"][0]["mode"].is_string());
    let link = |args: &[&str]| {
        let ran = netns.enter(|| Ok(Command::new("ip").arg("link").args(args).output()?))?;
        ensure!(ran.status.success(), "{ran:?}");
        Ok(())
    };
    link(&["del", &interface])?;
    until(netns, 1, &["interface_not_attached"])?;
    link(&["add", &interface, "type", "veth", "peer", "name", "other"])?;
    link(&["set", &interface, "up"])?;
    until(netns, 0, &[])?;
    Ok(())
}
