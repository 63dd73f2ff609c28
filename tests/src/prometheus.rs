//! A real Prometheus that scrapes a daemon, and promtool.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tempfile::TempDir;

use crate::daemon::{ADMIN, Process, eventually};
use crate::http_client::get;
use crate::netns::Netns;

/// Where it listens.
const ADDRESS: &str = "127.0.0.1:9090";

/// A Prometheus that scrapes the daemon of its namespace four times a second; it ends when dropped.
#[derive(Debug)]
pub struct Prometheus {
    pub process: Process,
    _dir: TempDir,
}

/// Of the folder `PROMETHEUS`, or of the one that `cargo xtask setup` puts under the target directory.
fn program(name: &str) -> Result<PathBuf> {
    let installed = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/prometheus/usr/bin");
    let folder =
        std::env::var_os("PROMETHEUS").map_or_else(|| PathBuf::from(installed), PathBuf::from);
    let program = folder.join(name);
    ensure!(
        program.is_file(),
        "there is no {}: `cargo xtask setup` gets it, or set PROMETHEUS to a folder with it",
        program.display()
    );
    Ok(program)
}

/// Runs promtool with `input` on its standard input.
///
/// # Errors
/// When there is none.
pub fn promtool(args: &[&str], input: &str) -> Result<Output> {
    let mut child = Command::new(program("promtool")?)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("it has no input")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    Ok(child.wait_with_output()?)
}

impl Prometheus {
    /// Starts one in `netns` with this file of rules, and waits until it is ready.
    ///
    /// # Errors
    /// When there is none, or with its output, when it does not come up.
    pub fn start(netns: &Netns, rules: &Path) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let config = dir.path().join("prometheus.yml");
        let mut text =
            String::from("global: {scrape_interval: 250ms, evaluation_interval: 250ms}\n");
        let _infallible = writeln!(text, "rule_files: [{}]", rules.display());
        let _infallible = writeln!(
            text,
            "scrape_configs: [{{job_name: limiterd, static_configs: [{{targets: ['{ADMIN}']}}]}}]"
        );
        std::fs::write(&config, text)?;
        let mut command = Command::new(program("prometheus")?);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={ADDRESS}"));
        let process = Process::spawn(netns, command)?;
        let ready = netns.enter(|| {
            eventually("Prometheus to be ready", || {
                let answer = get(&format!("http://{ADDRESS}/-/ready")).ok();
                Ok(answer.filter(|answer| answer.status == 200).map(drop))
            })
        });
        ready.with_context(|| process.output())?;
        Ok(Self { process, _dir: dir })
    }

    /// What the API says at `path` (under `/api/v1/`): its `data`.
    ///
    /// # Errors
    /// When it does not say that it succeeded.
    pub fn api(&self, netns: &Netns, path: &str) -> Result<Value> {
        let answer = netns.enter(|| get(&format!("http://{ADDRESS}/api/v1/{path}")))?;
        let mut said: Value = serde_json::from_slice(&answer.body)
            .with_context(|| format!("{path}: {}", answer.text()))?;
        ensure!(said["status"] == "success", "{path}: {said}");
        Ok(said["data"].take())
    }

    /// The samples of an expression now.
    ///
    /// # Errors
    /// When it is none.
    pub fn query(&self, netns: &Netns, expression: &str) -> Result<Vec<Value>> {
        let expression = utf8_percent_encode(expression, NON_ALPHANUMERIC);
        let data = self.api(netns, &format!("query?query={expression}"))?;
        let result = data["result"].as_array().cloned();
        result.with_context(|| format!("no list: {data}"))
    }
}
