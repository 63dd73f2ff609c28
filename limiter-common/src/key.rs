//! Keys of the shared maps. `repr(C)`, no padding, every byte initialised: the kernel hashes bytes.

/// A transport protocol by its IANA number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Protocol {
    Tcp = 6,
    Udp = 17,
}

/// Destination port under a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct PortKey {
    /// Destination port, host byte order.
    pub port: u16,
    /// [`Protocol`] as its number.
    pub protocol: u8,
    pub reserved: u8,
}

impl PortKey {
    #[inline(always)]
    #[must_use]
    pub const fn new(protocol: u8, port: u16) -> Self {
        Self {
            port,
            protocol,
            reserved: 0,
        }
    }
}

/// A source under a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SourceKey {
    /// Source address as IPv6; IPv4 as an IPv4-mapped address (RFC 4291 section 2.5.5.2). IPv6 is
    /// cut to its /64: the rest is the host's to choose.
    pub address: [u8; 16],
    /// Id of the policy, stable over reloads and restarts.
    pub policy: u32,
}

impl SourceKey {
    #[inline(always)]
    #[must_use]
    pub const fn v4(a: [u8; 4], policy: u32) -> Self {
        let address = [
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a[0], a[1], a[2], a[3],
        ];
        Self { address, policy }
    }

    #[inline(always)]
    #[must_use]
    pub const fn v6(a: [u8; 16], policy: u32) -> Self {
        let address = [
            a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        Self { address, policy }
    }
}

const _: () = assert!(size_of::<PortKey>() == 4);
const _: () = assert!(size_of::<SourceKey>() == 20);
