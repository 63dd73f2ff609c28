//! What the kernel knows of an interface. Which XDP program it has, only rtnetlink tells.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice, recv, sendto,
    socket_with,
};

use super::attach::Mode;

const RTM_GETLINK: u16 = 18;
const RTM_NEWLINK: u16 = 16;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const XDP_ATTACHED_SKB: u8 = 2;
/// Attribute types carry flags in their upper bits.
const TYPE_MASK: u16 = 0x3fff;

/// Bytes of `struct nlmsghdr`, of `struct ifinfomsg` and of `struct nlattr`.
const HEADER: usize = 16;
const LINK: usize = 16;
const ATTRIBUTE: usize = 4;
/// More than the kernel says of one interface.
const REPLY: usize = 64 * 1024;

/// The XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attached {
    pub(super) program: u32,
    pub(super) mode: Mode,
}

/// The index of the interface with this name.
pub(super) fn index(name: &str) -> io::Result<u32> {
    Ok(netdevice::name_to_index(any_socket()?, name)?)
}

/// The name that the interface with this index has now; `None` if there is none (here).
pub(super) fn name(ifindex: u32) -> io::Result<Option<String>> {
    match netdevice::index_to_name(any_socket()?, ifindex) {
        Ok(name) => Ok(Some(name)),
        Err(Errno::NODEV | Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Interfaces are asked for by name or index through a socket of any kind.
fn any_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// The program on the interface; `None` if there is none.
pub(super) fn attached(ifindex: u32) -> io::Result<Option<Attached>> {
    // No protocol is `NETLINK_ROUTE`, which is 0.
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    sendto(
        &socket,
        &request(ifindex),
        SendFlags::empty(),
        &SocketAddrNetlink::new(0, 0),
    )?;
    let mut reply = vec![0; REPLY];
    let (_, length) = recv(&socket, reply.as_mut_slice(), RecvFlags::empty())?;
    reply.truncate(length);
    parse(&reply)
}

fn request(ifindex: u32) -> [u8; HEADER + LINK] {
    let mut request = [0; HEADER + LINK];
    request[0..4].copy_from_slice(&32_u32.to_ne_bytes());
    request[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
    request[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    request[HEADER + 4..HEADER + 8].copy_from_slice(&ifindex.to_ne_bytes());
    request
}

fn parse(reply: &[u8]) -> io::Result<Option<Attached>> {
    let short = || io::Error::new(io::ErrorKind::InvalidData, "short netlink reply");
    match u16_at(reply, 4).ok_or_else(short)? {
        RTM_NEWLINK => {}
        NLMSG_ERROR => {
            let code = u32_at(reply, HEADER).ok_or_else(short)?.cast_signed();
            return Err(io::Error::from_raw_os_error(code.saturating_neg()));
        }
        other => return Err(io::Error::other(format!("netlink message of type {other}"))),
    }
    let attributes = reply.get(HEADER + LINK..).ok_or_else(short)?;
    let Some(xdp) = find(attributes, IFLA_XDP) else {
        return Ok(None);
    };
    let program = find(xdp, IFLA_XDP_PROG_ID).and_then(|value| u32_at(value, 0));
    let generic = find(xdp, IFLA_XDP_ATTACHED).is_some_and(|mode| mode == [XDP_ATTACHED_SKB]);
    let mode = if generic { Mode::Generic } else { Mode::Native };
    Ok(program.map(|program| Attached { program, mode }))
}

/// The value of the first attribute of a type.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16_at(attributes, 0)?);
        let kind = u16_at(attributes, 2)? & TYPE_MASK;
        let value = attributes.get(ATTRIBUTE..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(ATTRIBUTE + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn reply(attributes: &[u8]) -> Vec<u8> {
        let mut reply = vec![0; HEADER + LINK];
        reply[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
        reply.extend_from_slice(attributes);
        reply
    }

    #[test]
    fn finds_the_program_among_other_attributes() {
        let xdp = [
            attribute(IFLA_XDP_ATTACHED, &[XDP_ATTACHED_SKB]),
            attribute(IFLA_XDP_PROG_ID, &7_u32.to_ne_bytes()),
        ]
        .concat();
        let attributes = [attribute(3, b"eth0\0"), attribute(IFLA_XDP | 0x8000, &xdp)].concat();
        let found = parse(&reply(&attributes)).unwrap();
        assert_eq!(
            found,
            Some(Attached {
                program: 7,
                mode: Mode::Generic
            })
        );
    }

    #[test]
    fn no_program_is_none() {
        let xdp = attribute(IFLA_XDP, &attribute(IFLA_XDP_ATTACHED, &[0]));
        assert_eq!(parse(&reply(&xdp)).unwrap(), None);
        assert_eq!(parse(&reply(&[])).unwrap(), None);
    }

    #[test]
    fn malformed_replies_do_not_loop_or_panic() {
        for length in 0..HEADER + LINK + 4 {
            let mut bytes = reply(&[0; 4]);
            bytes.truncate(length);
            let _read = parse(&bytes).ok();
        }
        let mut error = reply(&[]);
        error[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        error[HEADER..HEADER + 4].copy_from_slice(&(-19_i32).to_ne_bytes());
        assert_eq!(parse(&error).unwrap_err().raw_os_error(), Some(19));
    }
}
