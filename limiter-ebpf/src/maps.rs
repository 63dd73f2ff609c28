//! The maps that both halves share. Layouts are in `limiter-common`; the daemon finds the maps by
//! these names and pins all of them but [`CLOCK`].
//!
//! They are defined by types (BTF, section `.maps`), so that other loaders and tools than aya read
//! them too: libbpf takes no other definitions since 1.0.
//!
//! Everything that a policy says exists twice, as generations 0 and 1 ([`limiter_common::policy`]).

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;
use limiter_common::key::PORT_ENTRIES;
use limiter_common::policy::{MAX_CIDRS, MAX_CLASSES, MAX_POLICIES, MAX_SENTENCES};
use limiter_common::table::SLOTS;
use limiter_common::verdict::COUNTERS_PER_POLICY;
use limiter_common::{CidrKey, Class, Config, Local, Policy, PolicyName};

/// Settings, the generation in force among them.
#[btf_map]
pub(crate) static CONFIG: Array<Config, 1> = Array::new();

/// When the daemon was last alive, by the coarse clock.
#[btf_map]
pub(crate) static HEARTBEAT: Array<u64, 1> = Array::new();

/// The policy of each port, as an index into one generation of [`POLICIES`]; 0: none. An array of all
/// ports there are, because nothing is looked up quicker.
#[btf_map]
pub(crate) static PORTS: Array<u32, { (2 * PORT_ENTRIES) as usize }> = Array::new();

/// Interfaces with a policy as a whole; two generations of each.
const MAX_INTERFACES: u32 = 512;

/// The policy of an interface as a whole, by its index and the generation.
#[btf_map]
pub(crate) static INTERFACES: HashMap<[u32; 2], u32, { MAX_INTERFACES as usize }> = HashMap::new();

#[btf_map]
pub(crate) static POLICIES: Array<Policy, { (2 * MAX_POLICIES) as usize }> = Array::new();

#[btf_map]
pub(crate) static CLASSES: Array<Class, { (2 * MAX_CLASSES) as usize }> = Array::new();

/// What the policies say of single networks, as `CidrAction::to_raw`.
#[btf_map]
pub(crate) static CIDRS: LpmTrie<CidrKey, u32, { MAX_CIDRS as usize }> = LpmTrie::new();

/// When each network's sentence is over, by the coarse clock.
#[btf_map]
pub(crate) static SENTENCES: LpmTrie<[u8; 16], u64, { MAX_SENTENCES as usize }> = LpmTrie::new();

/// A set of the table of sources: slots of a key and a TAT each.
pub(crate) type SourceSet = [u64; 2 * SLOTS];

/// The table of sources ([`limiter_common::table`]); the daemon sets its size when it loads the
/// program, a power of two.
///
/// It can be mapped into memory not only so that the daemon can read it without a call for each set:
/// such an array begins at a page, so that a set is one cache line and not two halves.
#[btf_map]
pub(crate) static SOURCES: Array<SourceSet, { 1 << 14 }, { BPF_F_MMAPABLE as usize }> =
    Array::new();

/// The sketch, for sources that find no place in the table: two rows of TATs, one after the other;
/// the daemon sets its size.
#[btf_map]
pub(crate) static SKETCH: Array<u64, { 1 << 17 }> = Array::new();

/// Packets by [`Verdict::counter`](limiter_common::Verdict::counter).
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<u64, { (MAX_POLICIES * COUNTERS_PER_POLICY) as usize }> =
    PerCpuArray::new();

/// What each CPU keeps for itself.
#[btf_map]
pub(crate) static LOCAL: PerCpuArray<Local, 1> = PerCpuArray::new();

/// Samples of dropped packets, as `DropEvent`. That is not said in the definition: libbpf takes no
/// value size but 0 for a ring buffer, and of a type of another size it says that they conflict.
#[btf_map]
pub(crate) static EVENTS: RingBuf<(), { 256 << 10 }> = RingBuf::new();

/// Which policy an id stands for. The program does not read it: the daemon keeps it here so that
/// it lives as long as the buckets that are filed under the ids.
#[btf_map]
pub(crate) static NAMES: Array<PolicyName, { MAX_POLICIES as usize }> = Array::new();

/// What the clock reads where a test has taken its place (see [`crate::clock`]).
#[btf_map]
pub(crate) static CLOCK: Array<u64, 1> = Array::new();
