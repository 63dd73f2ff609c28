//! Connection attempts made by hand: TCP SYNs from a raw socket, none of which is ever completed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use etherparse::TcpHeader;
use socket2::{Domain, Protocol, Socket, Type};

/// First source port used; each attempt takes the next one.
pub const FIRST_PORT: u16 = 20_000;

/// Sends `count` SYNs from `source` to `target`, as far as the interface has room for them, spread over `time` in slices of 10 ms; the time it
/// really took. Runs in the namespace of the calling thread.
///
/// # Errors
/// When a packet cannot be sent.
#[expect(
    clippy::disallowed_methods,
    reason = "the rate of a flood is in real time"
)]
pub fn syns(source: IpAddr, target: SocketAddr, count: u16, time: Duration) -> Result<Duration> {
    const SLICE: Duration = Duration::from_millis(10);
    let socket = Socket::new(Domain::for_address(target), Type::RAW, Some(Protocol::TCP))?;
    // A raw IPv6 socket takes a port only as a protocol number: 0.
    let to = SocketAddr::new(target.ip(), 0).into();
    let slices = u32::try_from((time.as_millis() / SLICE.as_millis()).max(1))?;
    let begin = Instant::now();
    let mut sent = 0;
    for slice in 1..=slices {
        let due = u32::from(count) * slice / slices;
        while u32::from(sent) < due {
            let packet = syn(source, target, FIRST_PORT + sent)?;
            match socket.send_to(&packet, &to) {
                // The interface's queue is full, and it counts the packet as dropped. IPv6 tells the
                // sender so, IPv4 does not.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                sent => drop(sent?),
            }
            sent += 1;
        }
        std::thread::sleep((SLICE * slice).saturating_sub(begin.elapsed()));
    }
    Ok(begin.elapsed())
}

fn syn(source: IpAddr, target: SocketAddr, port: u16) -> Result<Vec<u8>> {
    let mut tcp = TcpHeader::new(port, target.port(), 1, 1024);
    tcp.syn = true;
    tcp.checksum = match (source, target.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            tcp.calc_checksum_ipv4_raw(octets4(from), octets4(to), &[])?
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            tcp.calc_checksum_ipv6_raw(octets6(from), octets6(to), &[])?
        }
        _ => bail!("source and target are of two families"),
    };
    Ok(tcp.to_bytes().to_vec())
}

fn octets4(address: Ipv4Addr) -> [u8; 4] {
    address.octets()
}

fn octets6(address: Ipv6Addr) -> [u8; 16] {
    address.octets()
}
