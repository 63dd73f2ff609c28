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
const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);
/// What limits in the kernel need.
const CAPABILITIES: &str = "--cap-add=BPF,NET_ADMIN,NET_BIND_SERVICE,PERFMON";

/// Runs the image in `archive`.
pub(super) fn run(dist: &Dist<'_>, archive: &Path) -> Result<()> {
    setup::setup_trial(dist.workspace)?;
    let podman = Podman::new(dist);
    podman.of(
        &["load", "--quiet", "--input"],
        &[&archive.to_string_lossy()],
    )?;
    says_its_version(&podman)?;
    limits_requests(&podman)?;
    is_a_rate_limit_service(&podman)?;
    finds_what_the_kernel_needs(&podman)?;
    println!("image: podman runs it, and it does what its policies say");
    Ok(())
}

fn says_its_version(podman: &Podman<'_>) -> Result<()> {
    let said = podman.of(
        &["run", "--rm", "--network=none", &podman.image, "--version"],
        &[],
    )?;
    let expected = format!("limiterd {}", podman.dist.version);
    ensure!(said == expected, "it says {said:?}, not {expected:?}");
    Ok(())
}

fn limits_requests(podman: &Podman<'_>) -> Result<()> {
    let limiterd = podman.start("gateway", GATEWAY)?;
    limiterd.exec(&["check", "--deny-warnings", "/etc/limiterd"])?;
    podman.of(
        &["exec", "--detach", &limiterd.name, "/usr/bin/limiterd"],
        &["demo-backend"],
    )?;
    limiterd.eventually(&["http://127.0.0.1:3000/"], |code| code == "200")?;
    let codes = limiterd.curl(&["http://127.0.0.1:8080/[1-110]"])?;
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
    for (user, code) in [("alice", "200"), ("mallory", "429")] {
        let entry = format!(r#"{{"key": "user", "value": "{user}"}}"#);
        let question =
            format!(r#"{{"domain": "shop", "descriptors": [{{"entries": [{entry}]}}]}}"#);
        let answer = limiterd.curl(&["--data", &question, "http://127.0.0.1:8081/json"])?;
        ensure!(answer == code, "{user}: {answer}, not {code}");
    }
    limiterd.stop()
}

fn finds_what_the_kernel_needs(podman: &Podman<'_>) -> Result<()> {
    let confined = [
        "run",
        "--rm",
        "--network=none",
        "--read-only",
        "--cap-drop=all",
    ];
    let found = podman.of(
        &confined,
        &[CAPABILITIES, "--user=0", &podman.image, "probe"],
    )?;
    ensure!(!found.contains("MISSING"), "{found}");
    let without = podman
        .command(&confined, &[&podman.image, "probe"])
        .ignore_status()
        .read()?;
    ensure!(
        without.contains("MISSING"),
        "nothing is missing without capabilities: {without}"
    );
    Ok(())
}

/// podman with a store, and nothing of the machine's.
struct Podman<'a> {
    dist: &'a Dist<'a>,
    image: String,
}

impl<'a> Podman<'a> {
    fn new(dist: &'a Dist<'a>) -> Self {
        let image = image::name(dist);
        Self { dist, image }
    }

    /// What it says.
    fn of(&self, arguments: &[&str], more: &[&str]) -> Result<String> {
        Ok(self.command(arguments, more).read()?)
    }

    fn command(&self, arguments: &[&str], more: &[&str]) -> Cmd<'a> {
        let storage = image::storage(self.dist).join("trial");
        let (graph, run) = (storage.join("graph"), storage.join("run"));
        let temporary = storage.join("tmp");
        // No systemd is asked for anything: it need not be there.
        let own = ["--cgroup-manager=cgroupfs", "--events-backend=file"];
        cmd!(
            self.dist.workspace.sh,
            "podman --storage-driver vfs --root {graph} --runroot {run} --tmpdir {temporary} {own...} {arguments...} {more...}"
        )
    }

    /// Runs the image on the policy in `policy`, until it is ready.
    fn start(&self, name: &str, policy: &str) -> Result<Container<'_>> {
        let name = format!("limiterd-{name}-{}", std::process::id());
        let policy = self.dist.workspace.root.join(policy);
        let volume = format!("--volume={}:/etc/limiterd:ro", policy.display());
        let confined = ["--network=none", "--read-only", "--cap-drop=all"];
        let named = format!("--name={name}");
        let health = r#"--health-cmd=["/usr/bin/limiterd", "status"]"#;
        let health = ["--health-interval=disable", health];
        let options = [
            &["run", "--detach", &named, &volume][..],
            &confined,
            &health,
        ]
        .concat();
        self.of(&options, &["--security-opt=no-new-privileges", &self.image])?;
        let container = Container { podman: self, name };
        let clock = Stopwatch::start();
        while self
            .of(&["healthcheck", "run"], &[&container.name])
            .is_err()
        {
            if clock.elapsed() > DEADLINE {
                let log = self.of(&["logs"], &[&container.name])?;
                bail!(
                    "{} is not healthy after {DEADLINE:?}: {log}",
                    container.name
                );
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
        let limiterd = ["exec", &self.name, "/usr/bin/limiterd"];
        self.podman.of(&limiterd, arguments)
    }

    /// The status of each answer to a request from within its network.
    fn curl(&self, arguments: &[&str]) -> Result<String> {
        let pid = ["inspect", "--format={{.State.Pid}}"];
        let pid = self.podman.of(&pid, &[&self.name])?;
        let network = format!("--net=/proc/{pid}/ns/net");
        let quiet = ["--silent", "--output", "/dev/null", "--max-time", "10"];
        let codes = cmd!(
            self.podman.dist.workspace.sh,
            "nsenter {network} curl {quiet...} --write-out '%{http_code} ' {arguments...}"
        )
        .ignore_status()
        .read()?;
        Ok(codes.trim_end().to_owned())
    }

    fn eventually(&self, arguments: &[&str], wanted: impl Fn(&str) -> bool) -> Result<()> {
        let clock = Stopwatch::start();
        loop {
            let said = self.curl(arguments)?;
            if wanted(&said) {
                return Ok(());
            }
            ensure!(clock.elapsed() < DEADLINE, "{arguments:?}: {said}");
            thread::sleep(POLL);
        }
    }

    /// By SIGTERM; it has to end by itself, and well.
    fn stop(self) -> Result<()> {
        self.podman.of(&["stop", "--time=30"], &[&self.name])?;
        let format = ["inspect", "--format={{.State.ExitCode}}"];
        let code = self.podman.of(&format, &[&self.name])?;
        ensure!(code == "0", "{} ended with {code}", self.name);
        Ok(())
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if let Err(error) = self
            .podman
            .of(&["rm", "--force", "--time=0"], &[&self.name])
        {
            eprintln!("{} could not be removed: {error:#}", self.name);
        }
    }
}
