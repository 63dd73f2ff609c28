//! Ethernet, with up to two VLAN tags.

use limiter_common::Reason;

use super::frame::Frame;

pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;
/// IEEE 802.1Q.
const VLAN: u16 = 0x8100;
/// IEEE 802.1ad: the outer tag of two.
const SERVICE_VLAN: u16 = 0x88a8;

/// Both addresses, before the ethertype.
const ADDRESSES: usize = 12;
/// A tag: two bytes of control information, then the next ethertype.
const TAG: usize = 4;
const MAX_TAGS: u32 = 2;

/// The ethertype after any VLAN tags, and where the network header begins. A third tag is left
/// unread: its ethertype is then no IP.
#[inline(always)]
pub(crate) fn network_layer(frame: &Frame) -> Result<(u16, usize), Reason> {
    let mut ethertype = u16::from_be_bytes(*frame.read(ADDRESSES)?);
    let mut network = ADDRESSES + 2;
    for _ in 0..MAX_TAGS {
        if ethertype != VLAN && ethertype != SERVICE_VLAN {
            break;
        }
        let [_, _, high, low] = *frame.read::<TAG>(network)?;
        ethertype = u16::from_be_bytes([high, low]);
        network += TAG;
    }
    Ok((ethertype, network))
}
