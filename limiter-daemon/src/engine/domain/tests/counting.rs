//! Counts that are looked at and filled by descriptors.

use super::*;
use crate::engine::counters::Found;
use crate::engine::explain::BucketState;

const NOW: u64 = 90 * SECOND;

fn hit(domain: &Domain, descriptor: &str) {
    let asked = Asked {
        entries: &entries(descriptor),
        limit: None,
        hits: Hits::Take(1),
    };
    ready(domain, &[asked], NOW);
}

fn states(domain: &Domain, descriptors: &[&str], fill: bool) -> Vec<(String, BucketState)> {
    let descriptors: Vec<_> = descriptors.iter().map(|text| entries(text)).collect();
    let counts = domain.counts(&descriptors, fill, at(NOW));
    let state = |count: DomainCount| match count.found {
        Some(Found::Here(_, state)) => Some((count.quota, state)),
        _ => None,
    };
    counts.into_iter().filter_map(state).collect()
}

#[test]
fn a_value_has_its_count_filled_and_others_keep_theirs() {
    let domain = compile(vec![per_minute("user", 2), per_minute("tenant", 9)]);
    for descriptor in ["user=alice", "user=alice", "user=bob", "tenant=t"] {
        hit(&domain, descriptor);
    }
    let before = states(&domain, &["user=alice", "tenant=t"], false);
    assert_eq!(before.len(), 2);
    let (quota, alice) = &before[0];
    assert_eq!(quota, "2 a minute");
    assert_eq!((alice.remaining, alice.admits), (0, false));
    // The window ends at two minutes.
    assert_eq!(alice.wait_ms, 30_000);
    assert_eq!(before[1].1.remaining, 8);
    let filled = states(&domain, &["user=alice"], true);
    assert_eq!((filled[0].1.remaining, filled[0].1.admits), (2, true));
    assert_eq!(states(&domain, &["user=bob"], false)[0].1.remaining, 1);
    assert!(
        domain
            .counts(&[entries("other=x")], true, at(NOW))
            .is_empty()
    );
}
