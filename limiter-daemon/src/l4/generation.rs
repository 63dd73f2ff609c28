//! One generation of the maps, read and written as an [`Image`].

use std::collections::{BTreeMap, HashMap};

use aya::maps::MapError;
use aya::maps::lpm_trie::Key;
use limiter_common::key::{PORT_ENTRIES, cidr_set};
use limiter_common::policy::{MAX_CLASSES, MAX_POLICIES};
use limiter_common::{CidrKey, Class, Config, Policy};

use super::error::L4Error;
use super::image::{Cidr, Image};
use super::maps::{CidrEntry, Pinned, Raw, Tables, io_of, of};

impl Tables {
    /// What a generation holds.
    pub(super) fn read(&self, generation: u32) -> Result<Image, L4Error> {
        let mut image = Image::default();
        let first = Config::index(generation, PORT_ENTRIES, 0);
        self.port_batch
            .read(first, PORT_ENTRIES, 0, |index, policy| {
                if policy != 0 {
                    image.ports.insert(index - first, policy);
                }
            })
            .map_err(io_of(Pinned::Ports))?;
        for entry in self.interfaces.iter() {
            let ([ifindex, of_generation], policy) = entry.map_err(of(Pinned::Interfaces))?;
            if of_generation == generation {
                image.interfaces.insert(ifindex, policy);
            }
        }
        image.policies = self.read_policies(generation)?;
        for class in 0..MAX_CLASSES {
            let index = Config::index(generation, MAX_CLASSES, class);
            let Raw(class) = self.classes.get(&index, 0).map_err(of(Pinned::Classes))?;
            image.classes.push(class);
        }
        image.cidrs = self.read_cidrs(generation)?;
        Ok(image)
    }

    /// The policies of a generation, by id.
    pub(super) fn read_policies(&self, generation: u32) -> Result<BTreeMap<u32, Policy>, L4Error> {
        let mut policies = BTreeMap::new();
        for id in 1..MAX_POLICIES {
            let index = Config::index(generation, MAX_POLICIES, id);
            let Raw(policy) = self.policies.get(&index, 0).map_err(of(Pinned::Policies))?;
            if policy != Policy::default() {
                policies.insert(id, policy);
            }
        }
        Ok(policies)
    }

    fn read_cidrs(&self, generation: u32) -> Result<HashMap<Cidr, u32>, L4Error> {
        let mut cidrs = HashMap::new();
        for entry in self.cidrs.iter() {
            let (key, action) = entry.map_err(of(Pinned::Cidrs))?;
            let Raw(CidrKey { set, address }) = key.data();
            let set = u32::from_be(set);
            if set & 1 == generation {
                cidrs.insert((set >> 1, address, key.prefix_len()), action);
            }
        }
        Ok(cidrs)
    }

    /// Brings a generation that holds `from`, and is not in force, to `to`: writes what differs.
    pub(super) fn write(
        &mut self,
        generation: u32,
        from: &Image,
        to: &Image,
    ) -> Result<(), L4Error> {
        self.write_ports(generation, from, to)?;
        for ifindex in from.interfaces.keys() {
            if !to.interfaces.contains_key(ifindex) {
                match self.interfaces.remove(&[*ifindex, generation]) {
                    Ok(()) | Err(MapError::KeyNotFound) => {}
                    Err(error) => return Err(of(Pinned::Interfaces)(error)),
                }
            }
        }
        for (ifindex, policy) in &to.interfaces {
            if from.interfaces.get(ifindex) != Some(policy) {
                self.interfaces
                    .insert([*ifindex, generation], policy, 0)
                    .map_err(of(Pinned::Interfaces))?;
            }
        }
        for id in 1..MAX_POLICIES {
            let wanted = to.policies.get(&id);
            if from.policies.get(&id) != wanted {
                let index = Config::index(generation, MAX_POLICIES, id);
                let policy = wanted.copied().unwrap_or_default();
                self.policies
                    .set(index, Raw(policy), 0)
                    .map_err(of(Pinned::Policies))?;
            }
        }
        // Classes that no policy leads to any more stay as they are.
        let before = from.classes.iter().map(Some).chain(std::iter::repeat(None));
        for (index, (wanted, before)) in (0..).zip(to.classes.iter().zip(before)) {
            if before != Some(wanted) {
                self.write_class(Config::index(generation, MAX_CLASSES, index), *wanted)?;
            }
        }
        self.write_cidrs(generation, &from.cidrs, &to.cidrs)
    }

    fn write_ports(&mut self, generation: u32, from: &Image, to: &Image) -> Result<(), L4Error> {
        let first = Config::index(generation, PORT_ENTRIES, 0);
        let gone = from
            .ports
            .keys()
            .filter(|port| !to.ports.contains_key(port));
        let changed = to
            .ports
            .iter()
            .filter(|(port, policy)| from.ports.get(port) != Some(policy));
        let (ports, policies): (Vec<_>, Vec<_>) = gone
            .map(|port| (first + port, 0))
            .chain(changed.map(|(port, policy)| (first + port, *policy)))
            .unzip();
        self.port_batch
            .update(&ports, &policies)
            .map_err(io_of(Pinned::Ports))
    }

    fn write_class(&mut self, index: u32, class: Class) -> Result<(), L4Error> {
        self.classes
            .set(index, Raw(class), 0)
            .map_err(of(Pinned::Classes))
    }

    fn write_cidrs(
        &mut self,
        generation: u32,
        from: &HashMap<Cidr, u32>,
        to: &HashMap<Cidr, u32>,
    ) -> Result<(), L4Error> {
        let gone: Vec<CidrEntry> = from
            .keys()
            .filter(|cidr| !to.contains_key(cidr))
            .map(|cidr| entry(generation, cidr))
            .collect();
        let (keys, actions): (Vec<CidrEntry>, Vec<u32>) = to
            .iter()
            .filter(|(cidr, action)| from.get(cidr) != Some(action))
            .map(|(cidr, action)| (entry(generation, cidr), *action))
            .unzip();
        self.cidr_batch
            .delete(&gone)
            .and_then(|()| self.cidr_batch.update(&keys, &actions))
            .map_err(io_of(Pinned::Cidrs))
    }
}

fn entry(generation: u32, &(policy, address, length): &Cidr) -> CidrEntry {
    let set = cidr_set(generation, policy);
    Key::new(length, Raw(CidrKey { set, address }))
}
