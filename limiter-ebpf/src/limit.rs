//! The buckets of a segment's source.

use core::ptr::NonNull;

use aya_ebpf::bindings::BPF_NOEXIST;
use limiter_common::bucket::{self, KERNEL_TRIES};
use limiter_common::policy::{UNIT_CONNECTIONS, UNIT_PACKETS};
use limiter_common::{Decision, Limit, PortPolicy, Reason, SourceBuckets, SourceKey};

use crate::atomic::Tat;
use crate::clock;
use crate::maps::SOURCES;
use crate::parse::Segment;

/// Charges the segment to its source under `policy`.
///
/// Where both units are in force, the connections bucket is asked first, then the packets bucket is
/// charged, then the connections bucket: so a denied segment charges nothing. Only if another CPU
/// takes the source's last connection token in between is a packet token lost with the denial: less
/// than the limit is admitted then, never more.
#[inline(always)]
pub(crate) fn apply(policy: &PortPolicy, segment: &Segment) -> Reason {
    let connections = policy.units & UNIT_CONNECTIONS != 0 && segment.attempt;
    let packets = policy.units & UNIT_PACKETS != 0;
    if !connections && !packets {
        return Reason::Conforming;
    }
    let Some(buckets) = buckets_of(&segment.source.key(policy.policy)) else {
        return Reason::TableFull;
    };
    let now = clock::now();
    if connections && packets {
        let cost = policy.connections.cost(1);
        if !bucket::conforms(
            &buckets.connections,
            now,
            cost,
            policy.connections.tolerance,
        ) {
            return Reason::OverConnections;
        }
    }
    if packets
        && let Err(reason) = take(&buckets.packets, now, &policy.packets, Reason::OverPackets)
    {
        return reason;
    }
    if connections
        && let Err(reason) = take(
            &buckets.connections,
            now,
            &policy.connections,
            Reason::OverConnections,
        )
    {
        return reason;
    }
    Reason::Conforming
}

/// Takes one token.
#[inline(always)]
fn take(tat: &Tat, now: u64, limit: &Limit, over: Reason) -> Result<(), Reason> {
    match bucket::take(tat, now, limit.cost(1), limit.tolerance, KERNEL_TRIES) {
        Decision::Admitted { .. } => Ok(()),
        Decision::Denied { .. } => Err(over),
        Decision::Contended => Err(Reason::Contended),
    }
}

/// The buckets of one source, inside its entry of the table.
struct Buckets {
    connections: Tat,
    packets: Tat,
}

/// The source's buckets: full ones if it is new. `None` if the table takes no new entry.
#[inline(always)]
fn buckets_of(key: &SourceKey) -> Option<Buckets> {
    let entry = match SOURCES.get_ptr_mut(key) {
        Some(entry) => entry,
        None => {
            // Failing because another CPU was first is fine: then there is an entry to find.
            let full = SourceBuckets {
                connections: 0,
                packets: 0,
            };
            let _exists_or_full = SOURCES.insert(key, full, u64::from(BPF_NOEXIST));
            SOURCES.get_ptr_mut(key)?
        }
    };
    let entry = NonNull::new(entry)?;
    // SAFETY: a lookup returned `entry`, so it points to a map value; the fields lie inside it.
    unsafe {
        Some(Buckets {
            connections: Tat::new(NonNull::new_unchecked(
                &raw mut (*entry.as_ptr()).connections,
            )),
            packets: Tat::new(NonNull::new_unchecked(&raw mut (*entry.as_ptr()).packets)),
        })
    }
}
