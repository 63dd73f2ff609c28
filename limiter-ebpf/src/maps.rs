//! The maps that both halves share. Layouts are in `limiter-common`; the daemon finds the maps by
//! these names and pins all of them but [`CLOCK`].

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray};
use limiter_common::{
    MAX_POLICIES, MAX_PORTS, PolicyName, PortKey, PortPolicy, Reason, SourceBuckets, SourceKey,
};

/// The policy in force on each port. One update of one entry changes a port's limits.
#[map]
pub(crate) static PORTS: HashMap<PortKey, PortPolicy> = HashMap::with_max_entries(MAX_PORTS, 0);

/// The buckets of the sources seen lately; the daemon sets its size when it loads the program.
///
/// One LRU for all CPUs: with one for each CPU (`BPF_F_NO_COMMON_LRU`) a CPU would have only its
/// share of the entries, and evict sources that are in use where the NIC spreads them unevenly.
#[map]
pub(crate) static SOURCES: LruHashMap<SourceKey, SourceBuckets> =
    LruHashMap::with_max_entries(1 << 16, 0);

/// Packets by [`Verdict::counter`](limiter_common::Verdict::counter).
#[map]
pub(crate) static COUNTERS: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(MAX_POLICIES * Reason::COUNT, 0);

/// Which policy an id stands for. The program does not read it: the daemon keeps it here so that
/// it lives as long as the buckets that are filed under the ids.
#[map]
pub(crate) static NAMES: Array<PolicyName> = Array::with_max_entries(MAX_POLICIES, 0);

/// What the clock reads where a test has taken its place (see [`crate::clock`]).
#[map]
pub(crate) static CLOCK: Array<u64> = Array::with_max_entries(1, 0);
