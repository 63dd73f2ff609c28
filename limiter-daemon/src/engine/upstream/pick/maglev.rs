//! Consistent hashing by a table (Eisenbud et al.: Maglev, NSDI 2016, section 3.4): each host fills
//! places in an order of its own, one at a time in turn, so all get the same number of places, and
//! few places change when a host comes or goes.
//!
//! The table depends on the names of the hosts alone, not on their order or on this process: all
//! nodes send a value to the same host. A host that may not be taken keeps its places; what leads
//! there goes on to the next place, and comes back with the host.

use std::sync::Arc;

use super::View;
use crate::engine::upstream::host::Host;
use crate::engine::upstream::mix::{hash, splitmix64};

/// Places that are looked at before a host is taken by the hash alone.
const PROBES: usize = 64;

/// Places with indexes of hosts.
#[derive(Debug)]
pub(super) struct Table(Vec<u32>);

/// The order in which a host wants places.
struct Wishes {
    host: u32,
    next: u64,
    skip: u64,
}

impl Table {
    /// `size` is a prime, or 0 for no place.
    pub(super) fn new(hosts: &[Arc<Host>], size: u32) -> Self {
        const FREE: u32 = u32::MAX;
        let places = u64::from(size);
        if hosts.is_empty() || places < 2 {
            return Self(Vec::new());
        }
        let mut wishes: Vec<_> = (0u32..)
            .zip(hosts)
            .map(|(host, of)| {
                let name = hash([of.name.as_bytes()]);
                Wishes {
                    host,
                    next: name % places,
                    skip: splitmix64(name) % (places - 1) + 1,
                }
            })
            .collect();
        // The one that begins gets a place more where they do not come out even.
        wishes.sort_by(|a, b| {
            hosts[a.host as usize]
                .name
                .cmp(&hosts[b.host as usize].name)
        });
        let mut table = vec![FREE; size as usize];
        let mut free = table.len();
        'filled: loop {
            for host in &mut wishes {
                let place = loop {
                    let place = &mut table[place_of(host.next)];
                    host.next = (host.next + host.skip) % places;
                    if *place == FREE {
                        break place;
                    }
                };
                *place = host.host;
                free -= 1;
                if free == 0 {
                    break 'filled;
                }
            }
        }
        Self(table)
    }

    pub(super) fn pick(&self, view: &View<'_>, hash: u64) -> Option<usize> {
        let places = self.0.len();
        let home = place_of(hash.checked_rem(places as u64)?);
        let probed = (home..places).chain(0..home).take(PROBES);
        probed
            .map(|place| self.0[place] as usize)
            .find(|host| view.takes(*host))
            .or_else(|| view.any(splitmix64(hash)))
    }
}

/// A place below the size of a table, which fits.
fn place_of(place: u64) -> usize {
    usize::try_from(place).unwrap_or(0)
}
