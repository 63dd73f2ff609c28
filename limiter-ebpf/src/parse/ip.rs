//! IPv4 with options; IPv6 with extension headers.

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use limiter_common::{Address, Reason};

use super::frame::Frame;

/// Not 0, a power of two: IPv4 sources are drawn at random from so many addresses instead of read
/// from the packet. For benchmarks, which repeat one packet; set when the program is loaded.
#[unsafe(no_mangle)]
static VARY_SOURCES: Global<u32> = Global::new(0);

/// Extension headers in a row; packets with more are dropped. Senders need no more than
/// five kinds, each once (RFC 8200 section 4.1).
const MAX_EXTENSIONS: u32 = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;

/// What IP says about its payload.
pub(crate) struct Packet {
    pub(crate) source: Address,
    pub(crate) protocol: u8,
    /// Where the transport header begins.
    pub(crate) payload: usize,
    /// Where the payload ends by the IP header's own account; the frame may be longer (padding).
    pub(crate) end: usize,
    /// The first of several fragments.
    pub(crate) first_fragment: bool,
}

#[inline(always)]
pub(crate) fn v4(frame: &Frame, network: usize) -> Result<Packet, Reason> {
    let header: &[u8; 20] = frame.read(network)?;
    let length = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || length < 20 {
        return Err(Reason::Unparsable);
    }
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    if fragment & 0x1fff != 0 {
        return Err(Reason::Fragment);
    }
    Ok(Packet {
        source: Address::v4(vary([header[12], header[13], header[14], header[15]])),
        protocol: header[9],
        payload: network + length,
        end: network + usize::from(u16::from_be_bytes([header[2], header[3]])),
        first_fragment: fragment & 0x2000 != 0,
    })
}

#[inline(always)]
pub(crate) fn vary(address: [u8; 4]) -> [u8; 4] {
    match VARY_SOURCES.load() {
        0 => address,
        // SAFETY: a helper without arguments.
        sources => (unsafe { bpf_get_prandom_u32() } & (sources - 1)).to_be_bytes(),
    }
}

#[inline(always)]
pub(crate) fn v6(frame: &Frame, network: usize) -> Result<Packet, Reason> {
    let header: &[u8; 40] = frame.read(network)?;
    if header[0] >> 4 != 6 {
        return Err(Reason::Unparsable);
    }
    let mut address = [0; 16];
    address.copy_from_slice(&header[8..24]);
    let source = Address::v6(address);
    if source.is_v4() {
        // An IPv4-mapped source: the stack refuses it, and the bucket would be that of another.
        return Err(Reason::Unparsable);
    }
    let stated = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let mut packet = Packet {
        source,
        protocol: header[6],
        payload: network + 40,
        end: network + 40 + stated,
        first_fragment: false,
    };
    let mut extensions = 0;
    while is_extension(packet.protocol) {
        if extensions == MAX_EXTENSIONS {
            return Err(Reason::HeaderChain);
        }
        extensions += 1;
        skip_extension(frame, &mut packet)?;
    }
    Ok(packet)
}

/// Whether the IPv6 header at `network` is followed by an extension header.
#[inline(always)]
pub(crate) fn has_extensions(frame: &Frame, network: usize) -> bool {
    frame
        .read::<40>(network)
        .is_ok_and(|header| is_extension(header[6]))
}

/// What the stack looks behind for a port. ESP is not among them: what follows is encrypted.
#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION | MOBILITY
    )
}

/// Moves `packet` past the extension header that its payload begins with.
#[inline(always)]
fn skip_extension(frame: &Frame, packet: &mut Packet) -> Result<(), Reason> {
    let header: &[u8; 8] = frame.read(packet.payload)?;
    let units = usize::from(header[1]);
    packet.payload += match packet.protocol {
        FRAGMENT => {
            let fragment = u16::from_be_bytes([header[2], header[3]]);
            if fragment & 0xfff8 != 0 {
                return Err(Reason::Fragment);
            }
            packet.first_fragment |= fragment & 1 != 0;
            8
        }
        AUTHENTICATION => (units + 2) * 4,
        _ => (units + 1) * 8,
    };
    packet.protocol = header[0];
    Ok(())
}
