//! What this kernel and these interfaces can do for the kernel half, without changing anything.

use std::fs;
use std::path::Path;

use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{is_map_supported, is_program_supported};
use aya::util::KernelVersion;
use serde::Serialize;

use super::device;
use super::trial::{Settings, Trial, has_buffers};

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

/// Bits of `CapEff` in `/proc/self/status` (`linux/capability.h`).
const CAPABILITIES: [(u32, &str, &str); 2] = [
    (12, "CAP_NET_ADMIN", "needed to attach to interfaces"),
    (39, "CAP_BPF", "needed to load the program and its maps"),
];
const CAP_SYS_ADMIN: u32 = 21;

const OLDEST: (u32, u32) = (5, 15);
const TCX: (u32, u32) = (6, 6);

/// Looks at everything; the interfaces are all that `/sys/class/net` lists.
#[must_use]
pub fn probe() -> Vec<Finding> {
    let mut findings = vec![kernel(), privilege(), jit(), bpffs()];
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
                      clsact filter, which cannot be replaced without a gap";
        Finding::new(what, State::Degraded, found).advise(advice)
    } else {
        Finding::new(what, State::Ok, found)
    }
}

fn privilege() -> Finding {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let effective = effective.unwrap_or(0);
    let has = |bit: u32| effective & (1 << bit) != 0;
    // CAP_SYS_ADMIN stands for CAP_BPF (capabilities(7)).
    let missing: Vec<_> = CAPABILITIES
        .iter()
        .filter(|(bit, name, _)| !(has(*bit) || *name == "CAP_BPF" && has(CAP_SYS_ADMIN)))
        .collect();
    let what = "privilege";
    if missing.is_empty() {
        return Finding::new(what, State::Ok, "CAP_BPF and CAP_NET_ADMIN");
    }
    let found: Vec<_> = missing
        .iter()
        .map(|(_, name, why)| format!("no {name}, {why}"))
        .collect();
    Finding::new(what, State::Missing, found.join("; "))
        .advise("run as root, or give the service these capabilities (AmbientCapabilities=)")
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
    match super::pins::is_mounted() {
        true => Finding::new(what, State::Ok, "mounted at /sys/fs/bpf"),
        false => Finding::new(what, State::Degraded, "not mounted at /sys/fs/bpf").advise(
            "limiterd mounts it at its start, which needs CAP_SYS_ADMIN: \
             mount -t bpf bpf /sys/fs/bpf",
        ),
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
        Err(error) => Finding::new(what, or, error).advise("could not be tried: see privilege"),
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
        _ if kind == Some("bond") || kind == Some("vlan") => Finding::new(
            what,
            State::Degraded,
            found,
        )
        .advise(
            "attach to the interfaces below it: generic XDP only here, after the packet was built",
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
