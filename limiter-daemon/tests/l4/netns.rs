//! Two network namespaces with a veth pair between them, and what can be seen from there.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{fs, process, thread};

use aya::programs::{SchedClassifier, TcAttachType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The gateway's interface.
pub(crate) const INTERFACE: &str = "lim0";
const PEER: &str = "peer0";
const GATEWAY_V4: &str = "192.0.2.1";
const GATEWAY_V6: &str = "2001:db8::1";
const GATEWAY_VLAN: &str = "198.51.100.1";
const VLAN: &str = "7";

/// How long an answer over veth may take. Shorter than the first retransmission of a SYN, 1 s, so
/// that one attempt is one packet.
const PATIENCE: Duration = Duration::from_millis(300);

const UP_POLL: Duration = Duration::from_millis(10);
const UP_POLLS: u32 = 1500;

/// A gateway and a client, joined by a veth pair. All gone when dropped.
pub(crate) struct Net {
    gateway: String,
    client: String,
    pins: PathBuf,
}

impl Net {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let net = Self {
            gateway: format!("l4-gw-{id}"),
            client: format!("l4-cl-{id}"),
            pins: PathBuf::from(format!("/sys/fs/bpf/l4-test-{id}")),
        };
        ip(&["netns", "add", &net.gateway]);
        ip(&["netns", "add", &net.client]);
        net.join();
        net
    }

    /// Makes the veth pair (again).
    pub(crate) fn join(&self) {
        self.make(&[]);
    }

    /// As [`Net::join`], with an index that is free.
    pub(crate) fn join_as(&self, index: u32) {
        self.make(&["index", &index.to_string()]);
    }

    fn make(&self, options: &[&str]) {
        let (gateway, client) = (self.gateway.as_str(), self.client.as_str());
        let add = ["-n", gateway, "link", "add", INTERFACE];
        let peer = ["type", "veth", "peer", PEER, "netns", client];
        ip(&[&add[..], options, &peer[..]].concat());
        for (namespace, device, host) in [(gateway, INTERFACE, 1), (client, PEER, 2)] {
            let (v4, v6) = (format!("192.0.2.{host}/24"), format!("2001:db8::{host}/64"));
            ip(&["-n", namespace, "address", "add", &v4, "dev", device]);
            ip(&[
                "-n", namespace, "address", "add", &v6, "dev", device, "nodad",
            ]);
            ip(&["-n", namespace, "link", "set", device, "up"]);
        }
        wait_until_up(gateway, INTERFACE);
        wait_until_up(client, PEER);
    }

    /// Removes the veth pair, as when a NIC is unplugged.
    pub(crate) fn part(&self) {
        self.part_from(INTERFACE);
    }

    /// Removes an interface of the gateway.
    pub(crate) fn part_from(&self, interface: &str) {
        ip(&["-n", &self.gateway, "link", "delete", interface]);
    }

    /// Gives an interface of the gateway another name.
    pub(crate) fn rename(&self, interface: &str, name: &str) {
        let set = |arguments: &[&str]| {
            ip(&[&["-n", &self.gateway, "link", "set"], arguments].concat());
        };
        let was_up = is_up(&self.gateway, interface);
        set(&[interface, "down"]);
        set(&[interface, "name", name]);
        set(&[name, "up"]);
        if was_up {
            wait_until_up(&self.gateway, name);
            wait_until_up(&self.client, PEER);
        }
    }

    /// Moves an interface of the gateway to that of another pair.
    pub(crate) fn move_interface(&self, interface: &str, to: &Self) {
        ip(&[
            "-n",
            &self.gateway,
            "link",
            "set",
            interface,
            "netns",
            &to.gateway,
        ]);
    }

    /// Adds an interface that leads nowhere to the gateway.
    pub(crate) fn add_interface(&self, name: &str) {
        ip(&[
            "-n",
            &self.gateway,
            "link",
            "add",
            name,
            "type",
            "veth",
            "peer",
            &format!("{name}-p"),
        ]);
    }

    /// Puts an interface of a VLAN on both of the pair.
    pub(crate) fn add_vlan(&self) -> Result<(), String> {
        for (namespace, below, host) in [(&self.gateway, INTERFACE, 1), (&self.client, PEER, 2)] {
            let name = format!("{below}.{VLAN}");
            let vlan = ["name", &name, "type", "vlan", "id", VLAN];
            try_ip(&[&["-n", namespace, "link", "add", "link", below][..], &vlan].concat())?;
            let address = format!("198.51.100.{host}/24");
            ip(&["-n", namespace, "address", "add", &address, "dev", &name]);
            ip(&["-n", namespace, "link", "set", &name, "up"]);
        }
        wait_until_up(&self.gateway, &format!("{INTERFACE}.{VLAN}"));
        wait_until_up(&self.client, &format!("{PEER}.{VLAN}"));
        Ok(())
    }

    /// Makes the gateway's interface the member of a bond, which takes its IPv4 address.
    pub(crate) fn add_bond(&self, name: &str) -> Result<(), String> {
        let bond = [
            name,
            "type",
            "bond",
            "mode",
            "active-backup",
            "miimon",
            "10",
        ];
        try_ip(&[&["-n", &self.gateway, "link", "add"][..], &bond].concat())?;
        let at_gateway = |arguments: &[&str]| ip(&[&["-n", &self.gateway], arguments].concat());
        at_gateway(&["address", "flush", "dev", INTERFACE]);
        at_gateway(&["link", "set", INTERFACE, "down"]);
        at_gateway(&["link", "set", INTERFACE, "master", name]);
        at_gateway(&["link", "set", name, "up"]);
        let address = format!("{GATEWAY_V4}/24");
        at_gateway(&["address", "add", &address, "dev", name]);
        wait_until_up(&self.gateway, name);
        wait_until_up(&self.client, PEER);
        Ok(())
    }

    /// As [`Net::attempts_seen`], over the VLAN.
    pub(crate) fn attempts_seen_vlan(&self, port: u16, attempts: usize) -> usize {
        self.attempts(GATEWAY_VLAN, port, attempts)
    }

    /// A pin path of its own.
    pub(crate) fn pins(&self) -> &Path {
        &self.pins
    }

    /// Whether an XDP program is on the gateway's interface of this name.
    pub(crate) fn has_xdp(&self, interface: &str) -> bool {
        ip(&["-n", &self.gateway, "-details", "link", "show", interface]).contains("prog/xdp")
    }

    /// Whether a program is on the tcx hook of the gateway's interface.
    pub(crate) fn has_tcx(&self, interface: &str) -> bool {
        self.at_gateway(|| {
            let attached = SchedClassifier::query_tcx(interface, TcAttachType::Ingress);
            attached.is_ok_and(|(_, programs)| !programs.is_empty())
        })
    }

    /// Whether there is a filter under clsact on the gateway's interface.
    pub(crate) fn has_filter(&self, interface: &str) -> bool {
        let output = Command::new("tc")
            .args([
                "-n",
                &self.gateway,
                "filter",
                "show",
                "dev",
                interface,
                "ingress",
            ])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).contains("limiter_tc")
    }

    /// Runs `work` in the gateway's namespace.
    pub(crate) fn at_gateway<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within(&self.gateway, work)
    }

    /// The client asks for a connection; the gateway has no listener and refuses, if it sees the
    /// request. Of so many attempts, the number that it saw.
    pub(crate) fn attempts_seen(&self, port: u16, attempts: usize) -> usize {
        self.attempts(GATEWAY_V4, port, attempts)
    }

    /// As [`Net::attempts_seen`], over IPv6.
    pub(crate) fn attempts_seen_v6(&self, port: u16, attempts: usize) -> usize {
        self.attempts(GATEWAY_V6, port, attempts)
    }

    fn attempts(&self, address: &str, port: u16, attempts: usize) -> usize {
        let address = SocketAddr::new(address.parse::<IpAddr>().unwrap(), port);
        within(&self.client, || {
            let seen = |_| match TcpStream::connect_timeout(&address, PATIENCE) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => true,
                Err(error) if error.kind() == ErrorKind::TimedOut => false,
                other => panic!("neither refused nor silence: {other:?}"),
            };
            (0..attempts).map(seen).filter(|seen| *seen).count()
        })
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for namespace in [&self.gateway, &self.client] {
            let _gone = Command::new("ip")
                .args(["netns", "delete", namespace])
                .status();
        }
        for directory in fs::read_dir(&self.pins).into_iter().flatten().flatten() {
            for pin in fs::read_dir(directory.path())
                .into_iter()
                .flatten()
                .flatten()
            {
                let _gone = fs::remove_file(pin.path());
            }
            let _gone = fs::remove_dir(directory.path());
        }
        let _gone = fs::remove_dir(&self.pins);
    }
}

/// Runs `work` on a thread in a network namespace. Not `ip netns exec`: that mounts a new /sys,
/// where bpffs is not.
fn within<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    let file = File::open(Path::new("/run/netns").join(namespace)).unwrap();
    thread::scope(|scope| {
        let work = scope.spawn(move || {
            move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&file),
                Some(LinkNameSpaceType::Network),
            )
            .unwrap();
            work()
        });
        work.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The kernel sends nothing over an interface before it has taken note, in the background and up to a
/// second later, that there is somebody at its other end.
fn wait_until_up(namespace: &str, interface: &str) {
    for _ in 0..UP_POLLS {
        if is_up(namespace, interface) {
            return;
        }
        thread::sleep(UP_POLL);
    }
    panic!("{interface} does not come up");
}

fn is_up(namespace: &str, interface: &str) -> bool {
    ip(&["-n", namespace, "link", "show", interface]).contains("state UP")
}

fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn try_ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let done = output.status.success();
    done.then_some(()).ok_or_else(|| errors.trim().to_owned())
}
