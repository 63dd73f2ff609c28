//! Typed access to the maps that both halves share.

use std::fmt;

use aya::Ebpf;
use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray};
use limiter_common::{
    MAX_POLICIES, MAX_PORTS, PolicyName, PortKey, PortPolicy, Reason, SourceBuckets, SourceKey,
    Verdict,
};

use super::error::L4Error;

/// A map that outlives the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pinned {
    Ports,
    Sources,
    Counters,
    Names,
}

impl Pinned {
    pub(super) const ALL: [Self; 4] = [Self::Ports, Self::Sources, Self::Counters, Self::Names];

    /// Its name in the object, and the name of its pin.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ports => "PORTS",
            Self::Sources => "SOURCES",
            Self::Counters => "COUNTERS",
            Self::Names => "NAMES",
        }
    }

    /// Bytes of a key, bytes of a value, entries.
    pub(super) fn shape(self, max_sources: u32) -> (u32, u32, u32) {
        let (key, value, entries) = match self {
            Self::Ports => (size_of::<PortKey>(), size_of::<PortPolicy>(), MAX_PORTS),
            Self::Sources => (
                size_of::<SourceKey>(),
                size_of::<SourceBuckets>(),
                max_sources,
            ),
            Self::Counters => (
                size_of::<u32>(),
                size_of::<u64>(),
                MAX_POLICIES * Reason::COUNT,
            ),
            Self::Names => (size_of::<u32>(), size_of::<PolicyName>(), MAX_POLICIES),
        };
        (
            u32::try_from(key).unwrap_or(u32::MAX),
            u32::try_from(value).unwrap_or(u32::MAX),
            entries,
        )
    }
}

/// A type of `limiter-common` as it lies in a map.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
struct Raw<T>(T);

/// The types that are fit to lie in a map: `repr(C)`, integers throughout, no padding.
trait Layout: Copy + 'static {}
impl Layout for PortKey {}
impl Layout for PortPolicy {}
impl Layout for SourceKey {}
impl Layout for SourceBuckets {}
impl Layout for PolicyName {}

// SAFETY: `Raw` is transparent, and a `Layout` type is made of integers without padding: all its
// bytes are initialised, and all bytes make a value of it.
unsafe impl<T: Layout> Pod for Raw<T> {}

/// The shared maps.
pub(super) struct Tables {
    ports: HashMap<MapData, Raw<PortKey>, Raw<PortPolicy>>,
    sources: HashMap<MapData, Raw<SourceKey>, Raw<SourceBuckets>>,
    counters: PerCpuArray<MapData, u64>,
    names: Array<MapData, Raw<PolicyName>>,
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables").finish_non_exhaustive()
    }
}

impl Tables {
    /// Takes the maps out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, L4Error> {
        Ok(Self {
            ports: take(ebpf, Pinned::Ports)?,
            sources: take(ebpf, Pinned::Sources)?,
            counters: take(ebpf, Pinned::Counters)?,
            names: take(ebpf, Pinned::Names)?,
        })
    }

    /// Every port under a policy.
    pub(super) fn ports(&self) -> Result<Vec<(PortKey, PortPolicy)>, L4Error> {
        let entries = self
            .ports
            .iter()
            .map(|entry| entry.map(|(key, value)| (key.0, value.0)));
        entries.collect::<Result<_, _>>().map_err(of(Pinned::Ports))
    }

    /// Puts a port under a policy, or under another one: one atomic update.
    pub(super) fn set_port(&mut self, key: PortKey, policy: PortPolicy) -> Result<(), L4Error> {
        self.ports
            .insert(Raw(key), Raw(policy), 0)
            .map_err(of(Pinned::Ports))
    }

    pub(super) fn remove_port(&mut self, key: PortKey) -> Result<(), L4Error> {
        self.ports.remove(&Raw(key)).map_err(of(Pinned::Ports))
    }

    /// The name of the policy with this id, if the id is taken.
    pub(super) fn name(&self, id: u32) -> Result<Option<String>, L4Error> {
        let name = self.names.get(&id, 0).map_err(of(Pinned::Names))?.0;
        let bytes = usize::try_from(name.len)
            .ok()
            .and_then(|len| name.name.get(..len));
        Ok(bytes
            .filter(|bytes| !bytes.is_empty())
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
    }

    pub(super) fn set_name(&mut self, id: u32, name: PolicyName) -> Result<(), L4Error> {
        self.names.set(id, Raw(name), 0).map_err(of(Pinned::Names))
    }

    /// Packets with this verdict so far, on all CPUs.
    pub(super) fn count(&self, verdict: Verdict) -> Result<u64, L4Error> {
        let counts = self
            .counters
            .get(&verdict.counter(), 0)
            .map_err(of(Pinned::Counters))?;
        Ok(counts.iter().sum())
    }

    /// Forgets what was filed under an id: its sources' buckets and its counters.
    pub(super) fn purge(&mut self, id: u32) -> Result<(), L4Error> {
        for key in self.source_keys(|key| key.policy == id)? {
            match self.sources.remove(&Raw(key)) {
                // Evicted meanwhile.
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(of(Pinned::Sources)(error)),
            }
        }
        for reason in Reason::ALL {
            let index = Verdict::new(id, reason).counter();
            let cpus = self
                .counters
                .get(&index, 0)
                .map_err(of(Pinned::Counters))?
                .len();
            let zeros = aya::maps::PerCpuValues::try_from(vec![0; cpus])
                .map_err(|error| of(Pinned::Counters)(MapError::IoError(error)))?;
            self.counters
                .set(index, zeros, 0)
                .map_err(of(Pinned::Counters))?;
        }
        Ok(())
    }

    /// The sources in the table, those that `wanted` picks.
    pub(super) fn source_keys(
        &self,
        wanted: impl Fn(&SourceKey) -> bool,
    ) -> Result<Vec<SourceKey>, L4Error> {
        let mut keys = Vec::new();
        for key in self.sources.keys() {
            let Raw(key) = key.map_err(of(Pinned::Sources))?;
            if wanted(&key) {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    /// The buckets of one source.
    pub(super) fn buckets(&self, key: SourceKey) -> Result<Option<SourceBuckets>, L4Error> {
        match self.sources.get(&Raw(key), 0) {
            Ok(Raw(buckets)) => Ok(Some(buckets)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(of(Pinned::Sources)(error)),
        }
    }
}

fn take<T>(ebpf: &mut Ebpf, map: Pinned) -> Result<T, L4Error>
where
    T: TryFrom<Map, Error = MapError>,
{
    let name = map.name();
    let found = ebpf
        .take_map(name)
        .ok_or_else(|| L4Error::Load(format!("the object has no map {name}")))?;
    T::try_from(found).map_err(of(map))
}

fn of(map: Pinned) -> impl Fn(MapError) -> L4Error {
    move |error| L4Error::Map {
        map: map.name(),
        error,
    }
}
