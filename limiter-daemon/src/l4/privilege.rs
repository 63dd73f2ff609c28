//! The capabilities that the kernel half works with (capabilities(7)), and which of them there are.

use std::fmt;

use rustix::thread::{CapabilitySet, capabilities};

/// A capability, and what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    pub set: CapabilitySet,
    /// As `AmbientCapabilities=` takes it.
    pub name: &'static str,
    /// What limiterd does with it.
    pub purpose: &'static str,
}

pub const BPF: Capability = Capability {
    set: CapabilitySet::BPF,
    name: "CAP_BPF",
    purpose: "to make BPF maps and load programs",
};
pub const NET_ADMIN: Capability = Capability {
    set: CapabilitySet::NET_ADMIN,
    name: "CAP_NET_ADMIN",
    purpose: "to load programs for packets and attach them to interfaces",
};
/// Without it the verifier takes no address in a packet that depends on the packet, for what could be
/// read in speculative execution.
pub const PERFMON: Capability = Capability {
    set: CapabilitySet::PERFMON,
    name: "CAP_PERFMON",
    purpose: "to have programs accepted that find their way through headers",
};
pub const NET_BIND_SERVICE: Capability = Capability {
    set: CapabilitySet::NET_BIND_SERVICE,
    name: "CAP_NET_BIND_SERVICE",
    purpose: "to listen on privileged ports",
};

/// What limits in the kernel cannot do without.
pub const NEEDED: [Capability; 3] = [BPF, NET_ADMIN, PERFMON];

/// Capabilities that are missing, with what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing(pub Vec<Capability>);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, capability) in self.0.iter().enumerate() {
            let and = if index > 0 { ", " } else { "" };
            write!(f, "{and}no {} ({})", capability.name, capability.purpose)?;
        }
        write!(f, ": {}", Remedy(&self.0))
    }
}

/// How to get capabilities, beside those that are needed in any case.
pub(super) struct Remedy<'a>(pub(super) &'a [Capability]);

impl fmt::Display for Remedy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let further = self.0.iter().filter(|one| !NEEDED.contains(one));
        let names: Vec<_> = NEEDED.iter().chain(further).map(|one| one.name).collect();
        write!(
            f,
            "run as root, or set `AmbientCapabilities={}` in the systemd unit, or \
             `setcap {}+ep` on the executable",
            names.join(" "),
            names.join(",").to_lowercase()
        )
    }
}

/// Whether this thread has a capability. `CAP_SYS_ADMIN` stands for `CAP_BPF` and `CAP_PERFMON`, which
/// were made of it.
pub(super) fn has(capability: Capability) -> bool {
    let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    stands_for(effective, capability)
}

fn stands_for(effective: CapabilitySet, capability: Capability) -> bool {
    let of_admin = [BPF, PERFMON].contains(&capability);
    effective.contains(capability.set) || of_admin && effective.contains(CapabilitySet::SYS_ADMIN)
}

/// Whether this thread has what limits in the kernel need.
pub(super) fn check() -> Result<(), Missing> {
    let missing: Vec<_> = NEEDED.into_iter().filter(|one| !has(*one)).collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Missing(missing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_purpose_and_remedy() {
        let text = Missing(vec![BPF, NET_BIND_SERVICE]).to_string();
        for part in [
            "no CAP_BPF (to make BPF maps",
            ", no CAP_NET_BIND_SERVICE (to listen",
            "`AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_PERFMON CAP_NET_BIND_SERVICE`",
            "`setcap cap_bpf,cap_net_admin,cap_perfmon,cap_net_bind_service+ep`",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
    }

    #[test]
    fn the_administrator_stands_for_what_was_made_of_it() {
        let admin = CapabilitySet::SYS_ADMIN;
        assert!(stands_for(admin, BPF) && stands_for(admin, PERFMON));
        assert!(!stands_for(admin, NET_ADMIN));
        assert!(stands_for(CapabilitySet::NET_ADMIN, NET_ADMIN));
        assert!(!stands_for(CapabilitySet::NET_ADMIN, BPF));
    }
}
