//! Packets of more than one buffer: jumbo frames in native XDP, and headers that lie in a socket
//! buffer's fragments.

#![expect(
    clippy::unwrap_used,
    reason = "clippy takes the helpers of integration tests for production code"
)]

use std::fs;
use std::io::Write as _;
use std::mem::{size_of, zeroed};
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::ptr;

use anyhow::{Result, ensure};
use limiter_common::{Limit, Protocol, Reason};
use limiter_daemon::l4::trial::has_buffers;
use limiter_daemon::l4::{Kernel, Mode};
use limiter_daemon::policy::plan::{
    AttachMode, DaemonConfig, Interface, NetworkLevel, NetworkPolicy, OnExit, Scope, SourceLimits,
};
use socket2::{Domain, Socket, Type};
use tests::daemon::eventually;
use tests::netns::Netns;

const INTERFACE: &str = "lim0";
const PEER: &str = "peer0";
const PORT: u16 = 443;
const HOUR: u64 = 3_600_000_000_000;
/// A gateway and a client with jumbo frames between them.
struct Net {
    gateway: Netns,
    client: Netns,
    pins: PathBuf,
}

impl Net {
    fn new() -> Result<Self> {
        let (gateway, client) = (Netns::new("jumbo-gw")?, Netns::new("jumbo-cl")?);
        gateway.ip(&[
            "link",
            "add",
            INTERFACE,
            "mtu",
            "9000",
            "type",
            "veth",
            "peer",
            "name",
            PEER,
            "mtu",
            "9000",
            "netns",
            client.name(),
        ])?;
        for (netns, device, host) in [(&gateway, INTERFACE, 1), (&client, PEER, 2)] {
            let address = format!("192.0.2.{host}/24");
            netns.ip(&["address", "add", &address, "dev", device])?;
            netns.ip(&["link", "set", device, "up"])?;
        }
        let pins = PathBuf::from(format!("/sys/fs/bpf/{}", gateway.name()));
        Ok(Self {
            gateway,
            client,
            pins,
        })
    }

    fn start(&self, mode: AttachMode, policy: &NetworkPolicy) -> Result<Kernel> {
        let interface = Interface {
            name: INTERFACE.to_owned(),
            mode,
        };
        let config = DaemonConfig {
            interfaces: vec![interface],
            pin_path: self.pins.clone(),
            ..DaemonConfig::default()
        };
        self.gateway
            .enter(|| Ok(Kernel::start(&config, std::slice::from_ref(policy))?))
    }

    fn stop(&self, mut kernel: Kernel) -> Result<()> {
        self.gateway.enter(|| Ok(kernel.stop(OnExit::Detach)?))
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for directory in fs::read_dir(&self.pins).into_iter().flatten().flatten() {
            let pins = fs::read_dir(directory.path()).into_iter().flatten();
            for pin in pins.flatten() {
                let _gone = fs::remove_file(pin.path());
            }
            let _gone = fs::remove_dir(directory.path());
        }
        let _gone = fs::remove_dir(&self.pins);
    }
}

fn policy(protocol: Protocol, level: NetworkLevel) -> NetworkPolicy {
    NetworkPolicy {
        name: "edge/jumbo".to_owned(),
        ports: vec![(protocol, PORT)],
        interfaces: Vec::new(),
        default: SourceLimits::Levels(vec![level]),
        rules: Vec::new(),
        allow: Vec::new(),
        deny: Vec::new(),
        shadow: false,
        written: None,
    }
}

const LEVEL: NetworkLevel = NetworkLevel {
    scope: Scope::Source { v4: 32, v6: 64 },
    connections: None,
    packets: None,
    bytes: None,
};

fn counted(kernel: &Kernel, reason: Reason) -> u64 {
    let counters = kernel.counters().unwrap();
    let of_reason = counters.iter().filter(|counter| counter.reason == reason);
    of_reason.map(|counter| counter.packets).sum()
}

/// Waits until so many packets were counted under one of the two reasons; what each has.
fn wait(kernel: &Kernel, reasons: [Reason; 2], packets: u64) -> Result<[u64; 2]> {
    eventually(&format!("{packets} packets under {reasons:?}"), || {
        let counts = reasons.map(|reason| counted(kernel, reason));
        Ok((counts[0] + counts[1] >= packets).then_some(counts))
    })
}

/// Two of three jumbo frames fit into the bucket; were only the first buffer of each counted (a page
/// at most), all three would.
#[test]
fn jumbo_frames_are_judged_in_the_driver_by_all_their_bytes() -> Result<()> {
    if !has_buffers()? {
        // Before 5.18 such interfaces take the program elsewhere; `l4::hooks` has the fallback.
        return Ok(());
    }
    let net = Net::new()?;
    let bytes = Limit::new(20_000, 1, HOUR).unwrap();
    let level = NetworkLevel {
        bytes: Some(bytes),
        ..LEVEL
    };
    let kernel = net.start(AttachMode::Native, &policy(Protocol::Udp, level))?;
    assert_eq!(kernel.attachments()[0].mode, Mode::Native);
    net.client.enter(|| {
        let socket = UdpSocket::bind("192.0.2.2:0")?;
        for _ in 0..3 {
            socket.send_to(&[0; 8_000], ("192.0.2.1", PORT))?;
        }
        Ok(())
    })?;
    let counts = wait(&kernel, [Reason::Conforming, Reason::OverBytes], 3)?;
    assert_eq!(counts, [2, 1]);
    net.stop(kernel)
}

/// A SYN behind two kilobytes of extension headers, of which the socket buffer has sixty bytes in
/// its linear part.
#[test]
fn long_headers_in_fragments_hide_nothing_from_traffic_control() -> Result<()> {
    let net = Net::new()?;
    let connections = Limit::new(1, 1, HOUR).unwrap();
    let level = NetworkLevel {
        connections: Some(connections),
        ..LEVEL
    };
    let kernel = net.start(AttachMode::Clsact, &policy(Protocol::Tcp, level))?;
    assert_eq!(kernel.attachments()[0].mode, Mode::Clsact);
    net.client.enter(|| {
        let mut socket = packet_socket(PEER)?;
        for _ in 0..3 {
            socket.write_all(&in_fragments(&hidden_syn()))?;
        }
        Ok(())
    })?;
    let counts = wait(&kernel, [Reason::Conforming, Reason::OverConnections], 3)?;
    assert_eq!(counts, [1, 2]);
    assert_eq!(counted(&kernel, Reason::Unparsable), 0);
    net.stop(kernel)
}

/// Ethernet, IPv6, two destination options headers of a kilobyte each, a SYN, and so much payload
/// that the frame takes more than a page.
fn hidden_syn() -> Vec<u8> {
    const OPTIONS: u8 = 60;
    const TCP: u8 = 6;
    let options = |next: u8| {
        let mut header = vec![0; 1024];
        header[0] = next;
        header[1] = u8::try_from(1024 / 8 - 1).unwrap();
        header
    };
    let mut payload = [options(OPTIONS), options(TCP)].concat();
    payload.extend(40_000_u16.to_be_bytes());
    payload.extend(PORT.to_be_bytes());
    payload.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    payload.resize(5_000, 0);
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    frame.extend([OPTIONS, 64]);
    frame.extend(
        "2001:db8::2"
            .parse::<std::net::Ipv6Addr>()
            .unwrap()
            .octets(),
    );
    frame.extend(
        "2001:db8::1"
            .parse::<std::net::Ipv6Addr>()
            .unwrap()
            .octets(),
    );
    frame.extend(payload);
    frame
}

/// The frame behind a `virtio_net_hdr` that asks for sixty linear bytes.
fn in_fragments(frame: &[u8]) -> Vec<u8> {
    let [low, high] = 60_u16.to_ne_bytes();
    [&[0, 0, low, high, 0, 0, 0, 0, 0, 0], frame].concat()
}

/// Sends frames with a `virtio_net_hdr` out of an interface.
fn packet_socket(interface: &str) -> Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    let index = rustix::net::netdevice::name_to_index(&socket, interface)?;
    // SAFETY: all zero is a valid `sockaddr_ll`.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET)?;
    address.sll_ifindex = i32::try_from(index)?;
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>())?;
    // SAFETY: an address of so many bytes.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), ptr::from_ref(&address).cast(), length) };
    ensure!(bound == 0, std::io::Error::last_os_error());
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>())?;
    // SAFETY: an option of so many bytes.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_VNET_HDR,
            ptr::from_ref(&on).cast(),
            length,
        )
    };
    ensure!(set == 0, std::io::Error::last_os_error());
    Ok(socket)
}
