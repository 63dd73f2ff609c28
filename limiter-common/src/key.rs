//! Addresses, keys of the shared maps, and the keyed hash that buckets are found by. `repr(C)`, no
//! padding, every byte initialised: the kernel compares bytes.

/// An address as two words: IPv6 as it is, IPv4 as an IPv4-mapped address (RFC 4291 section
/// 2.5.5.2). The high word is the first eight bytes, big-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct Address {
    pub high: u64,
    pub low: u64,
}

/// What an IPv4-mapped address has above its last four bytes.
const MAPPED: u64 = 0xffff_0000_0000;

impl Address {
    #[inline(always)]
    #[must_use]
    pub const fn v4(address: [u8; 4]) -> Self {
        Self {
            high: 0,
            low: MAPPED | u32::from_be_bytes(address) as u64,
        }
    }

    #[inline(always)]
    #[must_use]
    pub const fn v6(a: [u8; 16]) -> Self {
        Self {
            high: u64::from_be_bytes([a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]]),
            low: u64::from_be_bytes([a[8], a[9], a[10], a[11], a[12], a[13], a[14], a[15]]),
        }
    }

    /// Whether it stands for an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(self) -> bool {
        self.high == 0 && self.low >> 32 == MAPPED >> 32
    }

    /// The sixteen bytes, in network order.
    #[inline(always)]
    #[must_use]
    pub const fn octets(self) -> [u8; 16] {
        ((self.high as u128) << 64 | self.low as u128).to_be_bytes()
    }

    /// The bits that `mask` keeps.
    #[inline(always)]
    #[must_use]
    pub const fn masked(self, mask: Self) -> Self {
        Self {
            high: self.high & mask.high,
            low: self.low & mask.low,
        }
    }

    /// The mask of an IPv6 prefix of `length` bits, at most 128.
    #[must_use]
    pub const fn mask(length: u32) -> Self {
        Self {
            high: ones(if length < 64 { length } else { 64 }),
            low: ones(length.saturating_sub(64)),
        }
    }

    /// The mask of an IPv4 prefix of `length` bits, at most 32: keeps the mark of the mapping.
    #[must_use]
    pub const fn mask_v4(length: u32) -> Self {
        Self::mask(96 + if length < 32 { length } else { 32 })
    }
}

/// A word whose first `count` bits are set, at most 64.
const fn ones(count: u32) -> u64 {
    match count {
        0 => 0,
        count if count >= 64 => u64::MAX,
        count => u64::MAX << (64 - count),
    }
}

/// The secret of one set of tables, so that nobody outside can aim at their cells. Drawn when the tables are
/// made, and kept as long as they.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Secret {
    pub first: u64,
    pub second: u64,
}

/// The key of the bucket of `address` under the limit that `seed` stands for.
///
/// Two rounds of SplitMix64's finaliser (Steele, Lea and Flood 2014) with a secret before each. For
/// one limit and one family it is one to one (IPv6 prefixes of at most 64 bits): two sources never
/// share a key. It is no cryptographic hash, and need not be: its results are never shown, so there
/// is nothing to learn the secret from.
#[inline(always)]
#[must_use]
pub const fn bucket_key(secret: Secret, seed: u64, address: Address) -> u64 {
    let high = mix(address.high ^ secret.first ^ seed);
    mix(high.wrapping_add(address.low) ^ secret.second)
}

/// SplitMix64's finaliser.
#[inline(always)]
#[must_use]
pub const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A transport protocol that ports are looked up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Protocol {
    Tcp = 0,
    Udp = 1,
    /// ICMP and ICMPv6; they have no ports and stand at port 0.
    Icmp = 2,
}

/// Entries of the table of ports of one generation.
pub const PORT_ENTRIES: u32 = 3 << 16;

/// Index of a port in the table of ports.
#[inline(always)]
#[must_use]
pub const fn port_index(generation: u32, protocol: Protocol, port: u16) -> u32 {
    (generation & 1) * PORT_ENTRIES + ((protocol as u32) << 16) + port as u32
}

/// Key of the trie of CIDRs: a set of them and an address; prefix lengths count from the set's
/// first bit, so they are 32 more than the CIDR's (and 96 more again for IPv4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct CidrKey {
    /// See [`cidr_set`].
    pub set: u32,
    pub address: [u8; 16],
}

/// Bits of `set`.
pub const CIDR_SET_BITS: u32 = 32;

/// Prefix length of a lookup: all of the key.
pub const CIDR_LOOKUP_BITS: u32 = CIDR_SET_BITS + 128;

/// The set of CIDRs of the policy with this id in a generation, in network order like the address
/// behind it.
#[inline(always)]
#[must_use]
pub const fn cidr_set(generation: u32, policy: u32) -> u32 {
    (policy << 1 | generation & 1).to_be()
}

const _: () = assert!(size_of::<Address>() == 16);
const _: () = assert!(size_of::<CidrKey>() == 20);
