//! Sets of addresses, asked in logarithmic time.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::policy::plan::SourcePrefixes;

/// The addresses of a list of CIDRs: ranges in order, without overlap.
#[derive(Debug, Default)]
pub(super) struct Nets {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Nets {
    pub(super) fn new(nets: &[IpNet]) -> Self {
        let mut set = Self::default();
        for net in nets {
            match net {
                IpNet::V4(net) => set.v4.push((net.network().into(), net.broadcast().into())),
                IpNet::V6(net) => set.v6.push((net.network().into(), net.broadcast().into())),
            }
        }
        join(&mut set.v4);
        join(&mut set.v6);
        set
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => within(&self.v4, address.into()),
            IpAddr::V6(address) => within(&self.v6, address.into()),
        }
    }

    /// Whether an address is in both.
    pub(super) fn overlaps(&self, net: IpNet) -> bool {
        match net {
            IpNet::V4(net) => any_within(&self.v4, net.network().into(), net.broadcast().into()),
            IpNet::V6(net) => any_within(&self.v6, net.network().into(), net.broadcast().into()),
        }
    }
}

fn join<N: Copy + Ord>(ranges: &mut Vec<(N, N)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let overlap = next.0 <= kept.1;
        if overlap {
            kept.1 = kept.1.max(next.1);
        }
        overlap
    });
}

fn within<N: Copy + Ord>(ranges: &[(N, N)], address: N) -> bool {
    let after = ranges.partition_point(|range| range.0 <= address);
    after
        .checked_sub(1)
        .is_some_and(|at| address <= ranges[at].1)
}

/// Whether a range has something of `first` to `last`.
fn any_within<N: Copy + Ord>(ranges: &[(N, N)], first: N, last: N) -> bool {
    let after = ranges.partition_point(|range| range.0 <= last);
    after.checked_sub(1).is_some_and(|at| first <= ranges[at].1)
}

/// The network that `address` is in, with the prefix length of its family.
pub(super) fn network(address: IpAddr, prefixes: SourcePrefixes) -> IpNet {
    let length = match address {
        IpAddr::V4(_) => prefixes.v4.min(32),
        IpAddr::V6(_) => prefixes.v6.min(128),
    };
    IpNet::new(address, length)
        .unwrap_or_else(|_too_long| IpNet::from(address))
        .trunc()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_joined_and_found() {
        let nets = ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7/32", "2001:db8::/32"];
        let nets = Nets::new(&nets.map(|net| net.parse().unwrap()));
        assert_eq!(nets.v4.len(), 2);
        for (address, wanted) in [
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("9.255.255.255", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
            ("::", false),
        ] {
            assert_eq!(nets.contains(address.parse().unwrap()), wanted, "{address}");
        }
        for (net, wanted) in [
            ("10.3.0.0/16", true),
            ("0.0.0.0/0", true),
            ("192.0.2.0/24", true),
            ("192.0.2.8/29", false),
            ("11.0.0.0/8", false),
            ("2001:db8::1/128", true),
            ("2001:db9::/32", false),
        ] {
            assert_eq!(nets.overlaps(net.parse().unwrap()), wanted, "{net}");
        }
    }

    #[test]
    fn networks_have_the_length_of_their_family() {
        let prefixes = SourcePrefixes { v4: 24, v6: 64 };
        for (address, wanted) in [
            ("192.0.2.7", "192.0.2.0/24"),
            ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ] {
            let net = network(address.parse().unwrap(), prefixes);
            assert_eq!(net.to_string(), wanted);
        }
    }
}
