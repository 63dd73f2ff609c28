//! QEMU's debug-exit device. `/dev/port` is not in cloud kernels, hence `ioperm`.

use std::arch::asm;
use std::io;

/// Where `-device isa-debug-exit,iobase=0xf4` listens.
const PORT: u16 = 0xf4;

/// Ends the virtual machine; QEMU's exit status is twice `number` plus one.
pub(crate) fn leave(number: u8) -> Result<(), String> {
    // SAFETY: `ioperm` takes numbers only; it changes which ports this process may use.
    let allowed = unsafe { libc::ioperm(u64::from(PORT), 1, 1) };
    if allowed != 0 {
        return Err(format!("ioperm: {}", io::Error::last_os_error()));
    }
    // SAFETY: a port of the debug device, which no driver uses; no memory is touched.
    unsafe { asm!("out dx, al", in("dx") PORT, in("al") number, options(nomem, nostack)) };
    Err("the machine still runs; is it one of QEMU's, with isa-debug-exit?".to_owned())
}
