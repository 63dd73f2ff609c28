//! A real Envoy.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::NamedTempFile;

use crate::daemon::{Process, eventually};
use crate::http_client::get;
use crate::netns::Netns;

/// Where its admin listener is.
pub const ADMIN: &str = "127.0.0.1:9902";

/// A running Envoy; it ends when dropped.
#[derive(Debug)]
pub struct Envoy {
    pub process: Process,
    _config: NamedTempFile,
}

/// `ENVOY`, or the one that `cargo xtask setup` puts under the target directory.
fn binary() -> PathBuf {
    let installed = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../target/envoy/envoy/_bin/envoy"
    );
    std::env::var_os("ENVOY").map_or_else(|| PathBuf::from(installed), PathBuf::from)
}

/// Has Envoy check a configuration.
///
/// # Errors
/// With Envoy's own words, when it does not take it.
pub fn validate(config: &str) -> Result<()> {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    std::fs::write(file.path(), config)?;
    let output = Command::new(binary())
        .args(["--mode", "validate", "--log-level", "warning", "-c"])
        .arg(file.path())
        .output()
        .context("Envoy cannot be run: `cargo xtask setup` gets it, or set ENVOY")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    Ok(())
}

impl Envoy {
    /// Starts it in `netns` and waits until it is live. The admin listener is added to `config`.
    ///
    /// # Errors
    /// When there is none, or with its output, when it does not come up.
    pub fn start(netns: &Netns, config: &str) -> Result<Self> {
        let binary = binary();
        ensure!(
            binary.is_file(),
            "there is no Envoy at {}: `cargo xtask setup` gets it, or set ENVOY",
            binary.display()
        );
        let (host, port) = ADMIN.split_once(':').unwrap_or_default();
        let admin = format!(
            "admin: {{address: {{socket_address: {{address: {host}, port_value: {port}}}}}}}\n"
        );
        let file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
        std::fs::write(file.path(), admin + config)?;
        let mut command = Command::new(binary);
        command
            .args(["--disable-hot-restart", "--concurrency", "1"])
            .args(["--log-level", "warning", "-c"])
            .arg(file.path());
        let process = Process::spawn(netns, command)?;
        netns.enter(|| {
            eventually("Envoy to be live", || {
                let answer = get(&format!("http://{ADMIN}/ready")).ok();
                Ok(answer.filter(|answer| answer.status == 200))
            })
        })?;
        Ok(Self {
            process,
            _config: file,
        })
    }
}

/// A cluster of an Envoy's configuration, with one endpoint at `port` of the loopback address.
#[must_use]
pub fn cluster(name: &str, port: u16, http2: bool) -> String {
    let protocol = if http2 {
        "
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}"
    } else {
        ""
    };
    format!(
        "
  - name: {name}
    type: STATIC{protocol}
    load_assignment:
      cluster_name: {name}
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]"
    )
}
