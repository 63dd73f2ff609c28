//! Which maps there are, and their shapes.

use aya::maps::lpm_trie::Key;
use limiter_common::key::PORT_ENTRIES;
use limiter_common::policy::{MAX_CIDRS, MAX_CLASSES, MAX_POLICIES, MAX_SENTENCES};
use limiter_common::table::SLOTS;
use limiter_common::verdict::COUNTERS_PER_POLICY;
use limiter_common::{Class, Config, Local, Policy, PolicyName};

use super::{CidrEntry, SourceSet};

/// Entries of the table of interfaces, both generations together.
const MAX_INTERFACES: u32 = 512;
/// Two units or levels of a source have a slot each.
const SLOTS_PER_SOURCE: u32 = 2;

/// A map that outlives the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::l4) enum Pinned {
    Ports,
    Interfaces,
    Policies,
    Classes,
    Cidrs,
    Config,
    Sources,
    Sketch,
    Sentences,
    Heartbeat,
    Counters,
    Names,
    Local,
}

impl Pinned {
    pub(in crate::l4) const ALL: [Self; 13] = [
        Self::Ports,
        Self::Interfaces,
        Self::Policies,
        Self::Classes,
        Self::Cidrs,
        Self::Config,
        Self::Sources,
        Self::Sketch,
        Self::Sentences,
        Self::Heartbeat,
        Self::Counters,
        Self::Names,
        Self::Local,
    ];

    /// Its name in the object, and the name of its pin.
    pub(in crate::l4) const fn name(self) -> &'static str {
        match self {
            Self::Ports => "PORTS",
            Self::Interfaces => "INTERFACES",
            Self::Policies => "POLICIES",
            Self::Classes => "CLASSES",
            Self::Cidrs => "CIDRS",
            Self::Config => "CONFIG",
            Self::Sources => "SOURCES",
            Self::Sketch => "SKETCH",
            Self::Sentences => "SENTENCES",
            Self::Heartbeat => "HEARTBEAT",
            Self::Counters => "COUNTERS",
            Self::Names => "NAMES",
            Self::Local => "LOCAL",
        }
    }

    /// Whether it makes sense only together with the others of which this is said: the settings name
    /// the generation in force, the sizes of the tables and their secret. If one is made anew, all
    /// are; an attached program goes on with the old ones until it is replaced.
    pub(in crate::l4) const fn is_of_config(self) -> bool {
        matches!(
            self,
            Self::Ports
                | Self::Interfaces
                | Self::Policies
                | Self::Classes
                | Self::Cidrs
                | Self::Config
                | Self::Sources
                | Self::Sketch
        )
    }

    /// Bytes of a key, bytes of a value, entries.
    pub(in crate::l4) fn shape(self, sizes: Sizes) -> (u32, u32, u32) {
        let index = size_of::<u32>();
        let word = size_of::<u64>();
        let (key, value, entries) = match self {
            Self::Ports => (index, size_of::<u32>(), 2 * PORT_ENTRIES),
            Self::Interfaces => (2 * index, size_of::<u32>(), MAX_INTERFACES),
            Self::Policies => (index, size_of::<Policy>(), 2 * MAX_POLICIES),
            Self::Classes => (index, size_of::<Class>(), 2 * MAX_CLASSES),
            Self::Cidrs => (size_of::<CidrEntry>(), size_of::<u32>(), MAX_CIDRS),
            Self::Config => (index, size_of::<Config>(), 1),
            Self::Sources => (index, size_of::<SourceSet>(), sizes.sets),
            Self::Sketch => (index, word, sizes.cells.saturating_mul(2)),
            Self::Sentences => (size_of::<Key<[u8; 16]>>(), word, MAX_SENTENCES),
            Self::Heartbeat => (index, word, 1),
            Self::Counters => (index, word, MAX_POLICIES * COUNTERS_PER_POLICY),
            Self::Names => (index, size_of::<PolicyName>(), MAX_POLICIES),
            Self::Local => (index, size_of::<Local>(), 1),
        };
        let bytes = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        (bytes(key), bytes(value), entries)
    }
}

/// Sizes of the tables, powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::l4) struct Sizes {
    /// Sets of the table of sources.
    pub(in crate::l4) sets: u32,
    /// Cells of one row of the sketch.
    pub(in crate::l4) cells: u32,
}

impl Sizes {
    /// What the settings ask for, rounded up; no more than the kernel's indices reach.
    pub(in crate::l4) fn new(max_sources: u32, sketch_cells: u32) -> Self {
        let slots = u64::from(max_sources) * u64::from(SLOTS_PER_SOURCE);
        let sets = slots.div_ceil(SLOTS as u64).clamp(1, 1 << 26);
        Self {
            sets: u32::try_from(sets.next_power_of_two()).unwrap_or(1 << 26),
            cells: sketch_cells.clamp(1, 1 << 28).next_power_of_two(),
        }
    }
}
