//! Network namespaces with names of their own, gone when dropped.

use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace, with its loopback interface up.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes one; `role` becomes part of its name.
    ///
    /// # Errors
    /// When `ip` fails (it needs root).
    pub fn new(role: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("lt{}-{number}-{role}", std::process::id());
        ip(&["netns", "add", &name])?;
        let netns = Self { name };
        netns.ip(&["link", "set", "lo", "up"])?;
        Ok(netns)
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` inside.
    ///
    /// # Errors
    /// With its output when it fails.
    pub fn ip(&self, args: &[&str]) -> Result<()> {
        ip(&[&["-n", &self.name], args].concat())
    }

    /// Whether duplicates of all its addresses have been looked for (RFC 4862, section 5.4).
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn is_settled(&self) -> Result<bool> {
        let args = ["-n", &self.name, "-6", "addr", "show", "tentative"];
        let output = Command::new("ip").args(args).output()?;
        ensure!(output.status.success(), "{output:?}");
        Ok(output.stdout.is_empty())
    }

    /// Runs `work` on a thread of its own inside the namespace; sockets and processes made there
    /// stay there. (Not by `ip netns exec`, which hides bpffs.)
    ///
    /// # Errors
    /// When the namespace cannot be entered, and what `work` returns.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = format!("/run/netns/{}", self.name);
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                let namespace = File::open(&path).with_context(|| format!("cannot open {path}"))?;
                move_into_link_name_space(
                    std::os::fd::AsFd::as_fd(&namespace),
                    Some(LinkNameSpaceType::Network),
                )
                .context("cannot enter the network namespace")?;
                work()
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Packets that `interface` was to send and could not: of a veth, those for which its peer's
    /// queue had no room.
    ///
    /// # Errors
    /// When there is no such interface in the namespace.
    pub fn unsent(&self, interface: &str) -> Result<u64> {
        // The twelfth figure; those before are received bytes, packets, errors, ...
        const SEND_DROPPED: usize = 11;
        let table = self.enter(|| Ok(std::fs::read_to_string("/proc/thread-self/net/dev")?))?;
        let figures = table
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.trim() == interface)
            .with_context(|| format!("no {interface} in {}", self.name))?
            .1;
        let dropped = figures.split_whitespace().nth(SEND_DROPPED);
        Ok(dropped.context("too few figures")?.parse()?)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "del", &self.name]) {
            eprintln!("namespace {} is left behind: {error:#}", self.name);
        }
    }
}

fn ip(args: &[&str]) -> Result<()> {
    let output = Command::new("ip")
        .args(args)
        .output()
        .context("cannot run ip (iproute2)")?;
    if !output.status.success() {
        bail!(
            "ip {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
