//! What this kernel and these interfaces can do for the kernel half, without changing anything.

use std::fs;
use std::path::Path;

use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{is_map_supported, is_program_supported};
use aya::util::KernelVersion;
use rustix::fs::{Access, access};
use rustix::process::geteuid;
use serde::Serialize;

use super::device;
use super::pins::BPFFS;
use super::privilege::{self, Capability, NEEDED};
use super::trial::{Settings, Trial, has_buffers};
use crate::policy::plan::DaemonConfig;

/// How well something is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    /// Works, at a cost.
    Degraded,
    /// The kernel half cannot run.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub what: String,
    pub state: State,
    /// What was found.
    pub found: String,
    /// What follows from it, and what to do, where it is not [`State::Ok`].
    pub advice: Option<String>,
}

impl Finding {
    fn new(what: impl Into<String>, state: State, found: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            state,
            found: found.into(),
            advice: None,
        }
    }

    fn advise(mut self, advice: &str) -> Self {
        self.advice = Some(advice.to_owned());
        self
    }
}

const OLDEST: (u32, u32) = (5, 15);
const TCX: (u32, u32) = (6, 6);

/// Looks at everything; the interfaces are all that `/sys/class/net` lists.
#[must_use]
pub fn probe() -> Vec<Finding> {
    let mut findings = vec![kernel()];
    findings.extend(capabilities());
    findings.extend([jit(), bpffs()]);
    findings.extend(features());
    findings.push(buffers());
    findings.push(program());
    findings.extend(interfaces());
    findings
}

fn kernel() -> Finding {
    let what = "kernel";
    let code = match KernelVersion::current() {
        Ok(version) => version.code(),
        Err(error) => {
            let advice = "its version cannot be read; 5.15 or later is needed";
            return Finding::new(what, State::Missing, error.to_string()).advise(advice);
        }
    };
    let version = (code >> 16, (code >> 8) & 0xff);
    let found = format!("Linux {}.{}", version.0, version.1);
    if version < OLDEST {
        Finding::new(what, State::Missing, found).advise("limits in the kernel need 5.15 or later")
    } else if version < TCX {
        let advice = "no tcx (6.6): where another XDP program is attached, limits fall back to a \
                      clsact filter, which anybody with the privilege can remove";
        Finding::new(what, State::Degraded, found).advise(advice)
    } else {
        Finding::new(what, State::Ok, found)
    }
}

fn capabilities() -> Vec<Finding> {
    let kernel = |capability| (capability, State::Missing, "no limits in the kernel");
    let ports = (
        privilege::NET_BIND_SERVICE,
        State::Degraded,
        "no listener on a port below net.ipv4.ip_unprivileged_port_start (1024)",
    );
    let finding = |(capability, state, cost): (Capability, State, &str)| {
        let what = format!("capability {}", capability.name);
        if privilege::has(capability) {
            return Finding::new(what, State::Ok, capability.purpose);
        }
        let found = format!("no {}, {}", capability.name, capability.purpose);
        let remedy = privilege::Remedy(&[capability]);
        Finding::new(what, state, found).advise(&format!("{cost}; {remedy}"))
    };
    let all = NEEDED.map(kernel).into_iter().chain([ports]);
    all.map(finding).collect()
}

fn jit() -> Finding {
    let what = "BPF JIT";
    match fs::read_to_string("/proc/sys/net/core/bpf_jit_enable") {
        Ok(text) if text.trim() == "0" => Finding::new(what, State::Degraded, "off").advise(
            "the program is interpreted, several times slower a packet: \
             sysctl net.core.bpf_jit_enable=1",
        ),
        Ok(_) => Finding::new(what, State::Ok, "on"),
        // Kernels that are built with the JIT always on have no switch; others hide it.
        Err(_) => Finding::new(what, State::Ok, "no switch: always on"),
    }
}

fn bpffs() -> Finding {
    let what = "bpffs";
    let uid = geteuid().as_raw();
    if !super::pins::is_mounted() {
        return Finding::new(what, State::Degraded, "not mounted at /sys/fs/bpf").advise(
            "limiterd mounts it at its start, which needs CAP_SYS_ADMIN: \
             mount -t bpf bpf /sys/fs/bpf",
        );
    }
    let pins = DaemonConfig::default().pin_path;
    let place = if pins.exists() {
        &pins
    } else {
        Path::new(BPFFS)
    };
    match access(place, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Finding::new(what, State::Ok, format!("mounted at {BPFFS}")),
        Err(error) => {
            let found = format!("user {uid} cannot write to {}: {error}", place.display());
            let pins = pins.display();
            Finding::new(what, State::Degraded, found).advise(&format!(
                "limits in the kernel need a pinPath that belongs to user {uid}; as root: \
                 chmod 0711 {BPFFS}; install -d -m 0700 -o {uid} {pins}"
            ))
        }
    }
}

fn features() -> Vec<Finding> {
    let programs = [
        (ProgramType::Xdp, "XDP programs", State::Missing),
        (
            ProgramType::SchedClassifier,
            "traffic control programs",
            State::Degraded,
        ),
    ];
    let maps = [
        (MapType::Array, "array maps"),
        (MapType::PerCpuArray, "per-CPU array maps"),
        (MapType::LpmTrie, "longest-prefix tries"),
        (MapType::RingBuf, "ring buffers"),
    ];
    let programs = programs.map(|(kind, what, or)| {
        let supported = is_program_supported(kind).map_err(|error| error.to_string());
        feature(what, supported, or)
    });
    let maps = maps.map(|(kind, what)| {
        let supported = is_map_supported(kind).map_err(|error| error.to_string());
        feature(what, supported, State::Missing)
    });
    programs.into_iter().chain(maps).collect()
}

fn feature(what: &str, supported: Result<bool, String>, or: State) -> Finding {
    match supported {
        Ok(true) => Finding::new(what, State::Ok, "supported"),
        Ok(false) => Finding::new(what, or, "not supported").advise("the kernel is built without"),
        Err(error) => {
            Finding::new(what, or, error).advise("could not be tried: see the capabilities")
        }
    }
}

fn buffers() -> Finding {
    let what = "XDP on packets in several buffers";
    match has_buffers() {
        Ok(true) => Finding::new(what, State::Ok, "supported"),
        Ok(false) => Finding::new(what, State::Degraded, "not supported").advise(
            "before Linux 5.18: drivers refuse native XDP on interfaces with jumbo frames, and \
             limits fall back to generic XDP or traffic control",
        ),
        Err(error) => Finding::new(what, State::Degraded, error.to_string())
            .advise("the kernel's version cannot be read"),
    }
}

fn program() -> Finding {
    let what = "limiterd's programs";
    if privilege::check().is_err() {
        return Finding::new(what, State::Missing, "not tried").advise("see the capabilities");
    }
    match Trial::new(Settings {
        max_sources: 1 << 10,
        ..Settings::default()
    }) {
        Ok(_) => Finding::new(what, State::Ok, "loaded, and unloaded again"),
        Err(error) => Finding::new(what, State::Missing, error.to_string())
            .advise("the kernel refuses them: report this with the kernel's version"),
    }
}

fn interfaces() -> Vec<Finding> {
    let Ok(entries) = fs::read_dir("/sys/class/net") else {
        return vec![
            Finding::new(
                "interfaces",
                State::Degraded,
                "/sys/class/net cannot be read",
            )
            .advise("mount sysfs to have them looked at"),
        ];
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<_> = names
        .filter(|name| Path::new("/sys/class/net").join(name).is_dir())
        .collect();
    names.sort();
    names.iter().map(|name| interface(name)).collect()
}

fn interface(name: &str) -> Finding {
    let class = Path::new("/sys/class/net").join(name);
    let read = |file: &str| fs::read_to_string(class.join(file)).map(|text| text.trim().to_owned());
    let driver = fs::read_link(class.join("device/driver")).ok();
    let driver = driver
        .as_deref()
        .and_then(Path::file_name)
        .and_then(|name| name.to_str());
    let kind = read("uevent").unwrap_or_default();
    let kind = kind.lines().find_map(|line| line.strip_prefix("DEVTYPE="));
    let mtu = read("mtu")
        .ok()
        .and_then(|mtu| mtu.parse::<u32>().ok())
        .unwrap_or(0);
    let queues = fs::read_dir(class.join("queues")).map_or(0, |queues| {
        queues
            .filter_map(Result::ok)
            .filter(|q| q.file_name().as_encoded_bytes().starts_with(b"rx-"))
            .count()
    });
    let what = format!("interface {name}");
    let found = format!(
        "driver {}, MTU {mtu}, {queues} receive queues",
        driver.or(kind).unwrap_or("none")
    );
    match device::index(name).and_then(device::attached) {
        Ok(Some(attached)) => {
            let found = format!(
                "{found}; XDP program {} attached ({})",
                attached.program,
                attached.mode.name()
            );
            Finding::new(what, State::Degraded, found).advise(
                "unless it is limiterd's own, it is not replaced: limits go to the traffic control \
                 hook behind it",
            )
        }
        _ if kind == Some("vlan") => Finding::new(what, State::Degraded, found).advise(
            "generic XDP only, after the packet was built: attach to the interface below it, which \
             sees its packets too, with their tags",
        ),
        _ if class.join("bonding_slave").exists() => Finding::new(what, State::Degraded, found)
            .advise(
                "a member of a bond takes no XDP program while the bond has one: attach to the bond",
            ),
        _ if class.join("bonding").exists() => Finding::new(what, State::Ok, found).advise(
            "native XDP where the bond's mode and every member's driver can: attach here and not to \
             the members",
        ),
        _ if mtu > 3498 && driver.is_some() => Finding::new(what, State::Degraded, found).advise(
            "many drivers refuse native XDP above a page (3498 bytes for ena, 2032 for gve): then \
             generic XDP is used, at a third of the speed",
        ),
        _ if driver.is_none() && kind.is_none() && name == "lo" => {
            Finding::new(what, State::Degraded, found).advise("loopback: generic XDP only")
        }
        _ => Finding::new(what, State::Ok, found),
    }
}
