//! Sets of sources: CIDRs in rules and lists, each with one meaning.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};
use limiter_common::policy::MAX_CIDRS;

use super::list_file;
use crate::policy::decode::At;
use crate::policy::findings::{Mark, Scope};
use crate::policy::resource::Meta;

/// The kernel keeps two generations: one in force, one being written.
pub(crate) const MAX_CIDRS_OF_ALL: usize = MAX_CIDRS as usize / 2;

/// What a prefix means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Allow,
    Deny,
    Rule(String),
}

impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow => f.write_str("under `allow`"),
            Self::Deny => f.write_str("under `deny`"),
            Self::Rule(name) => write!(f, "in the rule `{name}`"),
        }
    }
}

/// The prefixes of a policy so far.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    seen: BTreeMap<IpNet, Meaning>,
}

impl Prefixes {
    /// Reads a prefix; `None` if it is wrong, or there already.
    pub(super) fn take(
        &mut self,
        text: &str,
        mark: &Mark,
        meaning: &Meaning,
        scope: &mut Scope<'_>,
    ) -> Option<IpNet> {
        let net = match parse(text) {
            Ok(net) => net,
            Err(Problem { message, remedy }) => {
                scope.error(mark, message, remedy);
                return None;
            }
        };
        if net.prefix_len() == 0 && !check_all(net, mark, meaning, scope) {
            return None;
        }
        match self.seen.entry(net) {
            Entry::Vacant(place) => {
                place.insert(meaning.clone());
                Some(net)
            }
            Entry::Occupied(other) => {
                // Lists are often joined from several: the same said twice does no harm.
                if other.get() != meaning {
                    scope.error(
                        mark,
                        format!("{net} stands {} already", other.get()),
                        "keep one of the two; of prefixes that overlap, the longest holds",
                    );
                }
                None
            }
        }
    }
}

/// Whether a prefix of every address may stand here.
fn check_all(net: IpNet, mark: &Mark, meaning: &Meaning, scope: &mut Scope<'_>) -> bool {
    let family = match net {
        IpNet::V4(_) => "IPv4",
        IpNet::V6(_) => "IPv6",
    };
    match meaning {
        Meaning::Deny => {
            scope.error(
                mark,
                format!("{net} denies every {family} source"),
                "name the prefixes that are meant",
            );
            false
        }
        Meaning::Allow => {
            scope.warning(
                mark,
                format!("{net} allows every {family} source, so none of them is limited"),
                "name the prefixes that are meant",
            );
            true
        }
        Meaning::Rule(_) => true,
    }
}

/// What is wrong with a text, and what would be right.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    message: String,
    remedy: String,
}

/// A CIDR without host bits, or an address.
fn parse(text: &str) -> Result<IpNet, Problem> {
    let no_cidr = || Problem {
        message: format!("`{text}` is neither a CIDR nor an address"),
        remedy: "write it as `192.0.2.0/24`, `2001:db8::/32` or `192.0.2.1`".to_owned(),
    };
    let net = if text.contains('/') {
        text.parse::<IpNet>().map_err(|_error| no_cidr())?
    } else {
        IpNet::from(text.parse::<IpAddr>().map_err(|_error| no_cidr())?)
    };
    if let Some(v4) = mapped(net) {
        return Err(Problem {
            message: format!("{text} is IPv4-mapped IPv6, which no packet has for a source"),
            remedy: format!("write `{v4}`"),
        });
    }
    if net.trunc() != net {
        return Err(Problem {
            message: format!("{text} has bits set beyond its prefix"),
            remedy: format!("write `{}`, or `{}`", net.trunc(), net.addr()),
        });
    }
    Ok(net)
}

/// The IPv4 prefix that an IPv4-mapped one (`::ffff:192.0.2.0/120`) stands for.
fn mapped(net: IpNet) -> Option<Ipv4Net> {
    let IpNet::V6(net) = net else {
        return None;
    };
    let length = net.prefix_len().checked_sub(96)?;
    let v4 = Ipv6Addr::to_ipv4_mapped(&net.addr())?;
    Ipv4Net::new(v4, length).ok().map(|v4| v4.trunc())
}

/// `allow` and `allowFile`, or `deny` and `denyFile`.
#[derive(Debug)]
pub(super) struct List {
    meaning: Meaning,
    entries: Option<At<Vec<At<String>>>>,
    file: Option<At<String>>,
}

impl List {
    pub(super) fn allow(entries: Option<At<Vec<At<String>>>>, file: Option<At<String>>) -> Self {
        Self {
            meaning: Meaning::Allow,
            entries,
            file,
        }
    }

    pub(super) fn deny(entries: Option<At<Vec<At<String>>>>, file: Option<At<String>>) -> Self {
        Self {
            meaning: Meaning::Deny,
            entries,
            file,
        }
    }

    /// All its prefixes, sorted.
    pub(super) fn lower(
        self,
        meta: &Meta,
        prefixes: &mut Prefixes,
        scope: &mut Scope<'_>,
    ) -> Vec<IpNet> {
        let mut nets = Vec::new();
        if let Some(entries) = &self.entries {
            for entry in &entries.value {
                nets.extend(prefixes.take(&entry.value, &entry.mark, &self.meaning, scope));
            }
        }
        if let Some(file) = &self.file {
            list_file::read(file, meta, scope, |text, mark, scope| {
                nets.extend(prefixes.take(text, mark, &self.meaning, scope));
            });
        }
        nets.sort_unstable();
        nets
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn prefixes() {
        let good = [
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("::ffff:0:0/95", ""),
        ];
        for (text, expected) in good {
            let found = parse(text).map(|net| net.to_string()).unwrap_or_default();
            assert_eq!(found, expected, "{text}");
        }
        let bad = [
            ("192.0.2.1/24", "write `192.0.2.0/24`, or `192.0.2.1`"),
            ("2001:db8::1/64", "write `2001:db8::/64`, or `2001:db8::1`"),
            ("::ffff:192.0.2.1", "write `192.0.2.1/32`"),
            ("::ffff:192.0.2.9/120", "write `192.0.2.0/24`"),
            (
                "192.0.2.0/33",
                "write it as `192.0.2.0/24`, `2001:db8::/32` or `192.0.2.1`",
            ),
            (
                "example.com",
                "write it as `192.0.2.0/24`, `2001:db8::/32` or `192.0.2.1`",
            ),
        ];
        for (text, remedy) in bad {
            assert_eq!(
                parse(text).map_err(|no| no.remedy),
                Err(remedy.to_owned()),
                "{text}"
            );
        }
    }
}
