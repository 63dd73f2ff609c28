//! Puts a set of policies in force while packets go on being judged.
//!
//! The maps hold two sets, generations 0 and 1, of which one is in force. The other is written, and
//! then one number changes: every packet is judged by the old set or by the new one, and nothing in
//! between. Buckets belong to no generation; they are found by names, and so outlive every reload.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use limiter_common::Config;
use limiter_common::policy::MAX_POLICIES;
use rustix::thread::{MembarrierCommand, membarrier};

use super::device;
use super::error::L4Error;
use super::ids::assign;
use super::image::{Compiled, Image};
use super::maps::Tables;
use crate::policy::plan::NetworkPolicy;

/// Longer than any packet takes, for kernels that do not tell when all have gone by.
const GRACE: Duration = Duration::from_millis(50);

/// What the two generations hold, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Generations {
    /// Of the one not in force; `None`: to be read from the maps.
    spare: Option<Image>,
    /// What is in force; `None`: an earlier daemon's policies, or none yet.
    current: Option<Compiled>,
}

impl Generations {
    /// As [`Generations::apply_on`], with interfaces as they are called now.
    pub(super) fn apply(
        &mut self,
        tables: &mut Tables,
        policies: &[NetworkPolicy],
    ) -> Result<(), L4Error> {
        self.apply_on(tables, policies, |name| device::index(name).ok())
    }

    /// Puts `policies` in force, and nothing else, on the interfaces whose index `index_of` knows.
    /// What cannot be put in force changes nothing.
    pub(super) fn apply_on(
        &mut self,
        tables: &mut Tables,
        policies: &[NetworkPolicy],
        index_of: impl Fn(&str) -> Option<u32>,
    ) -> Result<(), L4Error> {
        let names = names(tables)?;
        let in_force = tables.read_policies(tables.config()?.generation & 1)?;
        let assignment = assign(&names, |id| in_force.contains_key(&id), policies)?;
        let mut compiled = Compiled::new(policies, &assignment.ids)?;
        compiled.image.interfaces = compiled.interfaces(|name| warn_if_none(name, index_of(name)));
        for (id, name) in assignment.new {
            if names.contains_key(&id) {
                // Where all ids are in use, packets of the policy that goes may still be counted
                // under the id between here and the change of generation.
                tables.reset_counters(id)?;
            }
            tables.set_name(id, name)?;
        }
        self.replace(tables, compiled)
    }

    /// Looks up the interfaces targeted as a whole again: one may have come back under another
    /// index.
    pub(super) fn retarget(
        &mut self,
        tables: &mut Tables,
        index_of: impl Fn(&str) -> Option<u32>,
    ) -> Result<(), L4Error> {
        let Some(current) = &self.current else {
            return Ok(());
        };
        let interfaces = current.interfaces(index_of);
        if interfaces == current.image.interfaces {
            return Ok(());
        }
        let mut next = current.clone();
        next.image.interfaces = interfaces;
        self.replace(tables, next)
    }

    /// The rule that a class in force belongs to; `None` for a policy's default.
    pub(super) fn rule(&self, class: u32) -> Option<&str> {
        let index = usize::try_from(class).ok()?;
        self.current.as_ref()?.rules.get(index)?.as_deref()
    }

    /// Writes the generation that is not in force, then puts it in force.
    fn replace(&mut self, tables: &mut Tables, next: Compiled) -> Result<(), L4Error> {
        let config = tables.config()?;
        let spare = 1 - (config.generation & 1);
        // Known again only if all goes well.
        let held = match self.spare.take() {
            Some(held) => held,
            None => tables.read(spare)?,
        };
        tables.write(spare, &held, &next.image)?;
        flip(tables, config, spare, !next.image.interfaces.is_empty())?;
        wait_for_packets();
        self.spare = self.current.replace(next).map(|before| before.image);
        Ok(())
    }
}

/// Puts a generation in force. Of the settings only `generation` changes then, and in it one byte:
/// a packet reads the old number or the new one. Whether there are interfaces to look up may be said
/// too often but not too seldom, so it is said before and taken back after.
fn flip(
    tables: &mut Tables,
    mut config: Config,
    generation: u32,
    interfaces: bool,
) -> Result<(), L4Error> {
    if interfaces && config.interfaces == 0 {
        config.interfaces = 1;
        tables.set_config(config)?;
    }
    config.generation = generation;
    tables.set_config(config)?;
    if !interfaces && config.interfaces != 0 {
        config.interfaces = 0;
        tables.set_config(config)?;
    }
    Ok(())
}

/// Waits until no packet is being judged that came before this call: the generation it may have read
/// is about to be written again. Programs run inside RCU read-side sections, and this command waits
/// for those that are under way.
fn wait_for_packets() {
    if membarrier(MembarrierCommand::Global).is_err() {
        // Kernels with isolated CPUs (nohz_full) refuse it.
        thread::sleep(GRACE);
    }
}

fn warn_if_none(interface: &str, index: Option<u32>) -> Option<u32> {
    if index.is_none() {
        tracing::warn!(
            interface,
            "a policy targets this interface, which does not exist (yet)"
        );
    }
    index
}

/// The ids taken, with their names.
pub(super) fn names(tables: &Tables) -> Result<BTreeMap<u32, String>, L4Error> {
    let mut names = BTreeMap::new();
    for id in 1..MAX_POLICIES {
        if let Some(name) = tables.name(id)? {
            names.insert(id, name);
        }
    }
    Ok(names)
}
