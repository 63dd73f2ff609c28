//! What deploy/systemd ships, by systemd's own judgement, and that systemd keeps sockets over a
//! restart. What the sandbox lets through is seen in a virtual machine (`cargo xtask vm-test
//! --system`).

use std::fs;
use std::io::{IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{SealFlags, fcntl_get_seals};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg, sockopt::socket_acceptconn,
};
use rustix::process::Signal;
use tests::activation::activated;
use tests::daemon::{Daemon, Policies, binary, demo_backend, limiterd};
use tests::http_client::{count, gets};
use tests::netns::Netns;
use tests::policies::{GATEWAY, limited_host, route};

/// In tenths, as systemd-analyze takes it.
const EXPOSURE: &str = "25";
const ANSWER: Duration = Duration::from_secs(30);

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(path)
}

fn analyze(arguments: &[&str], units: &[PathBuf]) -> Result<String> {
    let output = Command::new("systemd-analyze")
        .args(arguments)
        .args(units)
        .env("LC_ALL", "C")
        .output()
        .context("systemd-analyze (Debian: systemd)")?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    ensure!(output.status.success(), "{}: {text}", output.status);
    Ok(text)
}

/// The units, with the executables that this machine has in place of those that a package installs.
fn units(into: &Path) -> Result<Vec<PathBuf>> {
    let limiterd = binary();
    let limiterd = limiterd.to_str().context("a path in UTF-8")?;
    [
        "limiterd.service",
        "sockets/limiterd.socket",
        "sockets/limiterd-admin.socket",
    ]
    .iter()
    .map(|unit| {
        let unit = deploy("systemd").join(unit);
        let text = fs::read_to_string(&unit)?.replace("/usr/bin/limiterd", limiterd);
        let copy = into.join(unit.file_name().context("a file")?);
        fs::write(&copy, text)?;
        Ok(copy)
    })
    .collect()
}

#[test]
fn systemd_finds_nothing_wrong_in_the_units() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let said = analyze(&["verify", "--man=no"], &units(directory.path())?)?;
    assert_eq!(said, "", "{said}");
    Ok(())
}

#[test]
fn the_service_is_exposed_by_no_more_than_it_needs() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let units = units(directory.path())?;
    let threshold = format!("--threshold={EXPOSURE}");
    analyze(
        &["security", "--offline=true", "--no-pager", &threshold],
        &units[..1],
    )?;
    Ok(())
}

/// systemd's end of `NOTIFY_SOCKET`.
struct Manager {
    socket: UnixDatagram,
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl Manager {
    fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path)?;
        socket.set_read_timeout(Some(ANSWER))?;
        Ok(Self {
            socket,
            _directory: directory,
            path,
        })
    }

    /// The next message, and the descriptors with it.
    fn told(&self) -> Result<(String, Vec<OwnedFd>)> {
        let mut bytes = [0; 1024];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        let fds = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let fds = fds.flatten().collect();
        let text = bytes.get(..got.bytes).unwrap_or_default();
        Ok((String::from_utf8(text.to_vec())?, fds))
    }

    /// Everything up to `end`, without signs of life.
    fn told_until(&self, end: &str) -> Result<Vec<(String, Vec<OwnedFd>)>> {
        let mut all = Vec::new();
        loop {
            let (text, fds) = self.told()?;
            if text == end {
                return Ok(all);
            }
            if text != "WATCHDOG=1\n" {
                all.push((text, fds));
            }
        }
    }

    fn start(&self, netns: &Netns, policies: &Policies, mut limiterd: Command) -> Result<Daemon> {
        limiterd
            .env("NOTIFY_SOCKET", &self.path)
            .env("FDSTORE", "64")
            .env("WATCHDOG_USEC", "3000000");
        Daemon::start_by(netns, policies.path(), limiterd)
    }
}

/// The name under which the descriptors of a message are to be kept.
fn kept_as(message: &str) -> Option<&str> {
    let mut lines = message.lines();
    let name = message
        .lines()
        .find_map(|line| line.strip_prefix("FDNAME="));
    lines
        .any(|line| line == "FDSTORE=1")
        .then_some(name)
        .flatten()
}

fn files(port: u16) -> Vec<(&'static str, String)> {
    let gateway = GATEWAY.replace("8080", &port.to_string()).replacen(
        "spec:\n",
        "spec:\n  addresses: [{value: 127.0.0.1}]\n",
        1,
    );
    vec![("gateway.yaml", gateway), ("route.yaml", route("api", "/"))]
}

fn policies(port: u16) -> Result<Policies> {
    let files = files(port);
    let files: Vec<_> = files
        .iter()
        .map(|(name, text)| (*name, text.as_str()))
        .collect();
    Policies::new(&files)
}

fn ask(stream: &mut TcpStream) -> Result<String> {
    let mut answer = String::new();
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")?;
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn a_client_that_comes_while_none_runs_is_answered_by_the_next() -> Result<()> {
    let netns = Netns::new("fdstore")?;
    let _backend = demo_backend(&netns)?;
    let (policies, manager) = (policies(8080)?, Manager::new()?);
    let mut daemon = manager.start(&netns, &policies, Command::new(binary()))?;
    let told = manager.told_until("READY=1\n")?;
    let mut kept: Vec<(String, OwnedFd)> = Vec::new();
    for (message, fds) in told {
        let name = kept_as(&message).with_context(|| message.clone())?;
        assert!(message.contains("FDPOLL=0\n"), "{message}");
        kept.extend(fds.into_iter().map(|fd| (name.to_owned(), fd)));
    }
    let names: Vec<_> = kept.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.contains(&"kept-127.0.0.1.8080"), "{names:?}");
    assert!(names.contains(&"kept-127.0.0.1.9901"), "{names:?}");
    let (_, buckets) = kept
        .iter()
        .find(|(name, _)| name == "buckets")
        .context("no buckets")?;
    assert!(fcntl_get_seals(buckets)?.contains(SealFlags::SHRINK));
    for (name, fd) in kept.iter().filter(|(name, _)| name != "buckets") {
        assert!(socket_acceptconn(fd)?, "{name} does not listen");
    }

    // As by a crash, and as by `systemctl restart`.
    for signal in [Signal::KILL, Signal::TERM] {
        daemon.process.signal(signal)?;
        let status = daemon.process.wait()?;
        assert_eq!(status.success(), signal == Signal::TERM, "{status}");
        let mut client = netns.enter(|| Ok(TcpStream::connect("127.0.0.1:8080")?))?;
        let passed: Vec<_> = kept
            .iter()
            .map(|(name, fd)| (name.as_str(), fd.as_fd()))
            .collect();
        daemon = manager.start(&netns, &policies, activated(&passed))?;
        let answer = ask(&mut client)?;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let again = manager.told_until("READY=1\n")?;
        let again: Vec<_> = again.iter().map(|(text, _)| text.as_str()).collect();
        let again: Vec<_> = again
            .iter()
            .filter(|text| **text != "STOPPING=1\n")
            .collect();
        assert!(again.is_empty(), "what is kept is kept again: {again:?}");
    }
    Ok(())
}

/// How many of twelve requests of a user were admitted and denied, and of twelve without a name.
fn used_up(netns: &Netns) -> Result<[[usize; 2]; 2]> {
    let of = |headers: &[(&str, &str)]| {
        let answers = netns.enter(|| gets("http://127.0.0.1:8080/", headers, 12))?;
        anyhow::Ok([200, 429].map(|status| count(&answers, status)))
    };
    let host = ("host", "users.test");
    let user = of(&[host, ("x-user", "alice")])?;
    Ok([user, of(&[host])?])
}

const LIMITS: &str = "local: {rules: [\
    {clientSelectors: [{headers: [{name: x-user, type: Distinct}]}], limit: {requests: 10, unit: Day}}, \
    {clientSelectors: [{headers: [{name: x-user, type: Distinct, invert: true}]}], \
     limit: {requests: 7, unit: Day}}]}";

#[test]
fn buckets_of_requests_are_the_same_after_a_crash_and_a_restart() -> Result<()> {
    let netns = Netns::new("fdstore-buckets")?;
    let _backend = demo_backend(&netns)?;
    let (policies, manager) = (policies(8080)?, Manager::new()?);
    policies.write("api.yaml", &limited_host("users", LIMITS))?;
    let mut daemon = manager.start(&netns, &policies, Command::new(binary()))?;
    let told = manager.told_until("READY=1\n")?;
    let is_memory = |(text, _): &(String, Vec<OwnedFd>)| kept_as(text) == Some("buckets");
    let (_, mut memory) = told.into_iter().find(is_memory).context("no memory")?;
    let mut memory = memory.pop().context("no descriptor")?;
    assert_eq!(used_up(&netns)?, [[10, 2], [7, 5]]);

    for signal in [Signal::KILL, Signal::TERM] {
        daemon.process.signal(signal)?;
        daemon.process.wait()?;
        let passed = [("buckets", memory.as_fd())];
        daemon = manager.start(&netns, &policies, activated(&passed))?;
        manager.told_until("READY=1\n")?;
        assert_eq!(used_up(&netns)?, [[0, 12], [0, 12]]);
    }

    // A table of another size is another memory, which is kept in place of the old one.
    daemon.process.signal(Signal::TERM)?;
    daemon.process.wait()?;
    let settings = "apiVersion: limiterd.io/v1alpha1\nkind: LimiterConfig\nmetadata: {name: l}\n\
                    spec: {http: {maxBuckets: 4096}}\n";
    policies.write("limiterd.yaml", settings)?;
    let passed = [("buckets", memory.as_fd())];
    daemon = manager.start(&netns, &policies, activated(&passed))?;
    let mut told = manager.told_until("READY=1\n")?;
    let forgotten = "FDSTOREREMOVE=1\nFDNAME=buckets\n";
    assert!(told.iter().any(|(text, _)| text == forgotten), "{told:?}");
    let at = told.iter().position(is_memory).context("no new memory")?;
    memory = told.remove(at).1.pop().context("no descriptor")?;
    // The sockets of the next one are not to share their clients with those that are kept here.
    drop(told);
    assert_eq!(used_up(&netns)?, [[0, 12], [0, 12]]);

    // What is not such a memory is said, and everything begins in full.
    daemon.process.signal(Signal::TERM)?;
    daemon.process.wait()?;
    drop(memory);
    let other = fs::File::open(binary())?;
    let passed = [("buckets", other.as_fd())];
    daemon = manager.start(&netns, &policies, activated(&passed))?;
    let output = daemon.process.output();
    assert!(output.contains("cannot be used: all are full"), "{output}");
    assert_eq!(used_up(&netns)?, [[10, 2], [7, 5]]);
    Ok(())
}

#[test]
fn what_is_not_served_any_more_is_not_kept() -> Result<()> {
    let netns = Netns::new("fdstore-gone")?;
    let _backend = demo_backend(&netns)?;
    let (before, manager) = (policies(8080)?, Manager::new()?);
    let kept = netns.enter(|| Ok(TcpListener::bind("127.0.0.1:8081")?))?;
    let command = activated(&[("kept-127.0.0.1.8081", kept.as_fd())]);
    let daemon = manager.start(&netns, &before, command)?;
    let told = manager.told_until("READY=1\n")?;
    let forgotten = "FDSTOREREMOVE=1\nFDNAME=kept-127.0.0.1.8081\n";
    assert!(told.iter().any(|(text, _)| text == forgotten), "{told:?}");
    drop(kept);

    for (name, text) in files(8082) {
        before.write(name, &text)?;
    }
    daemon.process.signal(Signal::HUP)?;
    let told = manager.told_until("READY=1\n")?;
    let forgotten = "FDSTOREREMOVE=1\nFDNAME=kept-127.0.0.1.8080\n";
    assert!(told.iter().any(|(text, _)| text == forgotten), "{told:?}");
    let new = told.iter().find_map(|(text, _)| kept_as(text));
    assert_eq!(new, Some("kept-127.0.0.1.8082"));
    Ok(())
}

#[test]
fn signs_of_life_are_given_where_the_watchdog_is_on() -> Result<()> {
    let netns = Netns::new("watchdog")?;
    let _backend = demo_backend(&netns)?;
    let (policies, manager) = (policies(8080)?, Manager::new()?);
    let daemon = manager.start(&netns, &policies, Command::new(binary()))?;
    manager.told_until("READY=1\n")?;
    manager.told_until("WATCHDOG=1\n")?;
    assert!(daemon.stop()?.success());
    Ok(())
}

#[test]
fn what_the_package_begins_with_is_valid() -> Result<()> {
    let directory = deploy("debian/etc");
    let directory = directory.to_str().context("a path in UTF-8")?;
    let output = limiterd(&["check", "--deny-warnings", directory])?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    Ok(())
}
