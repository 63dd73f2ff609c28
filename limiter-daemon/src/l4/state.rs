//! The maps, and what of them is remembered on this side.

use std::net::IpAddr;
use std::time::Duration;

use aya::Ebpf;
use limiter_common::Secret;
use rustix::rand::{GetRandomFlags, getrandom};

use super::clock;
use super::error::L4Error;
use super::explain::{self, Destination, Explanation};
use super::maps::{Sizes, Tables};
use super::sentences::Sentences;
use super::sync::Generations;
use crate::policy::plan::{DaemonConfig, OnDaemonLost};

/// The maps with what is known of their contents.
#[derive(Debug)]
pub(super) struct State {
    pub(super) tables: Tables,
    pub(super) generations: Generations,
    pub(super) sentences: Sentences,
}

impl State {
    /// Takes the maps of a loaded object, and writes the settings into them.
    pub(super) fn take(ebpf: &mut Ebpf, config: &DaemonConfig) -> Result<Self, L4Error> {
        let mut tables = Tables::take(ebpf)?;
        settings(&mut tables, config)?;
        let sentences = Sentences::adopt(&mut tables)?;
        Ok(Self {
            tables,
            generations: Generations::default(),
            sentences,
        })
    }

    pub(super) fn explain(
        &self,
        source: IpAddr,
        destination: Destination,
        now: u64,
    ) -> Result<Explanation, L4Error> {
        explain::explain(&self.tables, &self.generations, source, destination, now)
    }
}

/// Writes what the configuration says of the tables. The secret is drawn when they are made, and kept
/// as long as they.
fn settings(tables: &mut Tables, config: &DaemonConfig) -> Result<(), L4Error> {
    let sizes = Sizes::new(config.max_sources, config.sketch_cells);
    let mut settings = tables.config()?;
    if settings.secret == Secret::default() {
        settings.secret = secret()?;
    }
    settings.set_mask = sizes.sets - 1;
    settings.cell_mask = sizes.cells - 1;
    settings.keep = nanos(config.keep_sources);
    settings.dead_after = match config.on_daemon_lost {
        OnDaemonLost::Enforce => 0,
        OnDaemonLost::Pass { after } => nanos(after),
    };
    tables.beat(clock::now())?;
    tables.set_config(settings)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn secret() -> Result<Secret, L4Error> {
    let mut bytes = [[0; 8]; 2];
    let flags = GetRandomFlags::empty();
    getrandom(bytes.as_flattened_mut(), flags).map_err(|error| L4Error::Random(error.into()))?;
    let [first, second] = bytes.map(u64::from_ne_bytes);
    Ok(Secret { first, second })
}
