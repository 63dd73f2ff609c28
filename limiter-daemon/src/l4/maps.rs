//! The maps that both halves share, and typed access to them.

mod pinned;

use std::fmt;
use std::io;

use aya::maps::lpm_trie::Key;
use aya::maps::{
    Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, PerCpuValues, RingBuf,
};
use aya::{Ebpf, Pod};
use limiter_common::local::Pressure;
use limiter_common::policy::POLICY_NAME_LEN;
use limiter_common::table::SLOTS;
use limiter_common::verdict::COUNTERS_PER_POLICY;
use limiter_common::{CidrKey, Class, Config, Local, Policy, PolicyName};

pub(super) use self::pinned::{Pinned, Sizes};
use super::error::L4Error;
use super::sys::Batch;

/// A set of the table of sources: keys and TATs in turn.
pub(super) type SourceSet = [u64; 2 * SLOTS];
/// A CIDR in the trie.
pub(super) type CidrEntry = Key<Raw<CidrKey>>;

/// A type of `limiter-common` as it lies in a map.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(super) struct Raw<T>(pub(super) T);

/// The types that are fit to lie in a map: `repr(C)`, integers throughout, no padding.
pub(super) trait Layout: Copy + 'static {}
impl Layout for CidrKey {}
impl Layout for Class {}
impl Layout for Config {}
impl Layout for Local {}
impl Layout for Policy {}
impl Layout for PolicyName {}

// SAFETY: `Raw` is transparent, and a `Layout` type is made of integers without padding: all its
// bytes are initialised, and all bytes make a value of it.
unsafe impl<T: Layout> Pod for Raw<T> {}

/// The shared maps.
pub(super) struct Tables {
    pub(super) ports: Array<MapData, u32>,
    pub(super) port_batch: Batch<u32, u32>,
    pub(super) interfaces: HashMap<MapData, [u32; 2], u32>,
    pub(super) policies: Array<MapData, Raw<Policy>>,
    pub(super) classes: Array<MapData, Raw<Class>>,
    pub(super) cidrs: LpmTrie<MapData, Raw<CidrKey>, u32>,
    pub(super) cidr_batch: Batch<CidrEntry, u32>,
    pub(super) sentences: LpmTrie<MapData, [u8; 16], u64>,
    pub(super) sources: Array<MapData, SourceSet>,
    pub(super) source_batch: Batch<u32, SourceSet>,
    pub(super) sketch: Array<MapData, u64>,
    config: Array<MapData, Raw<Config>>,
    heartbeat: Array<MapData, u64>,
    counters: PerCpuArray<MapData, u64>,
    names: Array<MapData, Raw<PolicyName>>,
    local: PerCpuArray<MapData, Raw<Local>>,
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables").finish_non_exhaustive()
    }
}

impl Tables {
    /// Takes the maps out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, L4Error> {
        let port_batch = batch(ebpf, Pinned::Ports)?;
        let cidr_batch = batch(ebpf, Pinned::Cidrs)?;
        let source_batch = batch(ebpf, Pinned::Sources)?;
        Ok(Self {
            ports: take(ebpf, Pinned::Ports)?,
            port_batch,
            interfaces: take(ebpf, Pinned::Interfaces)?,
            policies: take(ebpf, Pinned::Policies)?,
            classes: take(ebpf, Pinned::Classes)?,
            cidrs: take(ebpf, Pinned::Cidrs)?,
            cidr_batch,
            sentences: take(ebpf, Pinned::Sentences)?,
            sources: take(ebpf, Pinned::Sources)?,
            source_batch,
            sketch: take(ebpf, Pinned::Sketch)?,
            config: take(ebpf, Pinned::Config)?,
            heartbeat: take(ebpf, Pinned::Heartbeat)?,
            counters: take(ebpf, Pinned::Counters)?,
            names: take(ebpf, Pinned::Names)?,
            local: take(ebpf, Pinned::Local)?,
        })
    }

    pub(super) fn config(&self) -> Result<Config, L4Error> {
        let Raw(config) = self.config.get(&0, 0).map_err(of(Pinned::Config))?;
        Ok(config)
    }

    /// Replaces the settings. The kernel copies them byte by byte, as far as anybody can know: a
    /// packet may see some of the fields changed and others not yet.
    pub(super) fn set_config(&mut self, config: Config) -> Result<(), L4Error> {
        self.config
            .set(0, Raw(config), 0)
            .map_err(of(Pinned::Config))
    }

    pub(super) fn beat(&mut self, now: u64) -> Result<(), L4Error> {
        self.heartbeat.set(0, now, 0).map_err(of(Pinned::Heartbeat))
    }

    /// The name of the policy with this id, if the id is taken.
    pub(super) fn name(&self, id: u32) -> Result<Option<String>, L4Error> {
        let Raw(name) = self.names.get(&id, 0).map_err(of(Pinned::Names))?;
        let length = usize::try_from(name.len).unwrap_or(POLICY_NAME_LEN);
        let bytes = name.name.get(..length);
        Ok(bytes
            .filter(|bytes| !bytes.is_empty())
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
    }

    pub(super) fn set_name(&mut self, id: u32, name: PolicyName) -> Result<(), L4Error> {
        self.names.set(id, Raw(name), 0).map_err(of(Pinned::Names))
    }

    /// Packets counted at this index of [`Verdict::counter`](limiter_common::Verdict::counter), on
    /// all CPUs.
    pub(super) fn count(&self, index: u32) -> Result<u64, L4Error> {
        let counts = self.counters.get(&index, 0).map_err(of(Pinned::Counters))?;
        Ok(counts.iter().sum())
    }

    /// Samples lost.
    pub(super) fn lost(&self) -> Result<u64, L4Error> {
        Ok(self.local()?.iter().map(|Raw(local)| local.lost).sum())
    }

    /// How often this befell the table of sources.
    pub(super) fn pressure(&self, event: Pressure) -> Result<u64, L4Error> {
        let count = |Raw(local): &Raw<Local>| local.pressure.get(event as usize).copied();
        Ok(self.local()?.iter().filter_map(count).sum())
    }

    fn local(&self) -> Result<PerCpuValues<Raw<Local>>, L4Error> {
        self.local.get(&0, 0).map_err(of(Pinned::Local))
    }

    /// Sets the counters of an id to zero.
    pub(super) fn reset_counters(&mut self, id: u32) -> Result<(), L4Error> {
        let error = of(Pinned::Counters);
        let first = id.saturating_mul(COUNTERS_PER_POLICY);
        for index in first..first.saturating_add(COUNTERS_PER_POLICY) {
            let counts = self.counters.get(&index, 0).map_err(&error)?;
            if counts.iter().all(|count| *count == 0) {
                continue;
            }
            let zeros = PerCpuValues::try_from(vec![0; counts.len()])
                .map_err(|problem| error(MapError::IoError(problem)))?;
            self.counters.set(index, zeros, 0).map_err(&error)?;
        }
        Ok(())
    }
}

/// Takes the samples' ring out of a loaded object.
pub(super) fn take_events(ebpf: &mut Ebpf) -> Result<RingBuf<MapData>, L4Error> {
    const NAME: &str = "EVENTS";
    let map = ebpf.take_map(NAME).ok_or_else(|| missing(NAME))?;
    RingBuf::try_from(map).map_err(|error| L4Error::Map { map: NAME, error })
}

fn take<T>(ebpf: &mut Ebpf, map: Pinned) -> Result<T, L4Error>
where
    T: TryFrom<Map, Error = MapError>,
{
    let name = map.name();
    let found = ebpf.take_map(name).ok_or_else(|| missing(name))?;
    T::try_from(found).map_err(of(map))
}

fn batch<K: Pod, V: Pod>(ebpf: &Ebpf, map: Pinned) -> Result<Batch<K, V>, L4Error> {
    let name = map.name();
    let found = ebpf.map(name).ok_or_else(|| missing(name))?;
    let (Map::Array(data) | Map::LpmTrie(data)) = found else {
        return Err(L4Error::Load(format!("the map {name} is of another type")));
    };
    Batch::new(std::os::fd::AsFd::as_fd(data.fd())).map_err(io_of(map))
}

fn missing(name: &str) -> L4Error {
    L4Error::Load(format!("the object has no map {name}"))
}

pub(super) fn of(map: Pinned) -> impl Fn(MapError) -> L4Error {
    move |error| L4Error::Map {
        map: map.name(),
        error,
    }
}

pub(super) fn io_of(map: Pinned) -> impl Fn(io::Error) -> L4Error {
    move |error| of(map)(MapError::IoError(error))
}
