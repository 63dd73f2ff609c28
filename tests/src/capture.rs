//! What really arrives on a wire: a packet socket, whose packets are read when it is stopped, so that
//! none is missed by a reader that is late.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read as _};
use std::mem::size_of;
use std::os::fd::AsRawFd as _;
use std::ptr;

use anyhow::{Context as _, Result, ensure};
use etherparse::{SlicedPacket, TransportSlice};
use rustix::net::netdevice::name_to_index;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use socket2::{Domain, Socket, Type};

use crate::netns::Netns;

/// For all that may arrive: answers to a flood, were there no limit.
const ROOM: usize = 64 << 20;
/// Longer than a frame.
const FRAME: usize = 64 << 10;

/// A running capture of what comes in on one interface.
#[derive(Debug)]
pub struct Capture {
    socket: Socket,
}

/// What was captured.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Our ports to which anything came over TCP.
    pub heard: BTreeSet<u16>,
    /// Our ports to which a SYN+ACK came.
    pub accepted: BTreeSet<u16>,
    /// Our ports to which a RST came.
    pub reset: BTreeSet<u16>,
    /// ICMP and ICMPv6 errors (not neighbour discovery).
    pub icmp_errors: usize,
}

impl Capture {
    /// Starts; returns when packets are being captured.
    ///
    /// # Errors
    /// When there is no such interface in the namespace; it needs root.
    pub fn start(netns: &Netns, interface: &str) -> Result<Self> {
        let socket = netns.enter(|| {
            // Of no protocol: it gets nothing until it is bound.
            let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
            socket.set_nonblocking(true)?;
            set_socket_recv_buffer_size_force(&socket, ROOM)?;
            ignore_outgoing(&socket)?;
            let index = name_to_index(&socket, interface)
                .with_context(|| format!("no interface {interface}"))?;
            bind(&socket, index)?;
            Ok(socket)
        })?;
        Ok(Self { socket })
    }

    /// Stops and reads what was captured.
    ///
    /// # Errors
    /// When there was no room for all of it.
    pub fn stop(self) -> Result<Seen> {
        let mut seen = Seen::default();
        let mut frame = vec![0; FRAME];
        loop {
            match (&self.socket).read(&mut frame) {
                Ok(length) => seen.add(frame.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("reading the capture"),
            }
        }
        let missed = missed(&self.socket)?;
        ensure!(missed == 0, "the capture had no room for {missed} packets");
        Ok(seen)
    }
}

impl Seen {
    fn add(&mut self, packet: &[u8]) {
        let Ok(packet) = SlicedPacket::from_ethernet(packet) else {
            return;
        };
        if let Some(TransportSlice::Tcp(tcp)) = &packet.transport {
            self.heard.insert(tcp.destination_port());
        }
        match packet.transport {
            Some(TransportSlice::Tcp(tcp)) if tcp.rst() => {
                self.reset.insert(tcp.destination_port());
            }
            Some(TransportSlice::Tcp(tcp)) if tcp.syn() && tcp.ack() => {
                self.accepted.insert(tcp.destination_port());
            }
            // Destination unreachable, time exceeded, parameter problem.
            Some(TransportSlice::Icmpv4(icmp)) if matches!(icmp.type_u8(), 3 | 11 | 12) => {
                self.icmp_errors += 1;
            }
            Some(TransportSlice::Icmpv6(icmp)) if icmp.type_u8() < 128 => self.icmp_errors += 1,
            _ => {}
        }
    }
}

/// Takes packets of all protocols from the interface with this index.
fn bind(socket: &Socket, index: u32) -> Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET)?,
        sll_protocol: u16::try_from(libc::ETH_P_ALL)?.to_be(),
        sll_ifindex: i32::try_from(index)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>())?;
    // SAFETY: an address of this length, which the kernel only reads.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    ensure!(result == 0, "bind: {}", io::Error::last_os_error());
    Ok(())
}

fn ignore_outgoing(socket: &Socket) -> Result<()> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>())?;
    // SAFETY: an option of this length, which the kernel only reads.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            (&raw const on).cast(),
            length,
        )
    };
    ensure!(
        result == 0,
        "PACKET_IGNORE_OUTGOING: {}",
        io::Error::last_os_error()
    );
    Ok(())
}

/// Packets that found the socket's buffer full.
fn missed(socket: &Socket) -> Result<u32> {
    // `struct tpacket_stats`: packets, drops.
    let mut statistics = [0_u32; 2];
    let mut length = libc::socklen_t::try_from(size_of_val(&statistics))?;
    // SAFETY: the kernel writes so many bytes at most, and how many to the length.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            ptr::from_mut(&mut statistics).cast(),
            &raw mut length,
        )
    };
    ensure!(
        result == 0,
        "PACKET_STATISTICS: {}",
        io::Error::last_os_error()
    );
    Ok(statistics[1])
}
