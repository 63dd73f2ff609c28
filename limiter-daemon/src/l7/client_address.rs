//! Which address a request is attributed to.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

use super::headers::X_FORWARDED_FOR;
use super::respond::Refusal;
use crate::policy::plan::ClientAddress;

/// The client, and whether the connection's other end is a proxy that is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) address: IpAddr,
    pub(super) by_trusted: bool,
}

/// The client of a request with `headers` that came from `peer`. All addresses are in their canonical
/// form (no IPv4-mapped IPv6).
///
/// # Errors
/// [`Refusal::NoAddress`]: the header that must state it does not.
pub(super) fn client(
    how: &ClientAddress,
    headers: &HeaderMap,
    peer: IpAddr,
) -> Result<Client, Refusal> {
    let peer = peer.to_canonical();
    let (address, by_trusted) = match how {
        ClientAddress::Peer | ClientAddress::TrustedHops(0) => (Some(peer), false),
        ClientAddress::TrustedHops(hops) => {
            let place = usize::try_from(*hops - 1).unwrap_or(usize::MAX);
            (from_the_end(headers).nth(place).flatten(), true)
        }
        ClientAddress::TrustedCidrs(trusted) => {
            if is_in(trusted, peer) {
                (beyond(trusted, headers), true)
            } else {
                (None, false)
            }
        }
        ClientAddress::Header { name, required } => {
            let stated = only(headers, name);
            if *required && stated.is_none() {
                return Err(Refusal::NoAddress);
            }
            (stated, false)
        }
    };
    Ok(Client {
        address: address.unwrap_or(peer),
        by_trusted,
    })
}

/// Whether `peer` is always the client itself, whatever a request says: where it is not, some requests
/// are those of others.
pub(super) fn peer_is_client(how: &ClientAddress, peer: IpAddr) -> bool {
    match how {
        ClientAddress::Peer | ClientAddress::TrustedHops(0) => true,
        ClientAddress::TrustedHops(_) | ClientAddress::Header { .. } => false,
        ClientAddress::TrustedCidrs(trusted) => !is_in(trusted, peer),
    }
}

fn is_in(nets: &[IpNet], ip: IpAddr) -> bool {
    nets.iter().any(|net| net.contains(&ip))
}

/// The last address that is in none of `trusted`; of none but trusted ones, the first. What stands
/// before something that is no address is nobody's word.
fn beyond(trusted: &[IpNet], headers: &HeaderMap) -> Option<IpAddr> {
    let mut last = None;
    for entry in from_the_end(headers) {
        last = Some(entry?);
        if !is_in(trusted, entry?) {
            break;
        }
    }
    last
}

/// The entries of `X-Forwarded-For`, the last one first; `None` for one that is no address.
fn from_the_end(headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
    headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .rev()
        .flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','))
        .map(address)
}

/// The address of the one header `name`.
fn only(headers: &HeaderMap, name: &HeaderName) -> Option<IpAddr> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| address(value.as_bytes()))?
}

/// An address, also with a port or in brackets.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let ip = text
        .parse::<IpAddr>()
        .or_else(|_no_ip| text.parse::<SocketAddr>().map(|address| address.ip()))
        .or_else(|_no_port| {
            let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
            bare.unwrap_or("").parse::<IpAddr>()
        });
    ip.ok().map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn found(how: &ClientAddress, sent: &[(&'static str, &'static str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers.append(*name, HeaderValue::from_static(value));
        }
        match client(how, &headers, "::ffff:10.0.0.9".parse().unwrap()) {
            Ok(client) => client.address.to_string(),
            Err(refusal) => format!("{refusal:?}"),
        }
    }

    #[test]
    fn hops_are_counted_from_the_end() {
        let sent = [
            ("x-forwarded-for", "1.1.1.1, nobody"),
            ("x-forwarded-for", "[2001:db8::1]:80 ,3.3.3.3:99"),
        ];
        for (hops, wanted) in [
            (0, "10.0.0.9"),
            (1, "3.3.3.3"),
            (2, "2001:db8::1"),
            (3, "10.0.0.9"),
            (4, "1.1.1.1"),
            (5, "10.0.0.9"),
        ] {
            assert_eq!(
                found(&ClientAddress::TrustedHops(hops), &sent),
                wanted,
                "{hops}"
            );
        }
        assert_eq!(found(&ClientAddress::Peer, &sent), "10.0.0.9");
    }

    #[test]
    fn the_last_untrusted_address_is_the_clients() {
        let nets = |nets: &[&str]| {
            let nets = nets.iter().map(|net| net.parse().unwrap());
            ClientAddress::TrustedCidrs(nets.collect())
        };
        let ours = nets(&["10.0.0.0/8", "2001:db8::/32"]);
        for (chain, wanted) in [
            ("6.6.6.6, 1.1.1.1, 10.1.1.1, 2001:db8::5", "1.1.1.1"),
            ("10.1.1.1, 10.2.2.2", "10.1.1.1"),
            ("6.6.6.6, x, 10.2.2.2", "10.0.0.9"),
            ("", "10.0.0.9"),
        ] {
            assert_eq!(
                found(&ours, &[("x-forwarded-for", chain)]),
                wanted,
                "{chain}"
            );
        }
        let others = nets(&["192.0.2.0/24"]);
        assert_eq!(
            found(&others, &[("x-forwarded-for", "1.1.1.1")]),
            "10.0.0.9"
        );
    }

    #[test]
    fn a_header_of_its_own_may_be_required() {
        let name = HeaderName::from_static("x-real");
        for (sent, optional, required) in [
            (vec![("x-real", "1.1.1.1")], "1.1.1.1", "1.1.1.1"),
            (vec![("x-real", "me")], "10.0.0.9", "NoAddress"),
            (
                vec![("x-real", "1.1.1.1"), ("x-real", "2.2.2.2")],
                "10.0.0.9",
                "NoAddress",
            ),
            (vec![], "10.0.0.9", "NoAddress"),
        ] {
            for (required, wanted) in [(false, optional), (true, required)] {
                let name = name.clone();
                assert_eq!(
                    found(&ClientAddress::Header { name, required }, &sent),
                    wanted
                );
            }
        }
    }
}
