//! h2load: called, and its log read.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::cmd::search_path;

/// Connections, and questions at once on each.
pub(super) const CLIENTS: u32 = 8;
pub(super) const STREAMS: u32 = 8;

/// What became of a run.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) answers: usize,
    pub(super) per_second: f64,
    /// In the order of their length.
    times: Vec<u32>,
}

impl Load {
    /// Microseconds that so much of the answers took at most, 0 to 1.
    pub(super) fn percentile(&self, share: f64) -> f64 {
        let last = self.times.len().saturating_sub(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index of a share"
        )]
        let at = (last as f64 * share) as usize;
        self.times.get(at).copied().map_or(f64::NAN, f64::from)
    }
}

/// Asks `url` what is in the file `body` for `seconds`, on `cpu`. Every answer must have status 200.
pub(super) fn run(url: &str, body: &Path, cpu: usize, seconds: u32) -> Result<Load> {
    let log = body.with_extension("log");
    if log.exists() {
        fs::remove_file(&log)?;
    }
    let output = Command::new("taskset")
        .args(["-c", &cpu.to_string(), "h2load"])
        .arg(format!("-c{CLIENTS}"))
        .arg(format!("-m{STREAMS}"))
        .arg(format!("-D{seconds}"))
        .args(["-H", "content-type: application/grpc"])
        .args(["-H", "te: trailers", "-d"])
        .arg(body)
        .arg("--log-file")
        .arg(&log)
        .arg(url)
        .env("PATH", search_path())
        .output()
        .context("h2load cannot be run")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "h2load failed: {text}");
    let seconds = Duration::from_secs(u64::from(seconds));
    let load = read(&fs::read_to_string(&log)?, seconds).with_context(|| text.into_owned())?;
    fs::remove_file(&log)?;
    Ok(load)
}

/// Lines of when a request began, its status, and how long it took, in microseconds.
fn read(log: &str, within: Duration) -> Result<Load> {
    let mut times = Vec::new();
    for line in log.lines() {
        let mut fields = line.split('\t').skip(1);
        let (status, time) = (fields.next(), fields.next());
        ensure!(
            status == Some("200"),
            "an answer has not status 200: {line}"
        );
        let time = time.context("no time")?.trim().parse()?;
        times.push(time);
    }
    ensure!(!times.is_empty(), "there were no answers");
    times.sort_unstable();
    Ok(Load {
        answers: times.len(),
        per_second: times.len() as f64 / within.as_secs_f64(),
        times,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::read;

    #[test]
    fn a_log_is_read() {
        let log = "1\t200\t30\n2\t200\t10\n3\t200\t20\n";
        let load = read(log, Duration::from_secs(3)).unwrap();
        assert_eq!((load.answers, load.per_second.to_string()), (3, "1".into()));
        assert_eq!(load.percentile(0.5).to_string(), "20");
        assert_eq!(load.percentile(1.0).to_string(), "30");
        assert!(read("1\t503\t30\n", Duration::from_secs(3)).is_err());
        assert!(read("", Duration::from_secs(3)).is_err());
    }
}
