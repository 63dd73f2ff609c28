//! XDP: by a link, in the driver or in the network stack.

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, Xdp, XdpMode, loaded_programs};
use tracing::{info, warn};

use super::{Attachment, Mode, Target, failed};
use crate::l4::device;
use crate::l4::error::{Foreign, L4Error, chain, errno, is_denied};
use crate::l4::pins::{Hook, Pins};
use crate::policy::plan::AttachMode;

/// Attaches, unless somebody else's program is there ([`L4Error::Foreign`]).
pub(super) fn attach(
    program: &mut Xdp,
    target: &Target<'_>,
    pins: &Pins,
) -> Result<Attachment, L4Error> {
    loop {
        if let Some(mode) = adopt(program, target, pins)? {
            return Ok(target.attachment(mode, true));
        }
        if !pins.take_other_link(target.name, Hook::Xdp)? {
            break;
        }
    }
    if pins.remove_link(target.name, Hook::Xdp)? {
        info!(
            interface = target.name,
            "removed a link that cannot be adopted"
        );
    }
    if let Some(other) = target.attached()? {
        return Err(L4Error::Foreign {
            interface: target.name.to_owned(),
            program: foreign(other.program),
        });
    }
    let link = match target.mode {
        AttachMode::Native => create(program, target, XdpMode::Driver)
            .map_err(|error| target.refused(error, native_refused))?,
        AttachMode::Generic => create(program, target, XdpMode::Skb)
            .map_err(|error| target.refused(error, attach_failed))?,
        AttachMode::Auto | AttachMode::Tcx | AttachMode::Clsact => {
            create(program, target, XdpMode::Driver)
                .or_else(|native| {
                    let error = native.to_string();
                    warn!(
                        interface = target.name,
                        error, "no native XDP: trying generic"
                    );
                    create(program, target, XdpMode::Skb)
                })
                .map_err(|error| target.refused(error, attach_failed))?
        }
    };
    pins.pin_link(link, target.name, Hook::Xdp)?;
    let mode = target
        .attached()?
        .map_or(Mode::Generic, |attached| attached.mode);
    Ok(target.attachment(mode, false))
}

/// Somebody else's program, with its name if the kernel tells (it wants `CAP_SYS_ADMIN` for that).
fn foreign(id: u32) -> Foreign {
    let program = loaded_programs().flatten().find(|info| info.id() == id);
    let name = program.and_then(|info| info.name_as_str().map(str::to_owned));
    Foreign { id, name }
}

/// Updates the link that an earlier daemon pinned for this interface to `program`, if that link is
/// what is attached now and its mode is admissible. Otherwise the interface was removed and made
/// anew, or the mode was changed.
fn adopt(program: &mut Xdp, target: &Target<'_>, pins: &Pins) -> Result<Option<Mode>, L4Error> {
    let path = pins.link(target.name, Hook::Xdp);
    if !path.exists() {
        return Ok(None);
    }
    if let Some(attached) = target.attached()?
        && target.admits(attached.mode)
        && let Ok(link) = PinnedLink::from_pin(&path).map(FdLink::from)
        && link
            .info()
            .is_ok_and(|info| info.program_id() == attached.program)
        && let Ok(link) = XdpLink::try_from(link)
    {
        // The pin alone holds the link, so that without it the program is off.
        match program
            .attach_to_link(link)
            .and_then(|id| program.take_link(id))
        {
            Ok(_link) => return Ok(Some(attached.mode)),
            Err(error) => {
                let error = chain(&error);
                warn!(
                    interface = target.name,
                    error, "the pinned link takes no new program"
                );
            }
        }
    }
    Ok(None)
}

/// A new link.
fn create(program: &mut Xdp, target: &Target<'_>, mode: XdpMode) -> Result<FdLink, AttachError> {
    let id = program.attach_to_if_index(target.ifindex, mode)?;
    // On EINVAL aya falls back to netlink, which makes an attachment that cannot be pinned and has
    // no owner. Its conversions leak it, so it must be told by the id, and only `Debug` tells.
    if !format!("{id:?}").contains("FdLinkId") {
        program.detach(id)?;
        return Err(AttachError::NoLink);
    }
    let link = program.take_link(id)?;
    FdLink::try_from(link).map_err(|_not_an_fd| AttachError::NoLink)
}

/// Why an interface did not take the program.
#[derive(Debug, thiserror::Error)]
enum AttachError {
    #[error("no bpf_link")]
    NoLink,
    #[error("{}", chain(.0))]
    Program(#[from] ProgramError),
}

impl Target<'_> {
    fn attached(&self) -> Result<Option<device::Attached>, L4Error> {
        device::attached(self.ifindex).map_err(failed(self.name))
    }

    const fn admits(&self, mode: Mode) -> bool {
        match self.mode {
            AttachMode::Auto | AttachMode::Tcx | AttachMode::Clsact => true,
            AttachMode::Native => matches!(mode, Mode::Native),
            AttachMode::Generic => matches!(mode, Mode::Generic),
        }
    }

    fn refused(&self, error: AttachError, other: fn(String, String) -> L4Error) -> L4Error {
        let interface = self.name.to_owned();
        match error {
            AttachError::NoLink => L4Error::NoLink { interface },
            AttachError::Program(error) if is_denied(&error) => L4Error::NotPermitted {
                action: "attach an XDP program",
            },
            AttachError::Program(error) => {
                let text = errno(&error).map_or_else(|| chain(&error), |error| error.to_string());
                other(interface, text)
            }
        }
    }
}

fn native_refused(interface: String, error: String) -> L4Error {
    L4Error::NativeRefused { interface, error }
}

fn attach_failed(interface: String, error: String) -> L4Error {
    L4Error::Attach { interface, error }
}
