//! Packets, layer by layer, as bytes.

pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const FIN: u8 = 0x01;
pub(crate) const RST: u8 = 0x04;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMP_V6: u8 = 58;

pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;

pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const AUTHENTICATION: u8 = 51;
pub(crate) const DESTINATION: u8 = 60;
pub(crate) const MOBILITY: u8 = 135;

/// `MF`, and offsets in units of eight bytes, of an IPv4 header.
pub(crate) const MORE: u16 = 0x2000;

/// An Ethernet frame with these VLAN tags (by their ethertypes).
pub(crate) fn ethernet(tags: &[u16], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for (vlan, tag) in (100_u16..).zip(tags) {
        frame.extend(tag.to_be_bytes());
        frame.extend(vlan.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 packet.
pub(crate) struct V4<'a> {
    pub(crate) source: [u8; 4],
    pub(crate) options: &'a [u8],
    /// Flags and offset.
    pub(crate) fragment: u16,
    pub(crate) protocol: u8,
}

impl Default for V4<'_> {
    fn default() -> Self {
        Self {
            source: [192, 0, 2, 1],
            options: &[],
            fragment: 0,
            protocol: TCP,
        }
    }
}

impl V4<'_> {
    pub(crate) fn packet(&self, payload: &[u8]) -> Vec<u8> {
        assert_eq!(self.options.len() % 4, 0);
        let header = 20 + self.options.len();
        let total = u16::try_from(header + payload.len()).unwrap();
        let mut packet = vec![0x40 | u8::try_from(header / 4).unwrap(), 0];
        packet.extend(total.to_be_bytes());
        packet.extend([0x12, 0x34]);
        packet.extend(self.fragment.to_be_bytes());
        packet.extend([64, self.protocol, 0, 0]);
        packet.extend(self.source);
        packet.extend([198, 51, 100, 1]);
        packet.extend(self.options);
        packet.extend(payload);
        packet
    }

    pub(crate) fn frame(&self, payload: &[u8]) -> Vec<u8> {
        ethernet(&[], IPV4, &self.packet(payload))
    }
}

/// A TCP segment from IPv4 source `source`.
pub(crate) fn tcp_v4(source: [u8; 4], port: u16, flags: u8) -> Vec<u8> {
    V4 {
        source,
        ..V4::default()
    }
    .frame(&tcp(port, flags))
}

/// A TCP segment from IPv6 source `2001:db8:0:<net>::<host>`.
pub(crate) fn tcp_v6(net: u16, host: u16, port: u16, flags: u8) -> Vec<u8> {
    ethernet(&[], IPV6, &v6(net, host, &[], TCP, &tcp(port, flags)))
}

/// An IPv6 packet with extension headers: the kind of each, and its bytes from the third on.
pub(crate) fn v6(
    net: u16,
    host: u16,
    extensions: &[(u8, Vec<u8>)],
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut rest = Vec::new();
    let kinds = extensions.iter().map(|(kind, _)| *kind).chain([protocol]);
    for ((kind, body), next) in extensions.iter().zip(kinds.clone().skip(1)) {
        assert_eq!(
            (body.len() + 2) % if *kind == AUTHENTICATION { 4 } else { 8 },
            0
        );
        let length = match *kind {
            FRAGMENT => 0,
            AUTHENTICATION => (body.len() + 2) / 4 - 2,
            _ => (body.len() + 2) / 8 - 1,
        };
        rest.extend([next, u8::try_from(length).unwrap()]);
        rest.extend(body);
    }
    rest.extend(payload);

    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
    packet.extend([kinds.clone().next().unwrap(), 64]);
    packet.extend(address(net, host));
    packet.extend(address(0xffff, 1));
    packet.extend(rest);
    packet
}

/// `2001:db8:0:<net>::<host>`.
pub(crate) fn address(net: u16, host: u16) -> [u8; 16] {
    std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, net, 0, 0, 0, host).octets()
}

/// An IPv6 fragment header's body: an offset in units of eight bytes, and whether more follow.
pub(crate) fn fragment(offset: u16, more: bool) -> Vec<u8> {
    let field = (offset << 3 | u16::from(more)).to_be_bytes();
    vec![field[0], field[1], 0, 0, 0, 7]
}

/// A TCP header of 20 bytes to this port.
pub(crate) fn tcp(port: u16, flags: u8) -> Vec<u8> {
    let mut header = vec![0x9c, 0x40];
    header.extend(port.to_be_bytes());
    header.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    header
}

/// A UDP datagram of 8 + 4 bytes to this port.
pub(crate) fn udp(port: u16) -> Vec<u8> {
    let mut datagram = vec![0x9c, 0x40];
    datagram.extend(port.to_be_bytes());
    datagram.extend([0, 12, 0, 0, 1, 2, 3, 4]);
    datagram
}

/// A UDP datagram from IPv4 source `source`.
pub(crate) fn udp_v4(source: [u8; 4], port: u16) -> Vec<u8> {
    V4 {
        source,
        protocol: UDP,
        ..V4::default()
    }
    .frame(&udp(port))
}

/// An ICMP message of this type from IPv4 source `source`.
pub(crate) fn icmp_v4(source: [u8; 4], kind: u8, code: u8) -> Vec<u8> {
    V4 {
        source,
        protocol: ICMP,
        ..V4::default()
    }
    .frame(&[kind, code, 0, 0, 0, 0, 0, 0])
}

/// An ICMPv6 message of this type.
pub(crate) fn icmp_v6(kind: u8) -> Vec<u8> {
    let packet = v6(1, 1, &[], ICMP_V6, &[kind, 0, 0, 0, 0, 0, 0, 0]);
    ethernet(&[], IPV6, &packet)
}
