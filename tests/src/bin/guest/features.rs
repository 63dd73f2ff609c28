//! What kernels have from which version on, tried out. What should be there and is not is an
//! error: no test may be left out for the lack of it.

use std::fs;
use std::io;
use std::path::Path;

use crate::bpf::{self, SCHED_CLS, XDP, instruction};

type Version = (u32, u32);

/// Name, first version with it, trial.
type Feature = (&'static str, Version, fn() -> io::Result<()>);

const FEATURES: &[Feature] = &[
    ("XDP link, generic", (5, 9), xdp_generic),
    ("ring buffer", (5, 8), ring_buffer),
    ("coarse clock", (5, 11), coarse_clock),
    ("64-bit compare-and-swap", (5, 12), compare_and_swap),
    ("live frames", (5, 18), live_frames),
    ("tcx", (6, 6), tcx),
    ("types of the kernel (BTF)", (5, 2), kernel_types),
    ("types of modules (BTF)", (5, 11), module_types),
    ("the JIT compiler", (4, 15), jit),
];

const LOOPBACK: u32 = 1;
const DROP: i32 = 1;

/// Tries all of them, a line each.
pub(crate) fn check() -> Result<(), String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_err(|error| format!("the version of the kernel: {error}"))?;
    let version = version(&release).ok_or_else(|| format!("a version like `{release}`"))?;
    let mut missing = 0;
    for (name, since, trial) in FEATURES {
        match trial() {
            Ok(()) => println!("feature ok {name}"),
            Err(error) if version < *since => {
                println!(
                    "feature not expected before {}.{}: {name} ({error})",
                    since.0, since.1
                );
            }
            Err(error) => {
                missing += 1;
                println!("feature MISSING {name}: {error}");
            }
        }
    }
    if missing > 0 {
        return Err(format!("{missing} features are missing"));
    }
    Ok(())
}

fn version(release: &str) -> Option<Version> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// `r0 = value; exit`.
fn verdict(value: i32) -> [u64; 2] {
    [
        instruction(0xb7, 0, 0, 0, value),
        instruction(0x95, 0, 0, 0, 0),
    ]
}

fn xdp_generic() -> io::Result<()> {
    const ATTACH_XDP: u32 = 37;
    const GENERIC: u32 = 1 << 1;
    let pass = bpf::load(XDP, &verdict(2))?;
    bpf::attach(&pass, LOOPBACK, ATTACH_XDP, GENERIC).map(drop)
}

fn tcx() -> io::Result<()> {
    const ATTACH_TCX_INGRESS: u32 = 46;
    let next = bpf::load(SCHED_CLS, &verdict(-1))?;
    bpf::attach(&next, LOOPBACK, ATTACH_TCX_INGRESS, 0).map(drop)
}

fn ring_buffer() -> io::Result<()> {
    const RINGBUF: u32 = 27;
    bpf::create_map(RINGBUF, 0, 0, 4096).map(drop)
}

fn coarse_clock() -> io::Result<()> {
    const KTIME_GET_COARSE_NS: i32 = 160;
    let [result, exit] = verdict(DROP);
    let call = instruction(0x85, 0, 0, 0, KTIME_GET_COARSE_NS);
    bpf::load(XDP, &[call, result, exit]).map(drop)
}

fn compare_and_swap() -> io::Result<()> {
    const CMPXCHG: i32 = 0xf1;
    let [result, exit] = verdict(DROP);
    let instructions = [
        // r0 = 0; r1 = 1; *(u64 *)(r10 - 8) = r1; cmpxchg(r10 - 8, r0, r1)
        instruction(0xb7, 0, 0, 0, 0),
        instruction(0xb7, 1, 0, 0, 1),
        instruction(0x7b, 10, 1, -8, 0),
        instruction(0xdb, 10, 1, -8, CMPXCHG),
        result,
        exit,
    ];
    bpf::load(XDP, &instructions).map(drop)
}

fn live_frames() -> io::Result<()> {
    let drop = bpf::load(XDP, &verdict(DROP))?;
    bpf::run_live(&drop, &[0; 64])
}

fn kernel_types() -> io::Result<()> {
    exists("/sys/kernel/btf/vmlinux")
}

/// veth is loaded as a module in guests, and built in elsewhere.
fn module_types() -> io::Result<()> {
    if Path::new("/sys/module/veth/sections").exists() {
        exists("/sys/kernel/btf/veth")
    } else {
        Ok(())
    }
}

fn jit() -> io::Result<()> {
    let enabled = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable")?;
    match enabled.trim() {
        "0" => Err(io::Error::other("switched off")),
        _ => Ok(()),
    }
}

fn exists(path: &str) -> io::Result<()> {
    fs::metadata(path).map(drop)
}
