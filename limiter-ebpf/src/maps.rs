//! The maps that both halves share. Layouts are in `limiter-common`; the daemon finds the maps by
//! these names and pins all of them but [`CLOCK`].
//!
//! Everything that a policy says exists twice, as generations 0 and 1 ([`limiter_common::policy`]).

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf};
use limiter_common::key::PORT_ENTRIES;
use limiter_common::policy::{MAX_CIDRS, MAX_CLASSES, MAX_POLICIES, MAX_SENTENCES};
use limiter_common::table::SLOTS;
use limiter_common::verdict::COUNTERS_PER_POLICY;
use limiter_common::{CidrKey, Class, Config, Local, Policy, PolicyName};

/// Settings, the generation in force among them.
#[map]
pub(crate) static CONFIG: Array<Config> = Array::with_max_entries(1, 0);

/// When the daemon was last alive, by the coarse clock.
#[map]
pub(crate) static HEARTBEAT: Array<u64> = Array::with_max_entries(1, 0);

/// The policy of each port, as an index into one generation of [`POLICIES`]; 0: none. An array of all
/// ports there are, because nothing is looked up quicker.
#[map]
pub(crate) static PORTS: Array<u32> = Array::with_max_entries(2 * PORT_ENTRIES, 0);

/// Interfaces with a policy as a whole; two generations of each.
const MAX_INTERFACES: u32 = 512;

/// The policy of an interface as a whole, by its index and the generation.
#[map]
pub(crate) static INTERFACES: HashMap<[u32; 2], u32> = HashMap::with_max_entries(MAX_INTERFACES, 0);

#[map]
pub(crate) static POLICIES: Array<Policy> = Array::with_max_entries(2 * MAX_POLICIES, 0);

#[map]
pub(crate) static CLASSES: Array<Class> = Array::with_max_entries(2 * MAX_CLASSES, 0);

/// What the policies say of single networks, as `CidrAction::to_raw`.
#[map]
pub(crate) static CIDRS: LpmTrie<CidrKey, u32> = LpmTrie::with_max_entries(MAX_CIDRS, 0);

/// When each network's sentence is over, by the coarse clock.
#[map]
pub(crate) static SENTENCES: LpmTrie<[u8; 16], u64> = LpmTrie::with_max_entries(MAX_SENTENCES, 0);

/// A set of the table of sources: slots of a key and a TAT each.
pub(crate) type SourceSet = [u64; 2 * SLOTS];

/// The table of sources ([`limiter_common::table`]); the daemon sets its size when it loads the
/// program, a power of two.
///
/// It can be mapped into memory not only so that the daemon can read it without a call for each set:
/// such an array begins at a page, so that a set is one cache line and not two halves.
#[map]
pub(crate) static SOURCES: Array<SourceSet> = Array::with_max_entries(1 << 14, BPF_F_MMAPABLE);

/// The sketch, for sources that find no place in the table: two rows of TATs, one after the other;
/// the daemon sets its size.
#[map]
pub(crate) static SKETCH: Array<u64> = Array::with_max_entries(1 << 17, 0);

/// Packets by [`Verdict::counter`](limiter_common::Verdict::counter).
#[map]
pub(crate) static COUNTERS: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(MAX_POLICIES * COUNTERS_PER_POLICY, 0);

/// What each CPU keeps for itself.
#[map]
pub(crate) static LOCAL: PerCpuArray<Local> = PerCpuArray::with_max_entries(1, 0);

/// Samples of dropped packets, as `DropEvent`.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(256 << 10, 0);

/// Which policy an id stands for. The program does not read it: the daemon keeps it here so that
/// it lives as long as the buckets that are filed under the ids.
#[map]
pub(crate) static NAMES: Array<PolicyName> = Array::with_max_entries(MAX_POLICIES, 0);

/// What the clock reads where a test has taken its place (see [`crate::clock`]).
#[map]
pub(crate) static CLOCK: Array<u64> = Array::with_max_entries(1, 0);
