//! The access log of a running daemon: what is in it, and that it follows a rotation.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use serde_json::Value;
use tests::daemon::{Daemon, Policies, demo_backend, eventually};
use tests::http_client::gets;
use tests::netns::Netns;
use tests::policies::{GATEWAY, route, traffic};

const URL: &str = "http://127.0.0.1:8080/api/%22x%22?q=1";
const THREE_A_USER: &str =
    "      - clientSelectors: [{headers: [{name: x-user-id, type: Distinct}]}]
        limit: {requests: 3, unit: Hour}\n";

fn policies(access_log: &str) -> Result<Policies> {
    let config = format!(
        "apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: {{name: limiterd}}
spec:
  accessLog: {access_log}
"
    );
    Policies::new(&[
        ("limiterd.yaml", &config),
        ("gateway.yaml", GATEWAY),
        ("route.yaml", &route("api", "/api")),
        (
            "limits.yaml",
            &traffic("p", ("HTTPRoute", "api"), THREE_A_USER),
        ),
    ])
}

/// The lines of a file once there are so many of them.
fn lines(path: &Path, count: usize) -> Result<Vec<String>> {
    eventually("the lines to be written", || {
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        Ok((lines.len() >= count).then_some(lines))
    })
}

#[test]
fn a_request_leaves_a_line_with_the_decision() -> Result<()> {
    let netns = Netns::new("log")?;
    let _backend = demo_backend(&netns)?;
    let place = tempfile::tempdir()?;
    let [path, old] = ["access.log", "access.log.1"].map(|name| place.path().join(name));
    let policies = policies(&format!("{{format: Json, path: {}}}", path.display()))?;
    let daemon = Daemon::start(&netns, policies.path())?;
    let headers = [("x-user-id", "alice\"\t"), ("user-agent", "a\u{1b}[2J")];
    let ask = |url: &str, headers: &[(&str, &str)]| netns.enter(|| gets(url, headers, 1));
    assert!(ask(URL, &headers).is_err(), "no header has an escape in it");
    let headers = [("x-user-id", "alice\""), ("user-agent", "a\"b")];
    for status in [200, 200, 200, 429] {
        assert_eq!(ask(URL, &headers)?[0].status, status);
    }
    assert_eq!(ask("http://127.0.0.1:8080/none", &[])?[0].status, 404);

    let read: Vec<Value> = lines(&path, 5)?
        .iter()
        .map(|line| serde_json::from_str(line))
        .collect::<Result<_, _>>()?;
    assert_eq!(read.len(), 5);
    for (line, left) in read[..3].iter().zip([2, 1, 0]) {
        assert_eq!(line["method"], "GET");
        assert_eq!(line["x-envoy-origin-path"], "/api/%22x%22?q=1");
        assert_eq!(line["response_code"], 200);
        assert_eq!(line["response_flags"], "-", "{line}");
        assert_eq!(line["user-agent"], "a\"b");
        assert_eq!(line["client"], "127.0.0.1");
        assert_eq!(line["upstream_cluster"], "default/demo");
        assert_eq!(line["upstream_host"], "127.0.0.1:3000");
        assert_eq!(line["route_name"], "default/api/rule/0");
        assert_eq!(line["rate_limit"]["decision"], "ok");
        assert_eq!(line["rate_limit"]["rule"], "default/p/rule/0");
        assert_eq!(line["rate_limit"]["descriptor"], "x-user-id=alice\\\"");
        assert_eq!(line["rate_limit"]["remaining"], left, "{line}");
        assert!(line["bytes_sent"].as_u64().context("a number")? > 0);
    }
    assert_eq!(read[3]["response_code"], 429);
    assert_eq!(read[3]["response_flags"], "RL");
    assert_eq!(read[3]["rate_limit"]["decision"], "over_limit");
    assert_eq!(read[3]["upstream_host"], Value::Null);
    assert_eq!(read[4]["response_code"], 404);
    assert_eq!(read[4]["response_flags"], "NR");
    assert_eq!(read[4]["rate_limit"], Value::Null);

    // Rotation: the file is moved away, and SIGHUP makes a new one.
    fs::rename(&path, &old)?;
    daemon.reload(&netns)?;
    daemon.process.signal(Signal::HUP)?;
    ask("http://127.0.0.1:8080/none", &[])?;
    lines(&path, 1)?;
    assert_eq!(lines(&old, 5)?.len(), 5);
    let page = daemon.metrics(&netns)?;
    let counted = |result| page.sum("limiterd_access_log_lines_total", &[("result", result)]);
    assert_eq!([counted("written"), counted("lost")], [6.0, 0.0]);
    assert!(daemon.stop()?.success());
    Ok(())
}

#[test]
fn text_goes_to_standard_output() -> Result<()> {
    let netns = Netns::new("logtext")?;
    let _backend = demo_backend(&netns)?;
    let policies = policies("{format: Text, path: /dev/stdout}")?;
    let daemon = Daemon::start(&netns, policies.path())?;
    netns.enter(|| gets(URL, &[("x-user-id", "bob")], 1))?;
    let line = eventually("the line", || {
        let output = daemon.process.output();
        Ok(output
            .lines()
            .find(|line| line.contains("\"GET /api/"))
            .map(str::to_owned))
    })?;
    assert!(
        line.contains("\"GET /api/%22x%22?q=1 HTTP/1.1\" 200 - 0 "),
        "{line}"
    );
    assert!(
        line.ends_with(" ok default/p/rule/0 \"x-user-id=bob\" 2"),
        "{line}"
    );
    Ok(())
}

#[test]
fn a_log_that_cannot_be_opened_is_said_at_the_start() -> Result<()> {
    let netns = Netns::new("nolog")?;
    let policies = policies("{path: /nowhere/access.log}")?;
    let error = Daemon::start(&netns, policies.path())
        .err()
        .context("it started")?;
    let text = format!("{error:#}");
    assert!(text.contains("cannot open the access log"), "{text}");
    assert!(text.contains("spec.accessLog.path"), "{text}");
    Ok(())
}
