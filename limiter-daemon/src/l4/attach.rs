//! The program onto interfaces.
//!
//! Every attachment is a pinned `bpf_link`: it outlives the daemon, the next daemon updates it to
//! its own program in one step, and nobody else's program is ever replaced.

use std::io;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, Xdp, XdpMode};
use tracing::{info, warn};

use super::device;
use super::error::{L4Error, chain, errno, is_denied};
use super::pins::Pins;
use crate::policy::plan::{AttachMode, Interface};

/// How the program sees an interface's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before a socket buffer exists.
    Native,
    /// In the network stack, after the kernel built a socket buffer.
    Generic,
}

impl Mode {
    /// The mode as a metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// The program on one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub interface: String,
    pub ifindex: u32,
    pub mode: Mode,
    /// An earlier daemon had attached it; no packet passed unjudged in between.
    pub adopted: bool,
}

/// An interface that exists.
#[derive(Clone, Debug)]
pub(super) struct Target<'a> {
    name: &'a str,
    ifindex: u32,
    mode: AttachMode,
}

/// Looks the interfaces up.
pub(super) fn resolve(interfaces: &[Interface]) -> Result<Vec<Target<'_>>, L4Error> {
    let mut targets = Vec::with_capacity(interfaces.len());
    for Interface { name, mode } in interfaces {
        let ifindex = device::index(name).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => failed(name)(error),
            _ => L4Error::NoInterface {
                interface: name.clone(),
            },
        })?;
        targets.push(Target {
            name,
            ifindex,
            mode: *mode,
        });
    }
    Ok(targets)
}

/// Attaches `program` to all of them, or to none that it was not on before; then removes the links
/// of interfaces that are not among them.
pub(super) fn attach_all(
    program: &mut Xdp,
    targets: &[Target<'_>],
    pins: &Pins,
) -> Result<Vec<Attachment>, L4Error> {
    let mut attachments: Vec<Attachment> = Vec::with_capacity(targets.len());
    for target in targets {
        match attach(program, target, pins) {
            Ok(attachment) => {
                info!(
                    interface = attachment.interface,
                    mode = attachment.mode.name(),
                    adopted = attachment.adopted,
                    "XDP program attached"
                );
                attachments.push(attachment);
            }
            Err(error) => {
                for new in attachments.iter().filter(|attachment| !attachment.adopted) {
                    if let Err(error) = pins.remove_link(&new.interface) {
                        warn!(interface = new.interface, %error, "could not detach again");
                    }
                }
                return Err(error);
            }
        }
    }
    for interface in pins.linked()? {
        if targets.iter().all(|target| target.name != interface) {
            info!(interface, "not configured any more: detaching");
            pins.remove_link(&interface)?;
        }
    }
    pins.remove_other_versions()?;
    Ok(attachments)
}

fn attach(program: &mut Xdp, target: &Target<'_>, pins: &Pins) -> Result<Attachment, L4Error> {
    if let Some(mode) = adopt(program, target, pins)? {
        return Ok(target.attachment(mode, true));
    }
    let stale = pins.remove_link(target.name)? | pins.remove_other_links(target.name)?;
    if stale {
        info!(
            interface = target.name,
            "removed a link that cannot be adopted"
        );
    }
    if let Some(other) = target.attached()? {
        let interface = target.name.to_owned();
        return Err(L4Error::Foreign {
            interface,
            program: other.program,
        });
    }
    let link = match target.mode {
        AttachMode::Native => create(program, target, XdpMode::Driver)
            .map_err(|error| target.refused(error, native_refused))?,
        AttachMode::Generic => create(program, target, XdpMode::Skb)
            .map_err(|error| target.refused(error, attach_failed))?,
        AttachMode::Auto => create(program, target, XdpMode::Driver)
            .or_else(|native| {
                let error = native.to_string();
                warn!(
                    interface = target.name,
                    error, "no native XDP: trying generic"
                );
                create(program, target, XdpMode::Skb)
            })
            .map_err(|error| target.refused(error, attach_failed))?,
    };
    pin(link, target, pins)?;
    let mode = target
        .attached()?
        .map_or(Mode::Generic, |attached| attached.mode);
    Ok(target.attachment(mode, false))
}

/// Updates the link that an earlier daemon pinned for this interface to `program`, if that link is
/// what is attached now and its mode is admissible. Otherwise the interface was removed and made
/// anew, or the mode was changed.
fn adopt(program: &mut Xdp, target: &Target<'_>, pins: &Pins) -> Result<Option<Mode>, L4Error> {
    let path = pins.link(target.name);
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
        match program.attach_to_link(link) {
            Ok(_id) => return Ok(Some(attached.mode)),
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

fn pin(link: FdLink, target: &Target<'_>, pins: &Pins) -> Result<(), L4Error> {
    let path = pins.link(target.name);
    let _pinned = link.pin(&path).map_err(|error| {
        let error = io::Error::other(chain(&error));
        L4Error::Pin { path, error }
    })?;
    Ok(())
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
    fn attachment(&self, mode: Mode, adopted: bool) -> Attachment {
        let interface = self.name.to_owned();
        Attachment {
            interface,
            ifindex: self.ifindex,
            mode,
            adopted,
        }
    }

    fn attached(&self) -> Result<Option<device::Attached>, L4Error> {
        device::attached(self.ifindex).map_err(failed(self.name))
    }

    const fn admits(&self, mode: Mode) -> bool {
        match self.mode {
            AttachMode::Auto => true,
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

fn failed(interface: &str) -> impl Fn(io::Error) -> L4Error {
    move |error| L4Error::Interface {
        interface: interface.to_owned(),
        error,
    }
}
