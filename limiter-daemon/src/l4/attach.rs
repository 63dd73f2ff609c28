//! The program onto interfaces.
//!
//! XDP and tcx attachments are pinned `bpf_link`s: they outlive the daemon, and the next one updates
//! them to its own program in one step. A clsact filter outlives it as well and is replaced as
//! smoothly; that it is ours, a pin of its program says. Nobody else's program is ever replaced.

mod follow;
mod tc;
mod xdp;

use std::io;

use aya::Ebpf;
use tracing::{info, warn};

pub(super) use self::follow::follow;
pub(super) use self::tc::detach_clsact;
use super::device;
use super::error::{Foreign, L4Error};
use super::load;
use super::pins::{Hook, Pins};
use crate::policy::plan::{AttachMode, Interface};

/// How the program sees an interface's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// XDP in the driver, before a socket buffer exists.
    Native,
    /// XDP in the network stack, after the kernel built a socket buffer.
    Generic,
    /// Traffic control, by a link of its own.
    Tcx,
    /// Traffic control, by a filter under the qdisc `clsact`.
    Clsact,
}

impl Mode {
    /// The mode as a metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }

    const fn hook(self) -> Hook {
        match self {
            Self::Native | Self::Generic => Hook::Xdp,
            Self::Tcx => Hook::Tcx,
            Self::Clsact => Hook::Clsact,
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
    /// Whose XDP program is on the interface, if it is not ours: why ours is behind it.
    pub behind: Option<Foreign>,
    /// What the interface is called now, if it was renamed: the program stays on it until there is
    /// another of the configured name, or it is gone.
    pub renamed: Option<String>,
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
    interfaces
        .iter()
        .map(|interface| {
            find(interface)?.ok_or_else(|| L4Error::NoInterface {
                interface: interface.name.clone(),
            })
        })
        .collect()
}

/// Looks an interface up; `None` if there is none of its name.
fn find(interface: &Interface) -> Result<Option<Target<'_>>, L4Error> {
    let Interface { name, mode } = interface;
    match device::index(name) {
        Ok(ifindex) => Ok(Some(Target {
            name,
            ifindex,
            mode: *mode,
        })),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(failed(name)(error)),
        Err(_) => Ok(None),
    }
}

/// Attaches to all of them, or to none that it was not on before; then removes the links of
/// interfaces that are not among them.
pub(super) fn attach_all(
    ebpf: &mut Ebpf,
    targets: &[Target<'_>],
    pins: &Pins,
) -> Result<Vec<Attachment>, L4Error> {
    let mut attachments: Vec<Attachment> = Vec::with_capacity(targets.len());
    for target in targets {
        match attach(ebpf, target, pins) {
            Ok(attachment) => attachments.push(attachment),
            Err(error) => {
                for new in attachments.iter().filter(|attachment| !attachment.adopted) {
                    if let Err(error) = pins.remove_links(&new.interface) {
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
            pins.remove_links(&interface)?;
        }
    }
    pins.remove_other_versions()?;
    Ok(attachments)
}

/// Attaches to one interface, in the best way that its mode admits.
fn attach(ebpf: &mut Ebpf, target: &Target<'_>, pins: &Pins) -> Result<Attachment, L4Error> {
    let attachment = match target.mode {
        AttachMode::Native | AttachMode::Generic => on_xdp(ebpf, target, pins),
        AttachMode::Tcx => on_tcx(ebpf, target, pins),
        AttachMode::Clsact => on_clsact(ebpf, target, pins),
        AttachMode::Auto => match on_xdp(ebpf, target, pins) {
            Err(L4Error::Foreign { program, .. }) => behind(ebpf, target, pins, program),
            other => other,
        },
    }?;
    // Only now, so that no packet goes by unjudged; one in between may be judged twice.
    pins.remove_links_but(target.name, attachment.mode.hook())?;
    info!(
        interface = attachment.interface,
        mode = attachment.mode.name(),
        adopted = attachment.adopted,
        "program attached"
    );
    Ok(attachment)
}

/// Attaches where an XDP program of somebody else is.
fn behind(
    ebpf: &mut Ebpf,
    target: &Target<'_>,
    pins: &Pins,
    program: Foreign,
) -> Result<Attachment, L4Error> {
    warn!(
        interface = target.name,
        %program, "another XDP program is attached and is not replaced: trying traffic control"
    );
    let attached = on_tcx(ebpf, target, pins).or_else(|tcx| {
        info!(interface = target.name, error = %tcx, "no tcx: trying clsact");
        on_clsact(ebpf, target, pins).map_err(|clsact| L4Error::NoWay {
            interface: target.name.to_owned(),
            program: program.clone(),
            tcx: tcx.to_string(),
            clsact: clsact.to_string(),
        })
    })?;
    Ok(Attachment {
        behind: Some(program),
        ..attached
    })
}

fn on_xdp(ebpf: &mut Ebpf, target: &Target<'_>, pins: &Pins) -> Result<Attachment, L4Error> {
    xdp::attach(load::limiter(ebpf)?, target, pins)
}

fn on_tcx(ebpf: &mut Ebpf, target: &Target<'_>, pins: &Pins) -> Result<Attachment, L4Error> {
    tc::attach_tcx(load::classifier(ebpf)?, target, pins)
}

fn on_clsact(ebpf: &mut Ebpf, target: &Target<'_>, pins: &Pins) -> Result<Attachment, L4Error> {
    tc::attach_clsact(load::classifier(ebpf)?, target, pins)
}

impl Target<'_> {
    fn attachment(&self, mode: Mode, adopted: bool) -> Attachment {
        Attachment {
            interface: self.name.to_owned(),
            ifindex: self.ifindex,
            mode,
            adopted,
            behind: None,
            renamed: None,
        }
    }
}

fn failed(interface: &str) -> impl Fn(io::Error) -> L4Error {
    move |error| L4Error::Interface {
        interface: interface.to_owned(),
        error,
    }
}
