//! Starting `limiterd` on sockets that are open already, as systemd does (sd_listen_fds(3)).

use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::daemon::binary;

/// The first descriptor that is passed.
const FIRST: RawFd = 3;
/// No descriptor of the tests is as high.
const HIGH: RawFd = 500;

/// `limiterd` with these sockets and their names; arguments are to be added. The sockets are to stay
/// open until it is started.
#[must_use]
pub fn activated(sockets: &[(&str, BorrowedFd<'_>)]) -> Command {
    let fds: Vec<RawFd> = sockets.iter().map(|(_, fd)| fd.as_raw_fd()).collect();
    let names: Vec<_> = sockets.iter().map(|(name, _)| *name).collect();
    let mut command = Command::new("sh");
    command
        .args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""])
        .arg(binary())
        .env("LISTEN_FDS", fds.len().to_string())
        .env("LISTEN_FDNAMES", names.join(":"));
    let pass = move || {
        // Out of the way first: one may have the number that another is to have.
        for (fd, high) in fds.iter().zip(HIGH..) {
            dup2(*fd, high)?;
        }
        for (high, low) in (HIGH..).zip(FIRST..).take(fds.len()) {
            dup2(high, low)?;
            // SAFETY: this process' own descriptor, which nothing refers to.
            unsafe { libc::close(high) };
        }
        Ok(())
    };
    // SAFETY: only system calls between fork and exec.
    unsafe { command.pre_exec(pass) };
    command
}

fn dup2(from: RawFd, to: RawFd) -> std::io::Result<()> {
    // SAFETY: after the fork nothing refers to descriptors by number but what is passed here.
    if unsafe { libc::dup2(from, to) } < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}
