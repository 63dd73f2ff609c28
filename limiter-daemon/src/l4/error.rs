//! What can keep the kernel half from working: each error says where, and what to do about it.

use std::path::PathBuf;
use std::{fmt, io};

use aya::maps::MapError;
use aya::programs::ProgramError;

use super::privilege::Missing;

/// A program that is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    pub id: u32,
    /// As its owner named it; `None` where the kernel does not tell us.
    pub name: Option<String>,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "id {}", self.id)?;
        match &self.name {
            Some(name) => write!(f, ", `{name}`"),
            None => Ok(()),
        }
    }
}

/// Why the kernel half could not be started or changed.
#[derive(Debug, thiserror::Error)]
pub enum L4Error {
    #[error("Linux {major}.{minor} is too old: limits in the kernel need 5.15 or later")]
    KernelTooOld { major: u32, minor: u32 },

    #[error("limits in the kernel: {0}")]
    Unprivileged(Missing),

    #[error(
        "may not {action}, although the capabilities are there: they are of no use in a user \
         namespace of a container's own, and a seccomp profile, a security module or a locked-down \
         kernel may forbid it"
    )]
    NotPermitted { action: &'static str },

    #[error(
        "{path} is to be on the BPF file system, which is not mounted at {bpffs}, and mounting it \
         needs CAP_SYS_ADMIN: as root, `mount -t bpf bpf {bpffs}` (systemd does it at boot), and \
         `install -d -m 0700 -o {uid} {path}`"
    )]
    NotMounted {
        path: PathBuf,
        bpffs: &'static str,
        uid: u32,
    },

    #[error(
        "{path}: permission denied; limiterd runs as user {uid}, whose directory it has to be, below \
         directories that user may enter: as root, `install -d -m 0700 -o {uid} {path}`, and for \
         /sys/fs/bpf `chmod 0711 /sys/fs/bpf`"
    )]
    PinDenied { path: PathBuf, uid: u32 },

    #[error(
        "{path} belongs to user {owner}, as whom an earlier limiterd ran, and this one runs as user \
         {uid}: as root, `chown -R {uid} {root}`, or `rm -r {root}` to begin anew"
    )]
    PinOwner {
        path: PathBuf,
        root: PathBuf,
        owner: u32,
        uid: u32,
    },

    #[error("interface {interface}: no such interface; `ip link` lists those there are")]
    NoInterface { interface: String },

    #[error("interface {interface}: {error}")]
    Interface { interface: String, error: io::Error },

    #[error(
        "interface {interface}: another XDP program ({program}) is attached and is not \
         replaced; remove it (`ip link set dev {interface} xdp off`, or the daemon that owns \
         it), set the interface's mode to Auto, Tcx or Clsact, or take it out of LimiterConfig"
    )]
    Foreign { interface: String, program: Foreign },

    #[error(
        "interface {interface}: another XDP program ({program}) is attached and is not \
         replaced, and traffic control does not take ours: tcx: {tcx}; clsact: {clsact}"
    )]
    NoWay {
        interface: String,
        program: Foreign,
        tcx: String,
        clsact: String,
    },

    #[error(
        "interface {interface}: tcx refused the program ({error}); it needs Linux 6.6 or later: \
         set the interface's mode to Auto or Clsact"
    )]
    TcxRefused { interface: String, error: String },

    #[error("interface {interface}: the qdisc clsact refused the program: {error}")]
    ClsactRefused { interface: String, error: String },

    #[error(
        "interface {interface}: the driver refused native XDP ({error}); check its MTU and queue \
         count, or set the interface's mode to Auto or Generic"
    )]
    NativeRefused { interface: String, error: String },

    #[error("interface {interface}: XDP could not be attached: {error}")]
    Attach { interface: String, error: String },

    #[error(
        "interface {interface}: the kernel offers no bpf_link for XDP, so the program would \
         outlive the daemon unnoticed; detached again"
    )]
    NoLink { interface: String },

    #[error(
        "{path} is not on a BPF file system; mount one (`mount -t bpf bpf /sys/fs/bpf`) or set \
         pinPath to a directory on one"
    )]
    NotBpffs { path: PathBuf },

    #[error("{path} is in use by another limiterd; stop it, or set another pinPath")]
    InUse { path: PathBuf },

    #[error("{path}: {error}")]
    Pin { path: PathBuf, error: io::Error },

    #[error("the kernel refused the XDP program: {0}")]
    Load(String),

    #[error("the kernel gave no random numbers: {0}")]
    Random(io::Error),

    #[error("map {map}: {error}")]
    Map { map: &'static str, error: MapError },

    #[error("policy {name}: its name is longer than {max} bytes")]
    NameTooLong { name: String, max: usize },

    #[error("{found} network policies; the kernel half holds {max}")]
    TooManyPolicies { found: usize, max: usize },

    #[error("{found} CIDRs in network policies; the kernel half holds {max}")]
    TooManyCidrs { found: usize, max: usize },

    #[error("policy {policy}: {found} levels of limits; the kernel half holds {max}")]
    TooManyLevels {
        policy: String,
        found: usize,
        max: usize,
    },

    #[error("more than {max} policies and rules together; the kernel half holds no more")]
    TooManyClasses { max: usize },

    #[error("{max} sources are blocked already; the kernel half holds no more")]
    TooManySentences { max: usize },

    #[error("{protocol} port {port}: both policy {first} and policy {second} target it")]
    PortTaken {
        protocol: &'static str,
        port: u16,
        first: String,
        second: String,
    },

    #[error("interface {interface}: both policy {first} and policy {second} target it")]
    InterfaceTaken {
        interface: String,
        first: String,
        second: String,
    },
}

/// Whether an operation failed for want of privilege. `EACCES` is not that: the verifier answers so
/// when it refuses a program.
pub(super) fn is_denied(error: &ProgramError) -> bool {
    let denied = Some(rustix::io::Errno::PERM.raw_os_error());
    errno(error).is_some_and(|error| error.raw_os_error() == denied)
}

/// The error that the kernel gave.
pub(super) fn errno(error: &ProgramError) -> Option<io::Error> {
    let code = match error {
        ProgramError::LoadError { io_error, .. } => io_error.raw_os_error(),
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        ProgramError::XdpError(aya::programs::XdpError::NetlinkError(error))
        | ProgramError::TcError(aya::programs::tc::TcError::NetlinkError(error))
        | ProgramError::NetlinkError(error) => error.raw_os_error(),
        _ => None,
    };
    code.map(io::Error::from_raw_os_error)
}

/// An error with all its causes: aya puts the kernel's answer into the last one.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
