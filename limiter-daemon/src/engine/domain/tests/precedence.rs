//! Weights, and sets: which of the limits that a request meets apply. Examples of Gloo's documents,
//! and random trees, rules and requests against a model that looks at all there are.

use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::model::{KEYS, VALUES, model, trees};
use super::*;
use crate::policy::plan::{SET_MARK, SetRule};

fn weighing(descriptor: Descriptor, weight: u32, always: bool) -> Descriptor {
    let weigh = |limit| DomainLimit {
        weight,
        always,
        ..limit
    };
    Descriptor {
        limit: descriptor.limit.map(weigh),
        ..descriptor
    }
}

/// `key=value,key`, in any order.
fn rule(text: &str, requests: u32, always: bool) -> SetRule {
    let entries = text.split(',').filter(|entry| !entry.is_empty());
    let mut entries: Vec<_> = entries
        .map(|entry| match entry.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (entry.to_owned(), None),
        })
        .collect();
    entries.sort_unstable();
    entries.dedup();
    SetRule {
        entries,
        limit: DomainLimit {
            always,
            ..limit(amount(requests, TimeUnit::Minute))
        },
    }
}

fn of(descriptors: Vec<Descriptor>, sets: Vec<SetRule>) -> Domain {
    let domain = plan::Domain {
        descriptors,
        sets: Some(sets),
        ..plan::Domain::new("d")
    };
    Domain::compile(&domain, &State::new(4096))
}

/// Asks about descriptors with one hit each; those that begin with `{` are sets. Whether the request
/// is over the limit, and the rules that its descriptors are told of.
fn ask(domain: &Domain, descriptors: &[&str]) -> (bool, Vec<Option<String>>) {
    let all: Vec<Vec<(&str, &str)>> = descriptors
        .iter()
        .map(|text| match text.strip_prefix('{') {
            Some(set) => [vec![SET_MARK], entries(set.trim_end_matches('}'))].concat(),
            None => entries(text),
        })
        .collect();
    let asked: Vec<Asked<'_>> = all
        .iter()
        .map(|entries| Asked {
            entries,
            limit: None,
            hits: Hits::Take(1),
        })
        .collect();
    let decision = ready(domain, &asked, 0);
    let told = decision.statuses.iter().map(|status| {
        let rule = status.limited.as_ref()?.rule();
        Some(rule.strip_prefix("d.").unwrap_or(rule).to_owned())
    });
    (decision.over_limit, told.collect())
}

/// How many such requests pass, one after the other.
fn pass(domain: &Domain, descriptors: &[&str]) -> usize {
    (0..1000)
        .take_while(|_| !ask(domain, descriptors).0)
        .count()
}

fn some(rule: &str) -> Option<String> {
    Some(rule.to_owned())
}

#[test]
fn only_the_heaviest_of_all_descriptors_count_and_deny() {
    let below = weighing(per_minute("number=411", 100), 1, false);
    let by_number = weighing(per_minute("number", 10), 1, false);
    let tree = || {
        vec![node(
            "type",
            Some(limit(amount(1, TimeUnit::Minute))),
            vec![below.clone(), by_number.clone()],
        )]
    };
    let domain = of(tree(), Vec::new());
    let both = ["type=a", "type=a,number=411"];
    assert_eq!(
        ask(&domain, &both).1,
        [None, some("type.number_411")],
        "the lighter one is not there"
    );
    assert_eq!(pass(&domain, &both), 99);
    assert_eq!(pass(&domain, &["type=a", "type=a,number=5"]), 10);
    // Those requests were not counted by the limit on types alone.
    assert_eq!(pass(&domain, &["type=a"]), 1);
    // What meets nothing weighs nothing.
    assert_eq!(pass(&domain, &["type=b", "other=1"]), 1);
}

#[test]
fn what_always_applies_does_so_whatever_it_weighs() {
    let tree = |always| {
        vec![
            weighing(per_minute("light", 2), 0, always),
            weighing(per_minute("middle", 5), 1, false),
            weighing(per_minute("heavy", 50), 2, true),
        ]
    };
    let all = ["light=x", "middle=x", "heavy=x"];
    let domain = of(tree(true), Vec::new());
    assert_eq!(
        ask(&domain, &all).1,
        [some("light"), None, some("heavy")],
        "the heaviest one is looked for among those that always apply, too"
    );
    assert_eq!(pass(&domain, &all), 1);
    assert_eq!(pass(&of(tree(false), Vec::new()), &all), 50);
    // Denied requests are counted nowhere.
    assert_eq!(pass(&domain, &["heavy=x"]), 48);
}

#[test]
fn the_first_rule_that_a_set_meets_applies_and_those_that_always_do() {
    let rules = |always| {
        vec![
            rule("type,number", 10, false),
            rule("type", 5, always),
            rule("", 7, false),
        ]
    };
    let domain = of(Vec::new(), rules(false));
    let both = ["{color=blue,number=1,type=a}"];
    assert_eq!(ask(&domain, &both).1, [some("{number,type}")]);
    assert_eq!(pass(&domain, &both), 9);
    assert_eq!(pass(&domain, &["{number=2,type=a}"]), 10, "another value");
    assert_eq!(pass(&domain, &["{type=a}"]), 5);
    assert_eq!(pass(&domain, &["{}"]), 7, "all meet a rule without entries");
    assert_eq!(pass(&domain, &["{color=red}"]), 0, "and share its count");

    let domain = of(Vec::new(), rules(true));
    assert_eq!(pass(&domain, &both), 5);
    assert!(ask(&domain, &both).0);
    // All together or none: the first rule was charged for five.
    assert_eq!(pass(&domain, &["{number=1,type=b}"]), 5);
    assert_eq!(ask(&domain, &["{type=a}"]).1, [some("{type}")]);
}

#[test]
fn sets_and_the_tree_apply_side_by_side() {
    let tree = vec![
        weighing(per_minute("generic_key=heavy", 3), 9, false),
        per_minute("generic_key", 100),
    ];
    let rules = vec![rule("generic_key=a,generic_key=b", 2, false)];
    let domain = of(tree.clone(), rules.clone());
    let set = "{generic_key=b,generic_key=c,generic_key=a}";
    assert_eq!(pass(&domain, &["generic_key=heavy", set]), 2);
    assert_eq!(pass(&domain, &["generic_key=heavy"]), 1);
    // Several sets that lead to one count are counted once.
    let domain = of(tree, rules);
    assert_eq!(pass(&domain, &[set, "{generic_key=a,generic_key=b}"]), 2);
    assert_eq!(pass(&domain, &["{generic_key=a}"]), 1000);
    // Where no file has sets, the mark is an entry like any other.
    let without = compile(vec![per_minute("generic_key", 4)]);
    let mark = format!("{}={}", SET_MARK.0, SET_MARK.1);
    assert_eq!(pass(&without, &[&mark]), 4);
}

#[test]
fn rules_with_the_same_entries_have_counts_of_their_own() {
    let rules = |first, second| vec![rule("user", first, false), rule("user", second, true)];
    let state = State::new(64);
    let domain = |sets| {
        let domain = plan::Domain {
            sets: Some(sets),
            ..plan::Domain::new("d")
        };
        Domain::compile(&domain, &state)
    };
    assert_eq!(pass(&domain(rules(5, 3)), &["{user=x}"]), 3);
    // Both were charged for three, and the counts outlive a change of places.
    let before = vec![rule("other", 1, false)];
    let changed = domain([before, rules(5, 9)].concat());
    assert_eq!(pass(&changed, &["{user=x}"]), 2);
    assert_eq!(ask(&changed, &["{user=x}"]).1, [some("{user}")]);
}

fn rules() -> impl Strategy<Value = Vec<SetRule>> {
    let entry = (select(&KEYS[..]), select(&VALUES[..]));
    let one = (vec(entry, 0..4), 1u32..5, any::<bool>());
    let one = one.prop_map(|(entries, requests, always)| {
        let text = entries.iter().map(|(key, value)| match *value {
            "" => (*key).to_owned(),
            value => format!("{key}={value}"),
        });
        rule(&text.collect::<Vec<_>>().join(","), requests, always)
    });
    vec(one, 0..7)
}

/// Gives the limits of a tree weights, in the order in which they stand.
fn weigh(
    tree: Vec<Descriptor>,
    weights: &mut impl Iterator<Item = (u32, bool)>,
) -> Vec<Descriptor> {
    let one = |descriptor: Descriptor| {
        let (weight, always) = weights.next().unwrap_or_default();
        let below = weigh(descriptor.descriptors.clone(), &mut *weights);
        Descriptor {
            descriptors: below,
            ..weighing(descriptor, weight, always)
        }
    };
    tree.into_iter().map(one).collect()
}

/// A count: what it is of, and the values that it is apart by.
type Count<'a> = (String, Vec<(&'a str, &'a str)>);

/// A descriptor: whether it is a set, its entries, its hits.
type Sent<'a> = (bool, Vec<(&'a str, &'a str)>, u64);

/// What a descriptor takes part in: index, count, capacity, hits.
type Part<'a> = (usize, Count<'a>, u64, u64);

fn capacity(limit: &DomainLimit) -> u64 {
    match limit.amount {
        Amount::PerUnit { requests, .. } => u64::from(requests),
        _ => 0,
    }
}

/// What applies to the descriptors of a request, each of which is a set or not.
fn applies<'a>(
    (tree, rules): (&[Descriptor], &[SetRule]),
    request: &'a [Sent<'a>],
) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    let found = request
        .iter()
        .enumerate()
        .filter_map(|(index, (set, entries, hits))| {
            let (path, limit) = model(tree, entries).filter(|_| !set)?;
            Some((index, path, limit, entries, *hits))
        });
    let found: Vec<_> = found.collect();
    let most = found.iter().map(|(_, _, limit, ..)| limit.weight).max();
    for (index, path, limit, entries, hits) in found {
        if limit.always || Some(limit.weight) == most {
            parts.push((index, (path, entries.clone()), capacity(&limit), hits));
        }
    }
    let mut of_sets: Vec<Part<'a>> = Vec::new();
    for (index, (set, entries, hits)) in request.iter().enumerate() {
        if !set {
            continue;
        }
        let mut first = true;
        for (place, rule) in rules.iter().enumerate() {
            let values: Option<Vec<(&str, &str)>> = rule
                .entries
                .iter()
                .map(|(key, value)| {
                    let mut of_key = entries.iter().filter(|(own, _)| own == key);
                    let found = match value {
                        Some(value) => of_key.find(|(_, own)| own == value),
                        None => of_key.next(),
                    };
                    found.copied()
                })
                .collect();
            let Some(values) = values else { continue };
            if first || rule.limit.always {
                let count = (format!("rule {place}"), values);
                let known = |(_, other, _, taken): &Part<'_>| *other == count && taken == hits;
                if !of_sets.iter().any(known) {
                    of_sets.push((index, count, capacity(&rule.limit), *hits));
                }
            }
            first = false;
        }
    }
    // Who only asks is answered in this order: the first of each descriptor, then the others.
    let mut others = Vec::new();
    for part in of_sets {
        if parts.iter().any(|(of, ..)| *of == part.0) {
            others.push(part);
        } else {
            parts.push(part);
        }
    }
    parts.sort_by_key(|(of, ..)| *of);
    parts.extend(others);
    parts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_applies_is_what_the_model_says_and_is_counted_all_or_none(
        tree in trees(3),
        weights in vec((0u32..3, any::<bool>()), 0..24),
        rules in rules(),
        requests in vec(
            vec((any::<bool>(), vec((select(&KEYS[..]), select(&VALUES[..])), 0..5), 0u64..3), 1..5),
            1..40,
        ),
    ) {
        let tree = weigh(tree, &mut weights.into_iter());
        let domain = of(tree.clone(), rules.clone());
        let mut counts: HashMap<Count<'_>, u64> = HashMap::new();
        for request in &requests {
            let sent: Vec<Vec<(&str, &str)>> = request
                .iter()
                .map(|(set, entries, _)| {
                    let mark = set.then_some(SET_MARK);
                    mark.into_iter().chain(entries.iter().copied()).collect()
                })
                .collect();
            let asked: Vec<Asked<'_>> = sent
                .iter()
                .zip(request)
                .map(|(entries, (_, _, hits))| Asked { entries, limit: None, hits: Hits::Take(*hits) })
                .collect();
            let decision = ready(&domain, &asked, MINUTE);
            let parts = applies((&tree, &rules), request);
            prop_assert_eq!(decision.statuses.len(), request.len());
            let mut after = counts.clone();
            let mut together = true;
            for (index, count, capacity, hits) in &parts {
                let before = counts.get(count).copied().unwrap_or_default();
                if before + (*hits).max(1) > *capacity {
                    prop_assert!(decision.statuses[*index].over_limit);
                }
                let taken = after.entry(count.clone()).or_default();
                together &= *taken + (*hits).max(1) <= *capacity;
                *taken += hits;
            }
            for (index, status) in decision.statuses.iter().enumerate() {
                let limited = parts.iter().any(|(of, ..)| *of == index);
                prop_assert_eq!(status.limited.is_some(), limited);
            }
            prop_assert_eq!(decision.over_limit, !together);
            if together {
                counts = after;
            }
        }
    }
}
