//! The bpf system call, as much of it as the checks of features need.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

const MAP_CREATE: libc::c_long = 0;
const PROG_LOAD: libc::c_long = 5;
const PROG_TEST_RUN: libc::c_long = 10;
const LINK_CREATE: libc::c_long = 28;

/// As long as any version's `union bpf_attr` up to what is used here; the kernel takes what is 0
/// behind what it knows.
const SIZE: usize = 128;

pub(crate) const XDP: u32 = 6;
pub(crate) const SCHED_CLS: u32 = 3;

/// The argument of the call, filled in by offset.
#[repr(C, align(8))]
struct Attributes([u8; SIZE]);

impl Attributes {
    fn new() -> Self {
        Self([0; SIZE])
    }

    fn with<const N: usize>(mut self, offset: usize, value: [u8; N]) -> Self {
        self.0[offset..offset + N].copy_from_slice(&value);
        self
    }

    fn u32(self, offset: usize, value: u32) -> Self {
        self.with(offset, value.to_ne_bytes())
    }

    fn u64(self, offset: usize, value: u64) -> Self {
        self.with(offset, value.to_ne_bytes())
    }

    fn fd(self, offset: usize, fd: &OwnedFd) -> Self {
        self.with(offset, fd.as_raw_fd().to_ne_bytes())
    }

    /// # Safety
    /// Addresses among the attributes are of memory that is as long as they say, and lives.
    unsafe fn call(mut self, command: libc::c_long) -> io::Result<i32> {
        // SAFETY: the attributes are as long as told, and what they point to is as the caller says.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_mut_ptr(), self.0.len()) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        i32::try_from(result).map_err(io::Error::other)
    }

    /// # Safety
    /// As [`Attributes::call`], and the command is one that returns a new descriptor.
    unsafe fn open(self, command: libc::c_long) -> io::Result<OwnedFd> {
        // SAFETY: as the caller says.
        let fd = unsafe { self.call(command) }?;
        // SAFETY: the kernel just made it for us.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// An instruction: opcode, destination, source, offset, immediate.
pub(crate) fn instruction(opcode: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> u64 {
    let mut bytes = [opcode, src << 4 | dst, 0, 0, 0, 0, 0, 0];
    bytes[2..4].copy_from_slice(&offset.to_ne_bytes());
    bytes[4..].copy_from_slice(&immediate.to_ne_bytes());
    u64::from_ne_bytes(bytes)
}

/// Loads a program; the verifier has its say.
pub(crate) fn load(kind: u32, instructions: &[u64]) -> io::Result<OwnedFd> {
    let licence = c"GPL";
    let count = u32::try_from(instructions.len()).map_err(io::Error::other)?;
    let attributes = Attributes::new()
        .u32(0, kind)
        .u32(4, count)
        .u64(8, instructions.as_ptr() as u64)
        .u64(16, licence.as_ptr() as u64);
    // SAFETY: so many instructions, and a string that ends in 0; both outlive the call.
    unsafe { attributes.open(PROG_LOAD) }
}

pub(crate) fn create_map(kind: u32, key: u32, value: u32, entries: u32) -> io::Result<OwnedFd> {
    let attributes = Attributes::new()
        .u32(0, kind)
        .u32(4, key)
        .u32(8, value)
        .u32(12, entries);
    // SAFETY: no addresses.
    unsafe { attributes.open(MAP_CREATE) }
}

/// Gives a program one packet as a real frame (`BPF_F_TEST_XDP_LIVE_FRAMES`).
pub(crate) fn run_live(program: &OwnedFd, packet: &[u8]) -> io::Result<()> {
    const LIVE_FRAMES: u32 = 1 << 1;
    let length = u32::try_from(packet.len()).map_err(io::Error::other)?;
    let attributes = Attributes::new()
        .fd(0, program)
        .u32(8, length)
        .u64(16, packet.as_ptr() as u64)
        .u32(32, 1)
        .u32(64, LIVE_FRAMES);
    // SAFETY: the packet is as long as told and outlives the call; no room for output is named.
    unsafe { attributes.call(PROG_TEST_RUN) }.map(drop)
}

/// Attaches a program to an interface by a link, which ends when the descriptor is closed.
pub(crate) fn attach(
    program: &OwnedFd,
    interface: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let attributes = Attributes::new()
        .fd(0, program)
        .u32(4, interface)
        .u32(8, attach_type)
        .u32(12, flags);
    // SAFETY: no addresses.
    unsafe { attributes.open(LINK_CREATE) }
}
