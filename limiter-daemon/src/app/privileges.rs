//! The privileges of the process: as few as there can be, from the start on.
//!
//! Capabilities belong to threads. The control thread, which sets everything up, gives up in two
//! steps what it has no use for; the workers, which read what strangers send, never have any.

use std::net::SocketAddr;
use std::{io, thread};

use anyhow::Context as _;
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};

use crate::l4::privilege::{Missing, NET_BIND_SERVICE};

/// For the set-up, where it was given: to mount bpffs and to learn whose an XDP program is
/// (`SYS_ADMIN`), and to take over pins of a daemon that ran as another user.
const SETTING_UP: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE);

/// For reloads: to listen on further ports, and to read policy files that are another user's.
const RELOADING: CapabilitySet =
    CapabilitySet::NET_BIND_SERVICE.union(CapabilitySet::DAC_READ_SEARCH);

/// For interfaces that come back, to which the program is attached again.
const KERNEL: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::PERFMON);

/// Gives up what the daemon never needs, and everything that a process that it started could get.
/// Call it before there are other threads.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn at_start() -> anyhow::Result<()> {
    reduce(SETTING_UP | RELOADING | KERNEL).context("cannot give up privileges")
}

/// Gives up what only the set-up needed.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn after_set_up(kernel_in_use: bool) -> anyhow::Result<()> {
    let kept = if kernel_in_use {
        KERNEL | RELOADING
    } else {
        RELOADING
    };
    let made_of_it = CapabilitySet::BPF | CapabilitySet::PERFMON;
    let kept = if kernel_in_use && !capabilities(None)?.permitted.contains(made_of_it) {
        // It stands for them then.
        kept | CapabilitySet::SYS_ADMIN
    } else {
        kept
    };
    keep(kept).context("cannot give up privileges")?;
    let left = capabilities(None)?.permitted;
    tracing::info!(capabilities = names(left), "privileges given up");
    Ok(())
}

/// Does `work` on a thread that has no capabilities. Nor have the threads that it starts.
///
/// # Errors
/// When the kernel refuses, and what `work` returns.
pub(super) fn without<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let unprivileged = scope.spawn(|| {
            keep(CapabilitySet::empty())?;
            work()
        });
        unprivileged
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Says what is missing, if `error` is that an address may not be listened on.
pub(super) fn explain(error: anyhow::Error, address: SocketAddr) -> anyhow::Error {
    let io = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<io::Error>());
    if io.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
        let port = address.port();
        let missing = Missing(vec![NET_BIND_SERVICE]);
        error.context(format!(
            "port {port} is privileged (those below net.ipv4.ip_unprivileged_port_start are), and \
             there is {missing}"
        ))
    } else {
        error
    }
}

fn reduce(kept: CapabilitySet) -> io::Result<()> {
    set_no_new_privs(true)?;
    clear_ambient_capability_set()?;
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match capability_is_in_bounding_set(capability) {
            Ok(true) => {}
            Ok(false) => continue,
            // There are no more.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // It takes CAP_SETPCAP. Without new privileges the bounding set bounds nothing.
            Err(Errno::PERM) => break,
            Err(error) => return Err(error.into()),
        }
    }
    keep(kept)
}

/// Gives up the capabilities of this thread that are not among `kept`.
fn keep(kept: CapabilitySet) -> io::Result<()> {
    let permitted = capabilities(None)?.permitted & kept;
    let sets = CapabilitySets {
        effective: permitted,
        permitted,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, sets)?)
}

/// As capabilities(7) writes them, without `CAP_`.
fn names(set: CapabilitySet) -> String {
    let names: Vec<_> = set.iter_names().map(|(name, _)| name).collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_without_capabilities_and_the_caller_keeps_its_own() {
        let before = capabilities(None).unwrap();
        let inside = without(|| Ok(capabilities(None)?)).unwrap();
        assert!(inside.permitted.is_empty() && inside.effective.is_empty());
        let further = without(|| {
            let thread = thread::spawn(|| capabilities(None));
            Ok(thread.join().unwrap()?)
        });
        assert!(further.unwrap().permitted.is_empty());
        assert_eq!(capabilities(None).unwrap(), before);
    }

    #[test]
    fn a_refused_port_names_the_capability() {
        let address = "192.0.2.1:80".parse().unwrap();
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let text = format!("{:#}", explain(denied.into(), address));
        assert!(text.contains("port 80 is privileged"), "{text}");
        assert!(text.contains("no CAP_NET_BIND_SERVICE"), "{text}");
        let in_use = io::Error::from(io::ErrorKind::AddrInUse);
        let text = format!("{:#}", explain(in_use.into(), address));
        assert!(!text.contains("CAP_"), "{text}");
    }

    #[test]
    fn capabilities_have_their_names() {
        assert_eq!(names(CapabilitySet::empty()), "none");
        assert_eq!(names(KERNEL), "NET_ADMIN PERFMON BPF");
    }
}
