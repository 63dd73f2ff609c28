//! Servers that run beside us: started, watched, and stopped in an orderly way.

use std::fmt;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::cmd::{Stopwatch, search_path};

/// How long a server may take to finish what it is doing (the daemon drains for 10 s).
const STOP_DEADLINE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(50);

/// A running server; stopped when it is dropped.
///
/// It is in a process group of its own, so that Ctrl-C reaches xtask only, which then stops the
/// servers one after the other: a backend must outlive the proxy that drains its requests to it.
pub(crate) struct Server {
    name: String,
    process: std::process::Child,
}

impl Server {
    /// Shows and starts `command`.
    pub(crate) fn start(name: &str, command: &mut Command) -> Result<Self> {
        eprintln!("$ {}", line_of(command));
        let process = command
            .env("PATH", search_path())
            .process_group(0)
            .spawn()
            .with_context(|| format!("{name} did not start: `{}`", line_of(command)))?;
        let name = name.to_owned();
        Ok(Self { name, process })
    }

    /// Its process id, its own for as long as it was not waited for.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Fails if the server has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => bail!(
                "{} ended by itself ({status}); see its output above",
                self.name
            ),
        }
    }

    /// Asks the server to end and waits for it; what does not end in time is killed, and is an
    /// error, as is an exit status other than 0.
    pub(crate) fn stop(mut self) -> Result<()> {
        let status = self.terminate()?;
        match status.code() {
            Some(0) => Ok(()),
            _ => bail!("{} did not stop cleanly ({status})", self.name),
        }
    }

    /// Not yet waited for, so the process id is still its own.
    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.process.id())
            .ok()
            .and_then(Pid::from_raw);
        kill_process(pid.context("a process without a process id")?, signal)?;
        Ok(())
    }

    fn terminate(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.process.try_wait()? {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        let waited = Stopwatch::start();
        while waited.elapsed() < STOP_DEADLINE {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            thread::sleep(POLL);
        }
        eprintln!("{} still runs after {STOP_DEADLINE:?}: killed", self.name);
        self.process.kill()?;
        Ok(self.process.wait()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.terminate() {
            eprintln!("{} could not be stopped: {error:#}", self.name);
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({}, pid {})", self.name, self.process.id())
    }
}

/// `command` as one would type it.
fn line_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Set once Ctrl-C, SIGTERM or SIGHUP arrives.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From here on these signals no longer end xtask by themselves.
    pub(crate) fn listen() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
        }
        Ok(Self(flag))
    }

    pub(crate) fn seen(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;

    use super::{POLL, Server, Signal};

    fn shell(script: &str) -> Server {
        Server::start("a script", Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn a_server_that_obeys_stops_cleanly() {
        // It stops itself once the trap is set, which is how we know that it is.
        let server = shell("trap 'exit 0' TERM; kill -STOP $$; while :; do sleep 0.01; done");
        wait_until_stopped(&server);
        server.signal(Signal::CONT).unwrap();
        server.stop().unwrap();
    }

    #[test]
    fn a_server_that_dies_of_the_signal_did_not_stop_cleanly() {
        let error = shell("exec sleep 60").stop().unwrap_err();
        assert!(
            error.to_string().contains("a script did not stop cleanly"),
            "{error}"
        );
    }

    #[test]
    fn a_server_that_ended_is_told() {
        let mut server = shell("exit 3");
        while server.check().is_ok() {
            thread::sleep(POLL);
        }
        let error = server.check().unwrap_err().to_string();
        assert!(
            error.contains("a script ended by itself (exit status: 3)"),
            "{error}"
        );
    }

    /// The state letter of /proc is T once it has stopped itself.
    fn wait_until_stopped(server: &Server) {
        let stat = format!("/proc/{}/stat", server.process.id());
        while !std::fs::read_to_string(&stat).unwrap().contains(") T ") {
            thread::sleep(POLL);
        }
    }
}
