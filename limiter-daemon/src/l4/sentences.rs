//! Sentences: networks whose packets are dropped until a moment.
//!
//! The kernel finds the longest prefix that contains a source, whether its sentence is over or not.
//! So that none hides a wider one that is still served, a narrower sentence is kept only while it
//! lasts longer than every wider one around it.
//!
//! Who wants a sentence is known as long as it is: it lies in the two lowest bits of its end, which are
//! a matter of nanoseconds. So it outlives the daemon, and the program need not know.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aya::maps::MapError;
use aya::maps::lpm_trie::Key;
use ipnet::IpNet;
use limiter_common::Address;
use limiter_common::policy::MAX_SENTENCES;

use super::error::L4Error;
use super::image::prefix;
use super::maps::{Pinned, Tables, of};
use crate::engine::fleet::{Origin, Sentence};

/// Bits of an end that say whose sentence it is.
const ORIGIN: u64 = 3;

/// A network as it lies in the map: the first address, and the length of the prefix.
type Net = ([u8; 16], u32);

/// The sentences in the kernel, with their origins, and a copy of them to find wider and narrower ones
/// in.
#[derive(Debug, Default)]
pub(super) struct Sentences {
    words: BTreeMap<Net, u64>,
    /// How many there are of each length of prefix.
    lengths: BTreeMap<u32, usize>,
}

impl Sentences {
    /// Those that an earlier daemon left.
    pub(super) fn adopt(tables: &mut Tables) -> Result<Self, L4Error> {
        let mut sentences = Self::default();
        for entry in tables.sentences.iter() {
            let (key, word) = entry.map_err(of(Pinned::Sentences))?;
            sentences.insert((key.data(), key.prefix_len()), word);
        }
        sentences.flag(tables)?;
        Ok(sentences)
    }

    /// Blocks a network until a moment, or for longer where it is already; it is of the given origin
    /// from then on. One that a wider network around it serves anyway is not noted.
    pub(super) fn block(
        &mut self,
        tables: &mut Tables,
        sentence: &Sentence,
    ) -> Result<(), L4Error> {
        let net = prefix(&sentence.net);
        let served = self.words.get(&net).copied();
        let until = sentence.until.max(served.map_or(0, |word| word & !ORIGIN));
        let word = until & !ORIGIN | code(sentence.origin);
        if served == Some(word) || self.around(net).any(|wider| wider >= word & !ORIGIN) {
            return Ok(());
        }
        let max = MAX_SENTENCES as usize;
        if !self.words.contains_key(&net) && self.words.len() >= max {
            return Err(L4Error::TooManySentences { max });
        }
        tables
            .sentences
            .insert(&key(net), word, 0)
            .map_err(of(Pinned::Sentences))?;
        self.insert(net, word);
        self.flag(tables)?;
        let hidden = self.within(net, |other, end| other != net && end & !ORIGIN <= until);
        for narrower in hidden {
            self.remove(tables, narrower)?;
        }
        Ok(())
    }

    /// Ends the sentence of `net`, if there is one, and of no other network.
    pub(super) fn unblock(&mut self, tables: &mut Tables, net: &IpNet) -> Result<bool, L4Error> {
        let net = prefix(net);
        let found = self.words.contains_key(&net);
        if found {
            self.remove(tables, net)?;
            self.flag(tables)?;
        }
        Ok(found)
    }

    /// Forgets those that are over; how many they were.
    pub(super) fn expire(&mut self, tables: &mut Tables, now: u64) -> Result<usize, L4Error> {
        let over: Vec<Net> = self
            .words
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(net, _)| *net)
            .collect();
        for net in &over {
            self.remove(tables, *net)?;
        }
        if !over.is_empty() {
            self.flag(tables)?;
        }
        Ok(over.len())
    }

    pub(super) fn list(&self) -> Vec<Sentence> {
        let sentence = |(net, until): (&Net, &u64)| {
            Some(Sentence {
                net: network(*net)?,
                until: *until & !ORIGIN,
                origin: origin(*until),
            })
        };
        self.words.iter().filter_map(sentence).collect()
    }

    /// Ends of the sentences of the networks that contain this one.
    fn around(&self, (address, length): Net) -> impl Iterator<Item = u64> {
        self.lengths
            .range(..length)
            .filter_map(move |(&length, _)| {
                let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
                let network = u128::from_be_bytes(address) & mask;
                let word = self.words.get(&(network.to_be_bytes(), length))?;
                Some(*word & !ORIGIN)
            })
    }

    /// The sentences of networks inside `net` that `wanted` picks.
    fn within(&self, (address, length): Net, wanted: impl Fn(Net, u64) -> bool) -> Vec<Net> {
        let rest = u128::MAX.checked_shr(length).unwrap_or(0);
        let last = (u128::from_be_bytes(address) | rest).to_be_bytes();
        self.words
            .range((address, length)..=(last, 128))
            .filter(|(net, until)| wanted(**net, **until))
            .map(|(net, _)| *net)
            .collect()
    }

    fn remove(&mut self, tables: &mut Tables, net: Net) -> Result<(), L4Error> {
        match tables.sentences.remove(&key(net)) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(of(Pinned::Sentences)(error)),
        }
        if self.words.remove(&net).is_some()
            && let Some(count) = self.lengths.get_mut(&net.1)
        {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&net.1);
            }
        }
        Ok(())
    }

    fn insert(&mut self, net: Net, word: u64) {
        if self.words.insert(net, word).is_none() {
            *self.lengths.entry(net.1).or_default() += 1;
        }
    }

    /// Tells the program whether there are sentences to look sources up in.
    fn flag(&self, tables: &mut Tables) -> Result<(), L4Error> {
        let mut config = tables.config()?;
        let sentences = u32::from(!self.words.is_empty());
        if config.sentences != sentences {
            config.sentences = sentences;
            tables.set_config(config)?;
        }
        Ok(())
    }
}

const fn code(origin: Origin) -> u64 {
    match origin {
        Origin::Node => 0,
        Origin::Fleet => 1,
        Origin::Unsent => 2,
    }
}

const fn origin(word: u64) -> Origin {
    match word & ORIGIN {
        1 => Origin::Fleet,
        2 => Origin::Unsent,
        _ => Origin::Node,
    }
}

fn key((address, length): Net) -> Key<[u8; 16]> {
    Key::new(length, address)
}

fn network((address, length): Net) -> Option<IpNet> {
    let v6 = Ipv6Addr::from(address);
    let (address, length) = match v6.to_ipv4_mapped() {
        Some(v4) if length >= 96 => (IpAddr::V4(Ipv4Addr::from(v4.octets())), length - 96),
        _ => (IpAddr::V6(v6), length),
    };
    IpNet::new(address, u8::try_from(length).ok()?).ok()
}

/// The address as the kernel sees it.
pub(super) fn address(source: IpAddr) -> Address {
    match source {
        IpAddr::V4(address) => Address::v4(address.octets()),
        IpAddr::V6(address) => Address::v6(address.octets()),
    }
}
