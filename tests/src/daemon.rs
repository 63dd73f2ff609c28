//! Running `limiterd` and its demo backend.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::{NamedTempFile, TempDir};

use crate::http_client::get;
use crate::netns::Netns;

/// Where the daemon's admin listener is unless a policy says otherwise.
pub const ADMIN: &str = "127.0.0.1:9901";
/// Where the demo backend listens.
pub const BACKEND: &str = "127.0.0.1:3000";

const POLL: Duration = Duration::from_millis(20);
/// For what takes milliseconds on an idle machine; these machines are not idle.
const PATIENCE: Duration = Duration::from_secs(30);

/// The binary under test: `LIMITERD_BIN`, else the one built beside the tests, built now.
///
/// # Panics
/// When it cannot be built.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("LIMITERD_BIN") {
        Some(path) => PathBuf::from(path),
        None => build().expect("limiterd builds"),
    })
}

fn build() -> Result<PathBuf> {
    let output = Command::new(env!("CARGO"))
        .args([
            "build",
            "--package",
            "limiter-daemon",
            "--bin",
            "limiterd",
            "--message-format",
            "json",
        ])
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let path = text
        .rsplit("\"executable\":\"")
        .next()
        .and_then(|rest| rest.split('"').next());
    match path {
        Some(path) if output.status.success() => Ok(PathBuf::from(path)),
        _ => bail!("cargo build failed"),
    }
}

/// A directory of policy files that can change while the daemon runs.
#[derive(Debug)]
pub struct Policies(TempDir);

impl Policies {
    /// # Errors
    /// When the files cannot be written.
    pub fn new(files: &[(&str, &str)]) -> Result<Self> {
        let policies = Self(tempfile::tempdir()?);
        for (name, text) in files {
            policies.write(name, text)?;
        }
        Ok(policies)
    }

    /// Puts a file in place as a whole: the daemon, which may look at any time, sees no half of it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let next = self.0.path().join(format!(".{name}.next"));
        std::fs::write(&next, text)?;
        Ok(std::fs::rename(next, self.0.path().join(name))?)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// A child process that is killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: NamedTempFile,
}

impl Process {
    /// Starts `limiterd` with `args` in `netns`, its output in a file.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(netns: &Netns, args: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary());
        command.args(args);
        Self::spawn(netns, command)
    }

    /// Starts `command` in `netns`, its output in a file.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(netns: &Netns, mut command: Command) -> Result<Self> {
        let log = NamedTempFile::new()?;
        let [out, err]: [OwnedFd; 2] = [
            log.as_file().try_clone()?.into(),
            log.as_file().try_clone()?.into(),
        ];
        let child = netns.enter(|| {
            command.stdin(Stdio::null()).stdout(out).stderr(err);
            command
                .spawn()
                .with_context(|| format!("cannot start {command:?}"))
        })?;
        Ok(Self { child, log })
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far.
    pub fn output(&self) -> String {
        match std::fs::read(self.log.path()) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => format!("its output cannot be read: {error}"),
        }
    }

    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let status = eventually("the process to end", || Ok(self.child.try_wait()?));
        status.with_context(|| self.output())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already, mostly; the result says only that.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ended = self.child.kill();
            let _reaped = self.child.wait();
        }
        if thread::panicking() {
            eprintln!("--- output of the process\n{}", self.output());
        }
    }
}

/// `limiterd run`, ready.
#[derive(Debug)]
pub struct Daemon {
    pub process: Process,
}

impl Daemon {
    /// Starts the daemon in `netns` on the files of `dir` and waits until it is ready.
    ///
    /// # Errors
    /// With its output, when it does not become ready.
    pub fn start(netns: &Netns, dir: &Path) -> Result<Self> {
        Self::start_by(netns, dir, Command::new(binary()))
    }

    /// As [`Daemon::start`], by `limiterd`, a command that takes its arguments.
    ///
    /// # Errors
    /// As there.
    pub fn start_by(netns: &Netns, dir: &Path, mut limiterd: Command) -> Result<Self> {
        limiterd.args(["run", "--config"]).arg(dir);
        Self::ready(netns, Process::spawn(netns, limiterd)?)
    }

    /// Waits until `limiterd run`, just started in `netns`, is ready.
    ///
    /// # Errors
    /// With its output, when it does not become ready.
    pub fn ready(netns: &Netns, mut process: Process) -> Result<Self> {
        netns.enter(|| {
            eventually("the daemon to be ready", || {
                if let Some(status) = process.child.try_wait()? {
                    bail!("the daemon ended with {status}:\n{}", process.output());
                }
                Ok(ready()?.filter(|(status, _)| *status == 200))
            })
            .map(drop)
        })?;
        Ok(Self { process })
    }

    /// Sends SIGHUP and waits until the reload is over; the report of `/ready` after it.
    ///
    /// # Errors
    /// When no reload is seen.
    pub fn reload(&self, netns: &Netns) -> Result<String> {
        let reloads = |text: String| -> f64 {
            crate::metrics::parse(&text).sum("limiterd_policy_reloads_total", &[])
        };
        netns.enter(|| {
            let before = reloads(metrics_page()?);
            self.process.signal(Signal::HUP)?;
            eventually("the reload", || {
                Ok((reloads(metrics_page()?) > before).then_some(()))
            })?;
            Ok(ready()?.context("the daemon does not answer")?.1)
        })
    }

    /// What `/config` says.
    ///
    /// # Errors
    /// When the admin listener does not answer, or not with JSON.
    pub fn config(&self, netns: &Netns) -> Result<serde_json::Value> {
        let answer = netns.enter(|| get(&format!("http://{ADMIN}/config")))?;
        Ok(serde_json::from_slice(&answer.body)?)
    }

    /// Waits until the files were read because they changed, and what was read satisfies `wanted`.
    ///
    /// # Errors
    /// When that is not seen.
    pub fn file_change(
        &self,
        netns: &Netns,
        wanted: impl Fn(&serde_json::Value) -> bool,
    ) -> Result<()> {
        eventually("the files to be read again", || {
            let config = self.config(netns)?;
            let seen = config["last_load"]["trigger"] == "file change" && wanted(&config);
            Ok(seen.then_some(()))
        })
        .with_context(|| self.process.output())
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.process.signal(Signal::TERM)?;
        self.process.wait()
    }

    /// Ends it as a crash would.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn kill(mut self) -> Result<()> {
        self.process.signal(Signal::KILL)?;
        self.process.wait().map(drop)
    }

    /// The metrics now.
    ///
    /// # Errors
    /// When the admin listener does not answer.
    pub fn metrics(&self, netns: &Netns) -> Result<crate::metrics::Page> {
        Ok(crate::metrics::parse(&netns.enter(metrics_page)?))
    }
}

/// Starts the demo backend in `netns` and waits until it accepts.
///
/// # Errors
/// When it does not.
pub fn demo_backend(netns: &Netns) -> Result<Process> {
    let process = Process::start(netns, &["demo-backend", "--listen", BACKEND])?;
    netns.enter(|| {
        let address: SocketAddr = BACKEND.parse()?;
        eventually("the backend", || {
            Ok(TcpStream::connect_timeout(&address, PATIENCE).ok())
        })
    })?;
    Ok(process)
}

/// Runs `limiterd` to its end.
///
/// # Errors
/// When it cannot be started.
pub fn limiterd(args: &[&str]) -> Result<Output> {
    Ok(Command::new(binary()).args(args).output()?)
}

/// Asks until there is an answer.
///
/// # Errors
/// What `ask` returns, and after half a minute without an answer.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    for _ in 0..PATIENCE.as_millis() / POLL.as_millis() {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        thread::sleep(POLL);
    }
    bail!("waited {PATIENCE:?} for {what}")
}

/// Status and body of `/ready`; `None` while nothing answers.
fn ready() -> Result<Option<(u16, String)>> {
    match get(&format!("http://{ADMIN}/ready")) {
        Ok(answer) => Ok(Some((answer.status.as_u16(), answer.text()))),
        Err(_not_yet) => Ok(None),
    }
}

fn metrics_page() -> Result<String> {
    Ok(get(&format!("http://{ADMIN}/metrics"))?.text())
}
