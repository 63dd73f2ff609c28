//! Which policy a packet is under, and what the policy says of its source.

use aya_ebpf::btf_maps::lpm_trie::Key;
use limiter_common::event::OTHER_PROTOCOL;
use limiter_common::key::{CIDR_LOOKUP_BITS, PORT_ENTRIES, cidr_set};
use limiter_common::policy::{FLAG_CIDRS, MAX_POLICIES};
use limiter_common::{Address, CidrAction, CidrKey, Config, Policy};

use crate::maps::{CIDRS, INTERFACES, POLICIES, PORTS, SENTENCES};
use crate::packet::Facts;
use crate::parse::Destination;

/// Id under which packets are counted that no policy has a say in.
pub(crate) const NO_POLICY: u32 = 0;

/// The policy on the packet's destination port, or else on the interface.
#[inline(always)]
pub(crate) fn policy_of(
    config: &Config,
    generation: u32,
    destination: Destination,
    facts: &impl Facts,
) -> Option<&'static Policy> {
    let mut index = 0;
    // As `key::port_index` has it: the raw destination is the index in one generation.
    if destination.protocol != OTHER_PROTOCOL
        && let Some(&policy) = PORTS.get(Config::index(
            generation,
            PORT_ENTRIES,
            destination.to_raw(),
        ))
    {
        index = policy;
    }
    if index == 0 {
        if config.interfaces == 0 {
            return None;
        }
        // SAFETY: map values stay readable for the whole run of the program, and one aligned word
        // is read whole.
        index = unsafe { INTERFACES.get([facts.ifindex(), generation & 1]).copied()? };
    }
    POLICIES.get(Config::index(generation, MAX_POLICIES, index))
}

/// What the policy's CIDRs say of `source`: those of its own class, if none names it.
#[inline(always)]
pub(crate) fn action_of(policy: &Policy, generation: u32, source: Address) -> CidrAction {
    if policy.flags & FLAG_CIDRS != 0 {
        let key = CidrKey {
            set: cidr_set(generation, policy.id),
            address: source.octets(),
        };
        if let Some(&action) = CIDRS.get(&Key::new(CIDR_LOOKUP_BITS, key)) {
            return CidrAction::from_raw(action);
        }
    }
    CidrAction::Class(policy.class)
}

/// Whether `source` serves a sentence at `now`.
#[inline(always)]
pub(crate) fn is_sentenced(config: &Config, source: Address, now: u64) -> bool {
    if config.sentences == 0 {
        return false;
    }
    match SENTENCES.get(&Key::new(128, source.octets())) {
        Some(&until) => until > now,
        None => false,
    }
}
