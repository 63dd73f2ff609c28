//! Random trees and requests, against a model of the reference's matching that is as plain as can be:
//! names joined by underscores, as that service keeps them, looked through one by one.

use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

pub(super) const KEYS: [&str; 3] = ["a", "b", "c"];
pub(super) const VALUES: [&str; 4] = ["x", "y", "xy", ""];
const OF_NODES: [&str; 8] = ["", "x", "y", "xy", "x*", "*", "*y", "x*y"];

pub(super) fn trees(depth: u32) -> impl Strategy<Value = Vec<Descriptor>> {
    let leaves = (select(&KEYS[..]), select(&OF_NODES[..]), 0u32..5).prop_map(leaf);
    let nodes = leaves.prop_recursive(depth, 24, 4, |below| {
        (
            (select(&KEYS[..]), select(&OF_NODES[..]), 0u32..5),
            vec(below, 0..4),
        )
            .prop_map(|(own, below)| Descriptor {
                descriptors: distinct(below),
                ..leaf(own)
            })
    });
    vec(nodes, 0..6).prop_map(distinct)
}

/// 0: no limit; 1: one that admits nothing.
fn leaf((key, value, limited): (&str, &str, u32)) -> Descriptor {
    let entry = if value.is_empty() {
        key.to_owned()
    } else {
        format!("{key}={value}")
    };
    let limit = limited.checked_sub(1);
    node(
        &entry,
        limit.map(|n| super::limit(amount(n, TimeUnit::Minute))),
        vec![],
    )
}

fn distinct(descriptors: Vec<Descriptor>) -> Vec<Descriptor> {
    let mut labels = std::collections::HashSet::new();
    let new = |one: &Descriptor| labels.insert(one.label());
    descriptors
        .into_iter()
        .filter(new)
        .collect::<Vec<_>>()
        .into_iter()
        .collect()
}

fn matches(pattern: &str, value: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == value,
        Some((before, after)) => value
            .strip_prefix(before)
            .is_some_and(|rest| (0..=rest.len()).any(|at| matches(after, &rest[at..]))),
    }
}

/// The label of what decides, as the reference goes about it.
pub(super) fn model(
    tree: &[Descriptor],
    entries: &[(&str, &str)],
) -> Option<(String, DomainLimit)> {
    let mut level = tree;
    let mut path = String::from("d");
    for (index, (key, value)) in entries.iter().enumerate() {
        let joined = format!("{key}_{value}");
        let exact = level
            .iter()
            .find(|one| !matches!(one.value, EntryValue::Like(_)) && one.label() == joined);
        let like = level.iter().find(|one| match &one.value {
            EntryValue::Like(pattern) => one.key == *key && matches(pattern, value),
            _ => false,
        });
        let any = level.iter().find(|one| one.label() == *key);
        let next = exact.or(like).or(any)?;
        path = format!("{path}.{}", next.label());
        if index == entries.len() - 1 {
            return next.limit.clone().map(|limit| (path, limit));
        }
        if next.descriptors.is_empty() {
            return None;
        }
        level = &next.descriptors;
    }
    None
}

/// The rule, and the values that it counts by.
type Bucket<'a> = (String, Vec<(&'a str, &'a str)>);

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn descriptors_meet_what_the_model_says_and_are_counted_all_or_none(
        tree in trees(3),
        requests in vec(vec((vec((select(&KEYS[..]), select(&VALUES[..])), 0..4), 0u64..3), 1..4), 1..40),
    ) {
        let domain = compile(tree.clone());
        let mut counts: HashMap<Bucket<'_>, u64> = HashMap::new();
        for request in &requests {
            let asked: Vec<Asked<'_>> = request
                .iter()
                .map(|(entries, hits)| Asked { entries, limit: None, hits: Hits::Take(*hits) })
                .collect();
            let decision = ready(&domain, &asked, MINUTE);
            let met: Vec<_> = request.iter().map(|(entries, _)| model(&tree, entries)).collect();
            let mut after = counts.clone();
            let mut over = vec![false; request.len()];
            let mut together = true;
            for (index, ((entries, hits), met)) in request.iter().zip(&met).enumerate() {
                let found = decision.statuses[index].limited.as_ref().map(|one| one.rule().to_owned());
                prop_assert_eq!(&found, &met.as_ref().map(|(path, _)| path.clone()));
                let Some((path, limit)) = met else { continue };
                let capacity = match limit.amount {
                    Amount::PerUnit { requests, .. } => u64::from(requests),
                    _ => 0,
                };
                let key = (path.clone(), entries.clone());
                let before = counts.get(&key).copied().unwrap_or_default();
                over[index] = before + (*hits).max(1) > capacity;
                let count = after.entry(key).or_default();
                together &= *count + (*hits).max(1) <= capacity;
                *count += hits;
            }
            prop_assert_eq!(decision.over_limit, !together);
            for (index, over) in over.iter().enumerate() {
                if *over {
                    prop_assert!(decision.statuses[index].over_limit);
                }
            }
            if together {
                counts = after;
            }
        }
    }
}
