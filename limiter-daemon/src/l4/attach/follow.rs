//! Interfaces that go, come back and change their names while the daemon runs.

use aya::Ebpf;
use tracing::warn;

use super::{Attachment, Mode, Target, attach, detach_clsact, failed, find};
use crate::l4::error::L4Error;
use crate::l4::pins::Pins;
use crate::l4::{device, load, sys};
use crate::policy::plan::Interface;

/// What became of an interface with the program on it.
enum Fate {
    /// Nothing.
    Same,
    /// It has another name now.
    Renamed(String),
    /// The program is to be taken off what it may still be on, for this reason.
    Lost(&'static str),
}

/// Attaches to interfaces that have come (back), and removes those that are gone from `attachments`.
/// One interface that makes trouble does not keep from the others; of several, the first is told.
pub(in crate::l4) fn follow(
    ebpf: &mut Ebpf,
    interfaces: &[Interface],
    attachments: &mut Vec<Attachment>,
    pins: &Pins,
) -> Result<(), L4Error> {
    let mut result = Ok(());
    // All of these first: two interfaces may have exchanged their names.
    for interface in interfaces {
        let released = release(ebpf, interface, attachments, pins);
        result = result.and(released);
    }
    for interface in interfaces {
        if attachments
            .iter()
            .any(|one| one.interface == interface.name)
        {
            continue;
        }
        match find(interface)
            .and_then(|found| found.map(|target| attach(ebpf, &target, pins)).transpose())
        {
            Ok(attached) => attachments.extend(attached),
            Err(error) => {
                warn!(interface = interface.name, %error, "not attached");
                result = result.and(Err(error));
            }
        }
    }
    result
}

/// Looks after the attachment to one interface, if there is one.
fn release(
    ebpf: &mut Ebpf,
    interface: &Interface,
    attachments: &mut Vec<Attachment>,
    pins: &Pins,
) -> Result<(), L4Error> {
    let ours = |one: &Attachment| one.interface == interface.name;
    let Some(place) = attachments.iter().position(ours) else {
        return Ok(());
    };
    let Some(attachment) = attachments.get_mut(place) else {
        return Ok(());
    };
    match fate(ebpf, attachment, find(interface)?.as_ref())? {
        Fate::Same => attachment.renamed = None,
        Fate::Renamed(name) if attachment.renamed.as_deref() == Some(&name) => {}
        Fate::Renamed(name) => {
            warn!(
                interface = interface.name,
                now = name,
                "the interface was renamed; the program stays on it until there is another of the \
                 configured name"
            );
            attachment.renamed = Some(name);
        }
        Fate::Lost(why) => {
            warn!(interface = interface.name, "{why}");
            attachment.let_go();
            attachments.remove(place);
            pins.remove_links(&interface.name)?;
        }
    }
    Ok(())
}

/// What became of an attachment, where the configured name now leads to `target`.
fn fate(
    ebpf: &mut Ebpf,
    attachment: &Attachment,
    target: Option<&Target<'_>>,
) -> Result<Fate, L4Error> {
    let ifindex = attachment.ifindex;
    let fate = match target {
        Some(target) if target.ifindex != ifindex => {
            return Ok(Fate::Lost("another interface has the name now"));
        }
        Some(_) => Fate::Same,
        None => match device::name(ifindex).map_err(failed(&attachment.interface))? {
            Some(name) => Fate::Renamed(name),
            None => return Ok(Fate::Lost("the interface is gone")),
        },
    };
    let on = match attachment.mode {
        Mode::Native | Mode::Generic => {
            let ours = load::id(load::limiter(ebpf)?.info())?;
            device::attached(ifindex).map(|found| found.is_some_and(|found| found.program == ours))
        }
        Mode::Tcx => {
            let ours = load::id(load::classifier(ebpf)?.info())?;
            sys::tcx_programs(ifindex).map(|programs| programs.contains(&ours))
        }
        Mode::Clsact => Ok(true),
    };
    // An error means that the interface is just going: the next look tells.
    Ok(if on.unwrap_or(true) {
        fate
    } else {
        Fate::Lost("the program is not on the interface any more")
    })
}

impl Attachment {
    /// Takes a filter off, whatever its interface is called now. Links need no name.
    pub(in crate::l4) fn let_go(&self) {
        if self.mode == Mode::Clsact
            && let Ok(Some(name)) = device::name(self.ifindex)
        {
            detach_clsact(&name);
        }
    }
}
