//! The image at work: podman loads the archive, into a store of its own, and runs it without a network
//! but loopback, without capabilities and on a root file system that cannot be written.
//!
//! It counts requests as its policy says, answers as a rate limit service, is asked for its health by
//! its own executable, and ends cleanly. As user 0 with the four capabilities it finds what limits in
//! the kernel need.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use xshell::{Cmd, cmd};

use super::{Dist, image};
use crate::cmd::Stopwatch;
use crate::setup;

/// 100 requests a minute for each client, on 127.0.0.1:8080.
const GATEWAY: &str = "deploy/debian/etc";
/// A rate limit service on 127.0.0.1:8081, in whose domain `mallory` has nothing.
const SERVICE: &str = "examples/ratelimit-service";
const LIMITERD: &str = "/usr/bin/limiterd";
const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);
/// Within what this process has itself: podman's defaults would raise limits.
const LIMITS: &[&str] = &["--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096"];
/// No network but loopback, no capabilities, nothing to write to.
const CONFINED: &[&str] = &["--network=none", "--read-only", "--cap-drop=all"];
/// What limits in the kernel need.
const CAPABILITIES: &str = "--cap-add=BPF,NET_ADMIN,NET_BIND_SERVICE,PERFMON";

/// Runs the image in `archive`.
pub(super) fn run(dist: &Dist<'_>, archive: &Path) -> Result<()> {
    setup::setup_trial(dist.workspace)?;
    let podman = Podman {
        dist,
        image: image::name(dist),
    };
    let archive = archive.to_string_lossy();
    podman.read(&["load", "--quiet", "--input", &archive])?;
    says_its_version(&podman)?;
    limits_requests(&podman)?;
    is_a_rate_limit_service(&podman)?;
    finds_what_the_kernel_needs(&podman)?;
    println!("image: podman runs it, and it does what its policies say");
    Ok(())
}

fn says_its_version(podman: &Podman<'_>) -> Result<()> {
    let said = podman.once(&[], &["--version"]).read()?;
    let expected = format!("limiterd {}", podman.dist.version);
    ensure!(said == expected, "it says {said:?}, not {expected:?}");
    Ok(())
}

fn limits_requests(podman: &Podman<'_>) -> Result<()> {
    let limiterd = podman.start("gateway", GATEWAY)?;
    limiterd.exec(&["check", "--deny-warnings", "/etc/limiterd"])?;
    let backend = [LIMITERD, "demo-backend"];
    podman.read(&[&["exec", "--detach", &limiterd.name], &backend[..]].concat())?;
    let clock = Stopwatch::start();
    while limiterd.statuses(&["http://127.0.0.1:3000/"])? != "200" {
        ensure!(clock.elapsed() < DEADLINE, "the backend does not answer");
        thread::sleep(POLL);
    }
    let codes = limiterd.statuses(&["http://127.0.0.1:8080/[1-110]"])?;
    let count = |wanted| codes.split(' ').filter(|code| *code == wanted).count();
    let (passed, limited) = (count("200"), count("429"));
    // Within a few seconds a handful of tokens come back.
    ensure!(
        passed >= 100 && limited > 0 && passed + limited == 110,
        "of 110 requests {passed} passed and {limited} were limited: {codes}"
    );
    limiterd.stop()
}

fn is_a_rate_limit_service(podman: &Podman<'_>) -> Result<()> {
    let limiterd = podman.start("service", SERVICE)?;
    for (user, status) in [("alice", "200"), ("mallory", "429")] {
        let entry = format!(r#"{{"key": "user", "value": "{user}"}}"#);
        let question =
            format!(r#"{{"domain": "shop", "descriptors": [{{"entries": [{entry}]}}]}}"#);
        let answer = limiterd.statuses(&["--data", &question, "http://127.0.0.1:8081/json"])?;
        ensure!(answer == status, "{user}: {answer}, not {status}");
    }
    limiterd.stop()
}

fn finds_what_the_kernel_needs(podman: &Podman<'_>) -> Result<()> {
    // The profile of podman's that Debian 12 has lets bpf(2) through with CAP_SYS_ADMIN only.
    let kernel = [
        "--user=0",
        CAPABILITIES,
        "--security-opt=seccomp=unconfined",
    ];
    let found = podman.once(&kernel, &["probe"]).read()?;
    ensure!(!found.contains("MISSING"), "{found}");
    let without = podman.once(&[], &["probe"]).ignore_status().read()?;
    ensure!(
        without.contains("MISSING"),
        "nothing is missing without capabilities: {without}"
    );
    Ok(())
}

/// podman with a store of its own.
struct Podman<'a> {
    dist: &'a Dist<'a>,
    image: String,
}

impl<'a> Podman<'a> {
    fn command(&self, arguments: &[&str]) -> Cmd<'a> {
        let storage = image::storage(self.dist).join("trial");
        let (graph, run) = (storage.join("graph"), storage.join("run"));
        let temporary = storage.join("tmp");
        // No systemd is asked for anything: it need not be there. crun refuses machines with both
        // versions of cgroups.
        let own = [
            "--cgroup-manager=cgroupfs",
            "--events-backend=file",
            "--runtime=runc",
        ];
        cmd!(
            self.dist.workspace.sh,
            "podman --storage-driver vfs --root {graph} --runroot {run} --tmpdir {temporary} {own...} {arguments...}"
        )
        .quiet()
    }

    /// What it says.
    fn read(&self, arguments: &[&str]) -> Result<String> {
        Ok(self.command(arguments).read()?)
    }

    /// The image with these arguments, in a container that is gone at its end.
    fn once(&self, options: &[&str], arguments: &[&str]) -> Cmd<'a> {
        let image = [self.image.as_str()];
        let run = &["run", "--rm"][..];
        self.command(&[run, LIMITS, CONFINED, options, &image, arguments].concat())
    }

    /// Runs the image on the policy in `policy`, until it says of itself that it is well.
    fn start(&self, name: &str, policy: &str) -> Result<Container<'_>> {
        let name = format!("limiterd-{name}-{}", std::process::id());
        let policy = self.dist.workspace.root.join(policy);
        let named = format!("--name={name}");
        let volume = format!("--volume={}:/etc/limiterd:ro", policy.display());
        let health = format!(r#"--health-cmd=["{LIMITERD}", "status"]"#);
        let own = [
            &named,
            &volume,
            &health,
            "--health-interval=disable",
            "--security-opt=no-new-privileges",
            &self.image,
        ];
        let run = &["run", "--detach"][..];
        self.read(&[run, LIMITS, CONFINED, &own].concat())?;
        let container = Container { podman: self, name };
        let clock = Stopwatch::start();
        let health = ["healthcheck", "run", &container.name];
        // It fails as long as it is not well.
        while self.command(&health).ignore_stderr().read().is_err() {
            if clock.elapsed() > DEADLINE {
                self.command(&["logs", &container.name]).run()?;
                bail!("{} is not well after {DEADLINE:?}", container.name);
            }
            thread::sleep(POLL);
        }
        Ok(container)
    }
}

/// A running container, removed when it is dropped.
struct Container<'a> {
    podman: &'a Podman<'a>,
    name: String,
}

impl Container<'_> {
    fn exec(&self, arguments: &[&str]) -> Result<String> {
        let limiterd = &["exec", &self.name, LIMITERD][..];
        self.podman.read(&[limiterd, arguments].concat())
    }

    /// The status of each answer to a request from within its network, where it has no program to ask
    /// with; 000: none came.
    fn statuses(&self, arguments: &[&str]) -> Result<String> {
        let podman = self.podman;
        let pid = podman.read(&["inspect", "--format={{.State.Pid}}", &self.name])?;
        let network = format!("--net=/proc/{pid}/ns/net");
        let options = ["--silent", "--output", "/dev/null", "--max-time", "10"];
        let statuses = cmd!(
            podman.dist.workspace.sh,
            "nsenter {network} curl {options...} --write-out '%{http_code} ' {arguments...}"
        )
        .quiet()
        .ignore_status()
        .read()?;
        Ok(statuses.trim_end().to_owned())
    }

    /// By SIGTERM; it has to end by itself, and well.
    fn stop(self) -> Result<()> {
        let name = &self.name;
        self.podman.read(&["stop", "--time=30", name])?;
        let code = self
            .podman
            .read(&["inspect", "--format={{.State.ExitCode}}", name])?;
        ensure!(code == "0", "{name} ended with {code}");
        Ok(())
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let removed = self.podman.read(&["rm", "--force", "--time=0", &self.name]);
        if let Err(error) = removed {
            eprintln!("{} could not be removed: {error:#}", self.name);
        }
    }
}
