//! `limiterd simulate` on the access log of a daemon that ran: it decides as the daemon did.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::daemon::{Daemon, Policies, demo_backend, eventually, limiterd};
use tests::http_client::gets;
use tests::netns::Netns;
use tests::policies::{GATEWAY, route, traffic};

/// A limit of each user, one of each client on a path, and one of all on another method's path. By the
/// hour: what comes back while the test runs is less than a token.
const LIMITS: &str =
    "      - clientSelectors: [{headers: [{name: x-user-id, type: Distinct}]}]
        limit: {requests: 3, unit: Hour}
      - clientSelectors: [{path: {type: PathPrefix, value: /api/slow}, sourceCIDR: {value: 0.0.0.0/0, type: Distinct}}]
        limit: {requests: 4, unit: Hour}
      - clientSelectors: [{queryParams: [{name: key, type: Distinct}]}]
        limit: {requests: 2, unit: Hour}\n";

fn policies(format: &str, path: &Path, limits: &str) -> Result<Policies> {
    let config = format!(
        "apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: {{name: limiterd}}
spec:
  accessLog: {{format: {format}, path: {}}}
",
        path.display()
    );
    Policies::new(&[
        ("limiterd.yaml", &config),
        ("gateway.yaml", GATEWAY),
        ("route.yaml", &route("api", "/api")),
        ("limits.yaml", &traffic("p", ("HTTPRoute", "api"), limits)),
    ])
}

/// Requests that meet each limit, several limits at once, none, and no route.
fn requests() -> Vec<(&'static str, Option<&'static str>)> {
    let mut requests = Vec::new();
    for round in 0..4 {
        for user in ["alice", "b,ob=\"1\"", "carol"] {
            requests.push(("/api/a", Some(user)));
        }
        requests.extend([
            ("/api/slow", None),
            ("/api//slow/x?key=1", None),
            ("/api/./b?key=2", Some("dave")),
            ("/api/free", None),
            ("/none", None),
        ]);
        if round % 2 == 1 {
            requests.push(("/api/slow", Some("erin")));
        }
    }
    requests
}

/// Lets a daemon decide them and write its log; the statuses that it answered with.
fn live(netns: &Netns, policies: &Policies, log: &Path) -> Result<Vec<u16>> {
    let _backend = demo_backend(netns)?;
    let daemon = Daemon::start(netns, policies.path())?;
    let mut statuses = Vec::new();
    for (path, user) in requests() {
        let url = format!("http://127.0.0.1:8080{path}");
        let headers: Vec<_> = user.map(|user| ("x-user-id", user)).into_iter().collect();
        let answers = netns.enter(|| gets(&url, &headers, 1))?;
        statuses.push(answers.first().context("an answer")?.status.as_u16());
        // One line after the other: two in one millisecond have only this order.
        eventually("the line", || {
            let text = fs::read_to_string(log).unwrap_or_default();
            Ok((text.lines().count() == statuses.len()).then_some(()))
        })?;
    }
    ensure!(daemon.stop()?.success());
    Ok(statuses)
}

fn simulate(args: &[&str]) -> Result<Value> {
    let output = limiterd(&[&["simulate", "--json"], args].concat())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).context(said)
}

#[test]
fn a_daemons_own_log_gives_its_decisions() -> Result<()> {
    for format in ["Json", "Text"] {
        let netns = Netns::new("simulate")?;
        let place = tempfile::tempdir()?;
        let log = place.path().join("access.log");
        let log_name = log.to_str().context("not UTF-8")?;
        let strict = policies(format, &log, LIMITS)?;
        let statuses = live(&netns, &strict, &log)?;
        let of = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
        ensure!(of(429) > 5 && of(200) > 10, "{statuses:?}");

        let dir = strict.path().to_str().context("not UTF-8")?;
        let report = simulate(&["--policy", dir, log_name])?;
        let logged = &report["logged"];
        assert_eq!(logged["requests"], statuses.len(), "{report:#}");
        assert_eq!(logged["same"], statuses.len(), "{logged}");
        let found = &report["policy"];
        assert_eq!(found["limited"], of(429));
        assert_eq!(found["no_route"], of(404));
        assert_eq!(found["admitted"], of(200));

        // What another policy would have done, and the page.
        let loose = policies(format, &log, &LIMITS.replace("requests: 3", "requests: 4"))?;
        let page = place.path().join("report.html");
        let report = simulate(&[
            "--policy",
            dir,
            "--against",
            loose.path().to_str().context("not UTF-8")?,
            "--html",
            page.to_str().context("not UTF-8")?,
            log_name,
        ])?;
        let only = &report["comparison"]["only_policy"]["requests"];
        assert!(only.as_u64().context("a number")? >= 3, "{report:#}");
        let page = fs::read_to_string(page)?;
        assert!(page.contains("<svg") && page.contains("default/p/rule/0"));
    }
    Ok(())
}

/// `examples/access.log`, as its document tells it.
#[test]
fn the_example_is_as_its_document_says() -> Result<()> {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    let policy = |name: &str| format!("{examples}/envoy-gateway/{name}");
    let [per_user, simple] = [policy("per-user"), policy("simple")];
    let log = format!("{examples}/access.log");
    let report = simulate(&["--policy", &per_user, "--against", &simple, &log])?;
    let found = &report["policy"];
    assert_eq!(found["requests"], 96);
    assert_eq!(found["limited"], 17);
    assert_eq!(found["buckets"]["most"][0]["bucket"], "x-user-id=alice");
    assert_eq!(found["clients"]["most"][0]["client"], "192.0.2.10");
    assert_eq!(report["against"]["limited"], 0);
    assert_eq!(report["comparison"]["only_policy"]["requests"], 17);
    assert_eq!(report["notes"], serde_json::json!([]));
    Ok(())
}

#[test]
fn what_cannot_be_replayed_is_said() -> Result<()> {
    let place = tempfile::tempdir()?;
    let log = place.path().join("access.log");
    let policies = policies("Json", &log, LIMITS)?;
    let dir = policies.path().to_str().context("not UTF-8")?;
    let none = limiterd(&["simulate", "--policy", dir, "/nowhere/access.log"])?;
    assert!(!none.status.success());
    let said = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(said.contains("cannot open /nowhere/access.log"), "{said}");
    fs::write(&log, "nonsense\n")?;
    let text = limiterd(&[
        "simulate",
        "--policy",
        dir,
        log.to_str().context("not UTF-8")?,
    ])?;
    assert!(text.status.success());
    let said = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(said.contains("1 lines could not be read"), "{said}");
    assert!(
        said.contains("access.log:1: it is in none of the formats"),
        "{said}"
    );
    Ok(())
}
