//! wrk: called, and its answer read.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::cmd::search_path;

pub(super) const CONNECTIONS: u32 = 64;

/// What wrk counted.
#[derive(Debug, PartialEq)]
pub(super) struct Run {
    pub(super) requests: u64,
    /// Answered with neither 2xx nor 3xx.
    pub(super) failed: u64,
    pub(super) per_second: f64,
}

/// Asks for `url` over and over for `seconds`, on `cpu`; what it asks for may come from a script.
pub(super) fn run(url: &str, cpu: usize, seconds: u32, script: Option<&Path>) -> Result<Run> {
    let mut command = Command::new("taskset");
    command
        .args(["-c", &cpu.to_string(), "wrk", "-t1"])
        .arg(format!("-c{CONNECTIONS}"))
        .arg(format!("-d{seconds}s"));
    if let Some(script) = script {
        command.arg("-s").arg(script);
    }
    let output = command
        .arg(url)
        .env("PATH", search_path())
        .output()
        .context("wrk cannot be run")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "wrk failed ({}): {text}{errors}",
        output.status
    );
    read(&text)
}

fn read(text: &str) -> Result<Run> {
    let (mut requests, mut failed, mut per_second) = (None, 0, None);
    for line in text.lines().map(str::trim) {
        if line.starts_with("Socket errors:") {
            bail!("wrk saw connections fail: {line}");
        } else if let Some(count) = line.strip_prefix("Non-2xx or 3xx responses:") {
            failed = count.trim().parse()?;
        } else if let Some(rate) = line.strip_prefix("Requests/sec:") {
            per_second = Some(rate.trim().parse()?);
        } else if let Some((count, _)) = line.split_once(" requests in ") {
            requests = Some(count.parse()?);
        }
    }
    let not_wrk = || format!("this is not what wrk prints: {text}");
    let requests = requests.with_context(not_wrk)?;
    let per_second = per_second.with_context(not_wrk)?;
    Ok(Run {
        requests,
        failed,
        per_second,
    })
}

#[cfg(test)]
mod tests {
    use super::{Run, read};

    const GOOD: &str = "\
Running 3s test @ http://127.0.0.1:1/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   701.34us  102.00us   3.14ms   91.11%
    Req/Sec    91.02k     2.60k   93.91k    80.00%
  271551 requests in 3.00s, 41.95MB read
Requests/sec:  90480.12
Transfer/sec:     13.98MB
";

    #[test]
    fn what_wrk_prints_is_read() {
        let run = read(GOOD).unwrap();
        assert_eq!(
            run,
            Run {
                requests: 271_551,
                failed: 0,
                per_second: 90_480.12
            }
        );
        let limited = GOOD.replace(
            "Requests/sec",
            "  Non-2xx or 3xx responses: 7\nRequests/sec",
        );
        assert_eq!(read(&limited).unwrap().failed, 7);
    }

    #[test]
    fn failing_connections_are_an_error() {
        let line = "  Socket errors: connect 0, read 3, write 0, timeout 0\n";
        assert!(read(&format!("{GOOD}{line}")).is_err());
        assert!(read("unable to connect to 127.0.0.1:1\n").is_err());
    }
}
