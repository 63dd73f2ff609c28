//! Packets and what becomes of them, as a table.

use std::time::Duration;

use limiter_common::Reason;
use limiter_daemon::l4::trial::{Action, Program, has_buffers};

use crate::packet::*;
use crate::support::{PORT, WEB, limit, policy, send_by, trial};

/// A packet, and the reason under which it is to be counted.
type Fixture = (&'static str, Vec<u8>, Reason);

/// By every program: `PORT` is under a policy with room for `connections` = 1 token and for many packets: so a SYN
/// that follows another one is `OverConnections`, and everything else on the port conforms.
fn check(fixtures: Vec<Fixture>) {
    let second = Duration::from_secs(1);
    let web = policy(Some(limit(1, 1, second)), Some(limit(1 << 20, 1, second)));
    let mut programs = vec![Program::Limiter, Program::LimiterTc];
    if has_buffers().unwrap() {
        programs.push(Program::LimiterBuffers);
    }
    for program in programs {
        let trial = trial(std::slice::from_ref(&web));
        for source in [tcp_v4([192, 0, 2, 1], PORT, SYN), tcp_v6(1, 1, PORT, SYN)] {
            let (_, counter) = send_by(&trial, program, &source);
            assert_eq!(counter.reason, Reason::Conforming, "the first SYN");
        }
        for (description, packet, reason) in &fixtures {
            if program == Program::LimiterTc && packet.len() < least_for_tc(packet) {
                continue;
            }
            let action = if reason.is_drop() {
                Action::Drop
            } else {
                Action::Pass
            };
            let under_policy =
                *reason != Reason::HeaderChain && *reason as u32 >= Reason::Conforming as u32;
            let expected = (action, under_policy.then(|| WEB.to_owned()), *reason);
            let (action, counter) = send_by(&trial, program, packet);
            let found = (action, counter.policy, counter.reason);
            assert_eq!(found, expected, "{description} on {program:?}");
        }
    }
}

/// The kernel makes no socket buffer of less than the header that the ethertype promises.
fn least_for_tc(frame: &[u8]) -> usize {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => 14 + 20,
        Some([0x86, 0xdd]) => 14 + 40,
        _ => 15,
    }
}

/// What a SYN to the port comes to in [`check`]: proof that port, flags and source were found.
const SEEN: Reason = Reason::OverConnections;

#[test]
fn link_layer() {
    let syn = V4::default().packet(&tcp(PORT, SYN));
    let arp = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 192, 0, 2, 1];
    check(vec![
        ("untagged", ethernet(&[], IPV4, &syn), SEEN),
        ("one VLAN tag", ethernet(&[0x8100], IPV4, &syn), SEEN),
        ("one service tag", ethernet(&[0x88a8], IPV4, &syn), SEEN),
        ("QinQ", ethernet(&[0x88a8, 0x8100], IPV4, &syn), SEEN),
        (
            "two VLAN tags",
            ethernet(&[0x8100, 0x8100], IPV4, &syn),
            SEEN,
        ),
        (
            "three tags",
            ethernet(&[0x88a8, 0x8100, 0x8100], IPV4, &syn),
            Reason::NotIp,
        ),
        ("ARP", ethernet(&[], 0x0806, &arp), Reason::NotIp),
        (
            "ARP in a VLAN",
            ethernet(&[0x8100], 0x0806, &arp),
            Reason::NotIp,
        ),
        ("LLDP", ethernet(&[], 0x88cc, &[0; 46]), Reason::NotIp),
        (
            "IEEE 802.3 length",
            ethernet(&[], 46, &[0; 46]),
            Reason::NotIp,
        ),
        ("no payload", ethernet(&[], IPV4, &[]), Reason::Unparsable),
        (
            "IPv6 in an IPv4 frame",
            ethernet(&[], IPV4, &v6(1, 1, &[], TCP, &tcp(PORT, SYN))),
            Reason::Unparsable,
        ),
        (
            "IPv4 in an IPv6 frame",
            ethernet(&[], IPV6, &[syn, vec![0; 40]].concat()),
            Reason::Unparsable,
        ),
    ]);
}

#[test]
fn ipv4() {
    let v4 = V4::default;
    let padded = |mut frame: Vec<u8>| {
        frame.resize(60, 0);
        frame
    };
    let short_header = {
        let mut frame = v4().frame(&tcp(PORT, SYN));
        frame[14] = 0x44;
        frame
    };
    check(vec![
        (
            "one word of options",
            V4 {
                options: &[1; 4],
                ..v4()
            }
            .frame(&tcp(PORT, SYN)),
            SEEN,
        ),
        (
            "ten words of options",
            V4 {
                options: &[1; 40],
                ..v4()
            }
            .frame(&tcp(PORT, SYN)),
            SEEN,
        ),
        ("header of 16 bytes", short_header, Reason::Unparsable),
        (
            "don't fragment",
            V4 {
                fragment: 0x4000,
                ..v4()
            }
            .frame(&tcp(PORT, SYN)),
            SEEN,
        ),
        (
            "first fragment",
            V4 {
                fragment: MORE,
                ..v4()
            }
            .frame(&tcp(PORT, SYN)),
            SEEN,
        ),
        (
            "first fragment without SYN",
            V4 {
                fragment: MORE,
                ..v4()
            }
            .frame(&tcp(PORT, ACK)),
            Reason::Conforming,
        ),
        (
            "middle fragment",
            V4 {
                fragment: MORE | 3,
                ..v4()
            }
            .frame(&tcp(PORT, SYN)),
            Reason::Fragment,
        ),
        (
            "last fragment",
            V4 {
                fragment: 1,
                ..v4()
            }
            .frame(&tcp(PORT, SYN)),
            Reason::Fragment,
        ),
        (
            "first fragment that ends before the flags",
            V4 {
                fragment: MORE,
                ..v4()
            }
            .frame(&tcp(PORT, SYN)[..8]),
            SEEN,
        ),
        (
            "the same, padded by the sender",
            padded(
                V4 {
                    fragment: MORE,
                    ..v4()
                }
                .frame(&tcp(PORT, SYN)[..8]),
            ),
            SEEN,
        ),
        (
            "first fragment without a port",
            V4 {
                fragment: MORE,
                ..v4()
            }
            .frame(&[]),
            Reason::Unparsable,
        ),
        (
            "whole segment, padded",
            padded(v4().frame(&tcp(PORT, SYN))),
            SEEN,
        ),
        (
            "ICMP",
            V4 {
                protocol: 1,
                ..v4()
            }
            .frame(&[8, 0, 0, 0, 0, 1, 0, 1]),
            Reason::Untargeted,
        ),
        (
            "GRE",
            V4 {
                protocol: 47,
                ..v4()
            }
            .frame(&[0; 24]),
            Reason::Untargeted,
        ),
        (
            "IPv6 in IPv4",
            V4 {
                protocol: 41,
                ..v4()
            }
            .frame(&v6(1, 1, &[], TCP, &tcp(PORT, SYN))),
            Reason::Untargeted,
        ),
    ]);
}

#[test]
fn transport() {
    let v4 = |segment: &[u8]| V4::default().frame(segment);
    let on_udp = V4 {
        protocol: UDP,
        ..V4::default()
    }
    .frame(&udp(PORT));
    check(vec![
        ("SYN", v4(&tcp(PORT, SYN)), SEEN),
        ("SYN+FIN", v4(&tcp(PORT, SYN | FIN)), SEEN),
        ("SYN+RST", v4(&tcp(PORT, SYN | RST)), SEEN),
        ("SYN with ECN flags", v4(&tcp(PORT, SYN | 0xc0)), SEEN),
        (
            "SYN with data (fast open)",
            v4(&[tcp(PORT, SYN), vec![7; 64]].concat()),
            SEEN,
        ),
        ("SYN+ACK", v4(&tcp(PORT, SYN | ACK)), Reason::Conforming),
        ("ACK", v4(&tcp(PORT, ACK)), Reason::Conforming),
        ("FIN+ACK", v4(&tcp(PORT, FIN | ACK)), Reason::Conforming),
        ("RST", v4(&tcp(PORT, RST)), Reason::Conforming),
        ("no flags", v4(&tcp(PORT, 0)), Reason::Conforming),
        ("all flags", v4(&tcp(PORT, 0xff)), Reason::Conforming),
        ("another port", v4(&tcp(PORT + 1, SYN)), Reason::Untargeted),
        (
            "the port with its bytes swapped",
            v4(&tcp(PORT.swap_bytes(), SYN)),
            Reason::Untargeted,
        ),
        ("the port as UDP", on_udp, Reason::Untargeted),
    ]);
}

#[test]
fn ipv6() {
    let v6 = |extensions: &[(u8, Vec<u8>)]| {
        ethernet(&[], IPV6, &v6(1, 1, extensions, TCP, &tcp(PORT, SYN)))
    };
    let options = |units: usize| vec![0; units * 8 - 2];
    let authentication = |words: usize| vec![0; words * 4 - 2];
    let eight: Vec<_> = (0..8).map(|_| (DESTINATION, options(1))).collect();
    let nine: Vec<_> = (0..9).map(|_| (DESTINATION, options(1))).collect();
    let all = vec![
        (HOP_BY_HOP, options(1)),
        (DESTINATION, options(2)),
        (ROUTING, options(3)),
        (FRAGMENT, fragment(0, false)),
        (AUTHENTICATION, authentication(6)),
        (MOBILITY, options(1)),
    ];
    check(vec![
        ("no extension", v6(&[]), SEEN),
        ("in a VLAN", ethernet(&[0x8100], IPV6, &v6(&[])[14..]), SEEN),
        ("hop-by-hop options", v6(&[(HOP_BY_HOP, options(1))]), SEEN),
        ("routing", v6(&[(ROUTING, options(3))]), SEEN),
        (
            "destination options",
            v6(&[(DESTINATION, options(2))]),
            SEEN,
        ),
        (
            "the longest extension",
            v6(&[(DESTINATION, options(256))]),
            SEEN,
        ),
        (
            "authentication",
            v6(&[(AUTHENTICATION, authentication(6))]),
            SEEN,
        ),
        ("mobility", v6(&[(MOBILITY, options(1))]), SEEN),
        ("one of each", v6(&all), SEEN),
        ("a chain of eight", v6(&eight), SEEN),
        ("a chain of nine", v6(&nine), Reason::HeaderChain),
        (
            "atomic fragment",
            v6(&[(FRAGMENT, fragment(0, false))]),
            SEEN,
        ),
        ("first fragment", v6(&[(FRAGMENT, fragment(0, true))]), SEEN),
        (
            "middle fragment",
            v6(&[(FRAGMENT, fragment(3, true))]),
            Reason::Fragment,
        ),
        (
            "last fragment",
            v6(&[(FRAGMENT, fragment(3, false))]),
            Reason::Fragment,
        ),
        (
            "extension cut short",
            v6(&[(DESTINATION, options(2))])[..14 + 40 + 7].to_vec(),
            Reason::Unparsable,
        ),
    ]);
}

#[test]
fn ipv6_protocols() {
    let v6 = |extensions: &[(u8, Vec<u8>)], protocol, payload: &[u8]| {
        ethernet(&[], IPV6, &v6(1, 1, extensions, protocol, payload))
    };
    let tiny = [(FRAGMENT, fragment(0, true))];
    check(vec![
        (
            "ICMPv6",
            v6(&[], 58, &[128, 0, 0, 0, 0, 1, 0, 1]),
            Reason::Untargeted,
        ),
        (
            "multicast listener report after options",
            v6(&[(HOP_BY_HOP, vec![0; 6])], 58, &[143, 0, 0, 0, 0, 0, 0, 0]),
            Reason::Vital,
        ),
        ("UDP", v6(&[], UDP, &udp(PORT)), Reason::Untargeted),
        ("ESP", v6(&[], 50, &[0; 24]), Reason::Untargeted),
        ("no next header", v6(&[], 59, &[]), Reason::Untargeted),
        (
            "first fragment that ends before the flags",
            v6(&tiny, TCP, &tcp(PORT, SYN)[..8]),
            SEEN,
        ),
        (
            "first fragment that ends before the port",
            v6(&tiny, TCP, &[]),
            Reason::Unparsable,
        ),
        (
            "another port",
            v6(&[], TCP, &tcp(80, SYN)),
            Reason::Untargeted,
        ),
        (
            "SYN+ACK",
            v6(&[], TCP, &tcp(PORT, SYN | ACK)),
            Reason::Conforming,
        ),
    ]);
}

/// Cut at every byte, a packet is unparsable up to the last header byte that is needed, and seen for
/// what it is from there on. (The kernel runs the program on no fewer than 14 bytes.)
#[test]
fn truncation_at_every_byte() {
    let v4 = V4::default().packet(&tcp(PORT, SYN));
    let options = V4 {
        options: &[1; 12],
        ..V4::default()
    }
    .packet(&tcp(PORT, SYN));
    let datagram = V4 {
        protocol: UDP,
        ..V4::default()
    }
    .packet(&udp(PORT));
    let plain = v6(1, 1, &[], TCP, &tcp(PORT, SYN));
    let chain = [
        (HOP_BY_HOP, vec![0; 6]),
        (AUTHENTICATION, vec![0; 22]),
        (FRAGMENT, fragment(0, false)),
        (DESTINATION, vec![0; 14]),
    ];
    let chain = v6(1, 1, &chain, TCP, &tcp(PORT, SYN));
    let packets = [
        ("IPv4", ethernet(&[], IPV4, &v4), 6, SEEN),
        (
            "IPv4 in QinQ",
            ethernet(&[0x88a8, 0x8100], IPV4, &v4),
            6,
            SEEN,
        ),
        ("IPv4 options", ethernet(&[], IPV4, &options), 6, SEEN),
        ("UDP", ethernet(&[], IPV4, &datagram), 4, Reason::Untargeted),
        ("IPv6", ethernet(&[], IPV6, &plain), 6, SEEN),
        (
            "IPv6 extensions",
            ethernet(&[0x8100], IPV6, &chain),
            6,
            SEEN,
        ),
    ];
    for (description, packet, spare, whole) in packets {
        let needed = packet.len() - spare;
        let cuts = (14..=packet.len()).map(|length| {
            let reason = if length < needed {
                Reason::Unparsable
            } else {
                whole
            };
            (description, packet[..length].to_vec(), reason)
        });
        check(cuts.collect());
    }
}
