//! Which limits descriptors meet, and what they charge: the outcomes that the reference service's
//! documents give for their examples, and where limiterd decides otherwise on purpose.

use limiter_common as common;

use super::*;
use crate::engine::time::Now;
use crate::policy::plan::{Algorithm, Amount, Descriptor, DomainLimit, EntryValue};

mod counting;
mod deciding;
mod model;
mod precedence;

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;

fn amount(requests: u32, unit: TimeUnit) -> Amount {
    if requests == 0 {
        return Amount::Nothing(unit);
    }
    let tokens = u64::from(requests);
    Amount::PerUnit {
        requests,
        unit,
        limit: common::Limit::new(tokens, tokens, unit.seconds() * SECOND).unwrap(),
    }
}

fn limit(amount: Amount) -> DomainLimit {
    DomainLimit {
        amount,
        name: None,
        replaces: Vec::new(),
        shadow: false,
        quota: false,
        detailed: false,
        metadata: None,
        weight: 0,
        always: false,
        written: None,
    }
}

/// `key`, `key=value` or `key=pat*ern`.
fn node(entry: &str, limit: Option<DomainLimit>, descriptors: Vec<Descriptor>) -> Descriptor {
    let (key, value) = match entry.split_once('=') {
        None => (entry, EntryValue::Any),
        Some((key, value)) if value.contains('*') => (key, EntryValue::Like(value.to_owned())),
        Some((key, value)) => (key, EntryValue::Is(value.to_owned())),
    };
    Descriptor {
        key: key.to_owned(),
        value,
        share_threshold: false,
        value_to_metric: false,
        limit,
        descriptors,
    }
}

fn per_minute(entry: &str, requests: u32) -> Descriptor {
    node(
        entry,
        Some(limit(amount(requests, TimeUnit::Minute))),
        Vec::new(),
    )
}

fn compile_in(state: &State, algorithm: Algorithm, descriptors: Vec<Descriptor>) -> Domain {
    let domain = plan::Domain {
        algorithm,
        descriptors,
        ..plan::Domain::new("d")
    };
    Domain::compile(&domain, state)
}

fn compile(descriptors: Vec<Descriptor>) -> Domain {
    compile_in(&State::new(1024), Algorithm::FixedWindow, descriptors)
}

const fn at(now: u64) -> Now {
    Now {
        mono: now,
        unix: now,
    }
}

/// `key=value,key=value`.
fn entries(text: &str) -> Vec<(&str, &str)> {
    let entries = text.split(',').filter(|entry| !entry.is_empty());
    entries
        .map(|entry| entry.split_once('=').unwrap_or((entry, "")))
        .collect()
}

/// What is decided in memory.
fn ready(domain: &Domain, asked: &[Asked<'_>], now: u64) -> Outcome {
    match domain.decide(asked, at(now)) {
        Decision::Ready(decided) => decided.unwrap(),
        Decision::Pending(_) => panic!("memory makes nobody wait"),
    }
}

/// The rule that a descriptor meets, without its domain.
fn met(domain: &Domain, descriptor: &str) -> Option<String> {
    let asked = Asked {
        entries: &entries(descriptor),
        limit: None,
        hits: Hits::Take(1),
    };
    let rule = domain.limit(&asked)?.rule().to_owned();
    Some(rule.strip_prefix("d.").unwrap_or(&rule).to_owned())
}

/// A tree, and the rules that descriptors meet in it.
type Example = (
    fn() -> Vec<Descriptor>,
    &'static [(&'static str, Option<&'static str>)],
);

#[test]
fn the_references_examples_meet_the_limits_that_its_documents_say() {
    let messaging = || {
        vec![
            per_minute("message_type=marketing", 5),
            node("to_number", Some(limit(amount(100, TimeUnit::Day))), vec![]),
            node(
                "message_type",
                None,
                vec![per_minute("to_number", 100), per_minute("to_number=911", 0)],
            ),
        ]
    };
    let hosts = || {
        vec![
            per_minute("remote_address", 10),
            per_minute("remote_address=50.0.0.5", 0),
            // An exception: no limit at all.
            node("remote_address=50.0.0.1", None, vec![]),
            node(
                "generic_key=abuse",
                None,
                vec![
                    per_minute("remote_address=10.*", 7),
                    per_minute("remote_address", 3),
                ],
            ),
        ]
    };
    let files = || {
        vec![
            per_minute("file=img/*", 1),
            per_minute("file=*.png", 2),
            per_minute("file=img/logo.png", 3),
            per_minute("file", 4),
            node("team=a*", None, vec![per_minute("user", 1)]),
            node("team", None, vec![per_minute("role", 1)]),
        ]
    };
    let table: [Example; 3] = [
        (
            messaging,
            &[
                ("message_type=marketing", Some("message_type_marketing")),
                ("to_number=1", Some("to_number")),
                // The first node has nothing below it, and there is no way back to the second.
                ("message_type=marketing,to_number=1", None),
                (
                    "message_type=other,to_number=1",
                    Some("message_type.to_number"),
                ),
                (
                    "message_type=other,to_number=911",
                    Some("message_type.to_number_911"),
                ),
                // A limit holds at its depth.
                ("message_type=other", None),
                ("to_number=1,message_type=marketing", None),
                ("sender=1", None),
                ("", None),
            ],
        ),
        (
            hosts,
            &[
                ("remote_address=50.0.0.9", Some("remote_address")),
                ("remote_address=50.0.0.5", Some("remote_address_50.0.0.5")),
                ("remote_address=50.0.0.1", None),
                ("remote_address", Some("remote_address")),
                (
                    "generic_key=abuse,remote_address=10.1",
                    Some("generic_key_abuse.remote_address_10.*"),
                ),
                (
                    "generic_key=abuse,remote_address=11.1",
                    Some("generic_key_abuse.remote_address"),
                ),
                ("generic_key=abuse", None),
                ("generic_key=other,remote_address=10.1", None),
            ],
        ),
        (
            files,
            &[
                ("file=img/logo.png", Some("file_img/logo.png")),
                ("file=img/x.png", Some("file_img/*")),
                ("file=doc/x.png", Some("file_*.png")),
                ("file=doc/x.txt", Some("file")),
                ("team=ab,user=1", Some("team_a*.user")),
                ("team=ab,role=1", None),
                ("team=b,role=1", Some("team.role")),
            ],
        ),
    ];
    for (tree, cases) in table {
        let domain = compile(tree());
        for (descriptor, rule) in cases {
            assert_eq!(met(&domain, descriptor).as_deref(), *rule, "{descriptor}");
        }
    }
}

#[test]
fn domains_are_found_broken_or_unknown() {
    let state = State::new(64);
    let domain = |name: &str, broken: Option<&str>| plan::Domain {
        broken: broken.map(str::to_owned),
        ..plan::Domain::new(name)
    };
    let domains = Domains::compile(&[domain("a", None), domain("b", Some("why"))], &state);
    assert_eq!(domains.get("a").unwrap().name, "a");
    assert_eq!(
        domains.get("b").unwrap_err(),
        NoDomain::Broken("why".into())
    );
    assert_eq!(domains.get("c").unwrap_err(), NoDomain::Unknown);
}
