//! Traffic control, behind XDP: tcx where the kernel has it (6.6 and later), the qdisc clsact
//! otherwise.

use std::mem;

use aya::programs::links::{FdLink, LinkOrder, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact,
};
use aya::programs::{Link as _, ProgramError, SchedClassifier, TcAttachType};
use tracing::{debug, warn};

use super::{Attachment, Mode, Target};
use crate::l4::error::{L4Error, chain, errno, is_denied};
use crate::l4::pins::{Hook, Pins};
use crate::l4::sys;

/// Where our filter stands under clsact: among the first, at a handle that is not given by itself.
const PRIORITY: u16 = 1;
const HANDLE: TcHandle = TcHandle::new(0x11d, 0x11d);

/// Attaches by a link, first of the programs on the hook: what it drops, nobody after it sees.
pub(super) fn attach_tcx(
    program: &mut SchedClassifier,
    target: &Target<'_>,
    pins: &Pins,
) -> Result<Attachment, L4Error> {
    loop {
        if adopt(program, target, pins) {
            return Ok(target.attachment(Mode::Tcx, true));
        }
        if !pins.take_other_link(target.name, Hook::Tcx)? {
            break;
        }
    }
    pins.remove_link(target.name, Hook::Tcx)?;
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let link = program
        .attach_with_options(target.name, TcAttachType::Ingress, options)
        .and_then(|id| program.take_link(id))
        .map_err(|error| refused(target, &error, tcx_refused))?;
    let link = FdLink::try_from(link)
        .map_err(|error| tcx_refused(target.name.to_owned(), chain(&error)))?;
    pins.pin_link(link, target.name, Hook::Tcx)?;
    Ok(target.attachment(Mode::Tcx, false))
}

/// Updates the link that an earlier daemon pinned for this interface to `program`, if it is still
/// attached there.
fn adopt(program: &mut SchedClassifier, target: &Target<'_>, pins: &Pins) -> bool {
    let pinned = PinnedLink::from_pin(pins.link(target.name, Hook::Tcx));
    let Ok(link) = pinned.map(FdLink::from) else {
        return false;
    };
    let attached = link.info().is_ok_and(|info| {
        sys::tcx_programs(target.ifindex)
            .is_ok_and(|programs| programs.contains(&info.program_id()))
    });
    if !attached {
        return false;
    }
    let Ok(link) = SchedClassifierLink::try_from(link) else {
        return false;
    };
    // The pin alone holds the link, so that without it the program is off.
    match program
        .attach_to_link(link)
        .and_then(|id| program.take_link(id))
    {
        Ok(_link) => true,
        Err(error) => {
            let error = chain(&error);
            warn!(
                interface = target.name,
                error, "the pinned link takes no new program"
            );
            false
        }
    }
}

/// Attaches by a filter. It stays when the daemon dies, and the next daemon replaces its program in
/// one step. Under the pin is the program: a filter itself cannot be pinned.
pub(super) fn attach_clsact(
    program: &mut SchedClassifier,
    target: &Target<'_>,
    pins: &Pins,
) -> Result<Attachment, L4Error> {
    let ours = pins.forget_clsact(target.name)?;
    let adopted = ours && replace(program, target);
    if !adopted {
        // An error other than that it is there will be met again by the filter.
        if let Err(error) = qdisc_add_clsact(target.name) {
            debug!(interface = target.name, %error, "clsact");
        }
        let options = TcAttachOptions::Netlink(NlOptions {
            priority: PRIORITY,
            handle: HANDLE,
            classid: None,
        });
        let id = program
            .attach_with_options(target.name, TcAttachType::Ingress, options)
            .map_err(|error| refused(target, &error, clsact_refused))?;
        keep(program.take_link(id), target)?;
    }
    let path = pins.link(target.name, Hook::Clsact);
    if let Err(error) = program.pin(&path) {
        detach_clsact(target.name);
        let error = std::io::Error::other(chain(&error));
        return Err(L4Error::Pin { path, error });
    }
    Ok(target.attachment(Mode::Clsact, adopted))
}

/// Gives the filter that an earlier daemon left `program`.
fn replace(program: &mut SchedClassifier, target: &Target<'_>) -> bool {
    let Ok(link) = filter(target.name) else {
        return false;
    };
    let replaced = program
        .attach_to_link(link)
        .and_then(|id| program.take_link(id));
    match replaced {
        Ok(link) => {
            mem::forget(link);
            true
        }
        Err(error) => {
            let error = chain(&error);
            debug!(
                interface = target.name,
                error, "no filter of an earlier daemon"
            );
            false
        }
    }
}

/// Removes our filter from the interface. Errors do not matter: then there is none.
pub(in crate::l4) fn detach_clsact(interface: &str) {
    if let Ok(link) = filter(interface)
        && let Err(error) = link.detach()
    {
        debug!(interface, error = chain(&error), "clsact");
    }
}

fn filter(interface: &str) -> std::io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(interface, TcAttachType::Ingress, PRIORITY, HANDLE, None)
}

/// Keeps the filter in place when the link is dropped: the link holds names, nothing to close.
fn keep(
    link: Result<SchedClassifierLink, ProgramError>,
    target: &Target<'_>,
) -> Result<(), L4Error> {
    link.map(mem::forget)
        .map_err(|error| refused(target, &error, clsact_refused))
}

fn refused(
    target: &Target<'_>,
    error: &ProgramError,
    other: fn(String, String) -> L4Error,
) -> L4Error {
    if is_denied(error) {
        return L4Error::NotPermitted {
            action: "attach a traffic control program",
        };
    }
    let text = errno(error).map_or_else(|| chain(error), |error| error.to_string());
    other(target.name.to_owned(), text)
}

fn tcx_refused(interface: String, error: String) -> L4Error {
    L4Error::TcxRefused { interface, error }
}

fn clsact_refused(interface: String, error: String) -> L4Error {
    L4Error::ClsactRefused { interface, error }
}
