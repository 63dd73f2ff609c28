//! Lines that a client can cause: few are logged, and the rest is counted.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result};
use regex::Regex;
use tests::daemon::{Daemon, Policies, eventually};
use tests::netns::Netns;
use tests::tls::Authority;

const FAILURES: u64 = 500;
const LINES_PER_SECOND: u64 = 3;

fn config(log: &str) -> String {
    format!(
        "apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: {{name: limiterd}}
spec: {{log: {log}}}\n"
    )
}

const GATEWAY: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: eg}
spec:
  gatewayClassName: limiterd
  listeners:
  - {name: https, protocol: HTTPS, port: 8443, tls: {certificateRefs: [{name: cert}]}}
";

/// Fails to shake hands, and sees the connection closed for it.
fn fail() -> Result<()> {
    let mut stream = TcpStream::connect("127.0.0.1:8443")?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let mut rest = Vec::new();
    // It may be closed by a reset: what was sent was not read to its end.
    let _closed = stream.read_to_end(&mut rest);
    Ok(())
}

#[test]
fn a_flood_of_failed_handshakes_leaves_few_lines_and_a_count_that_adds_up() -> Result<()> {
    let netns = Netns::new("logflood")?;
    let secret = Authority::new()?.secret("cert", "a.test")?;
    let log = format!("{{level: Debug, format: Json, linesPerSecond: {LINES_PER_SECOND}}}");
    let policies = Policies::new(&[
        ("limiterd.yaml", &config(&log)),
        ("gateway.yaml", GATEWAY),
        ("secret.yaml", &secret),
    ])?;
    let daemon = Daemon::start(&netns, policies.path())?;
    netns.enter(|| (0..FAILURES).try_for_each(|_| fail()))?;
    let reason = [("reason", "tls_handshake")];
    eventually("the connections to be closed", || {
        let page = daemon.metrics(&netns)?;
        let closed = page.sum("limiterd_downstream_cx_closed_total", &reason);
        Ok((closed >= FAILURES as f64).then_some(()))
    })?;

    // Every second, and at the latest at the end, it is said how many were left out.
    let module = "limiter_daemon::l7::arrival";
    let counted = daemon.metrics(&netns)?;
    let counted = counted.sum("limiterd_log_lines_left_out_total", &[("module", module)]);
    daemon.process.signal(rustix::process::Signal::TERM)?;
    let mut process = daemon.process;
    assert!(process.wait()?.success());
    let output = process.output();
    let (mut logged, mut told, mut tellings) = (0, 0, 0);
    let mut seconds = std::collections::BTreeSet::new();
    for line in output.lines() {
        let line: serde_json::Value =
            serde_json::from_str(line).with_context(|| line.to_owned())?;
        let fields = &line["fields"];
        if fields["message"] == "TLS handshake failed" {
            logged += 1;
            seconds.insert(line["timestamp"].as_str().context("a time")?[..19].to_owned());
        } else if fields["from"] == module {
            tellings += 1;
            told += fields["left_out"].as_u64().context("a number")?;
        }
    }
    assert_eq!(logged + told, FAILURES, "{output}");
    assert_eq!(counted, told as f64);
    assert!(told > 0 && tellings > 0, "{output}");
    // A bucket for the burst, and what came back over the seconds that it took.
    let most = LINES_PER_SECOND * (seconds.len() as u64 + 1);
    assert!(
        logged <= most,
        "{logged} lines in {} seconds",
        seconds.len()
    );
    Ok(())
}

#[test]
fn level_and_format_follow_the_configuration_and_the_environment_comes_first() -> Result<()> {
    let netns = Netns::new("loglevel")?;
    let policies = Policies::new(&[("limiterd.yaml", &config("{level: Warn}"))])?;
    let daemon = Daemon::start(&netns, policies.path())?;
    assert!(
        !daemon.process.output().contains(" ready"),
        "{}",
        daemon.process.output()
    );
    policies.write("limiterd.yaml", &config("{level: Info, format: Json}"))?;
    daemon.reload(&netns)?;
    let line = eventually("the line", || {
        let output = daemon.process.output();
        let line = output.lines().find(|line| line.contains("policy reloaded"));
        Ok(line.map(str::to_owned))
    })?;
    let line: serde_json::Value = serde_json::from_str(&line)?;
    assert_eq!(line["level"], "INFO");
    assert!(
        !daemon
            .process
            .output()
            .contains("take effect at the next start")
    );
    assert!(daemon.stop()?.success());

    let mut limiterd = std::process::Command::new(tests::daemon::binary());
    limiterd
        .env("LIMITERD_LOG", "debug")
        .args(["--log-format", "text"]);
    policies.write("limiterd.yaml", &config("{level: Error, format: Json}"))?;
    let daemon = Daemon::start_by(&netns, policies.path(), limiterd)?;
    let ready = Regex::new(r"(?m)^\S+ +INFO limiter_daemon::app: ready ")?;
    let output = daemon.process.output();
    assert!(ready.is_match(&output), "{output}");
    assert!(daemon.stop()?.success());
    Ok(())
}
