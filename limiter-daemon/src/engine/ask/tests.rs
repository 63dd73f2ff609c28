//! Which questions are asked, and what limiterd answers itself.

use std::collections::BTreeMap;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderMap, Method, StatusCode};
use limiter_common::Limit;

use super::*;
use crate::engine::domain::Domains;
use crate::engine::request::RequestView;
use crate::engine::state::State;
use crate::policy::plan::{
    Action, Algorithm, Amount, Descriptor as Node, Domain, DomainLimit, EntryValue, HitsAddend,
};

fn filter(stage: u8, requests: RequestType) -> Arc<AskFilter> {
    Arc::new(AskFilter {
        name: "d/p/filter/0".into(),
        stage,
        requests,
        service: AskedService::Own,
        timeout: Duration::from_millis(20),
        error_status: None,
        limited_status: StatusCode::TOO_MANY_REQUESTS,
        resource_exhausted: false,
        headers: false,
        envoy_header: true,
        retry_after: false,
        response_headers: Vec::new(),
        stat_prefix: String::new(),
    })
}

fn rule(value: &str, disable_key: &str, at_the_end: bool) -> Arc<DescriptorRule> {
    Arc::new(DescriptorRule {
        stage: 0,
        disable_key: disable_key.into(),
        actions: vec![Action::GenericKey {
            key: "generic_key".into(),
            value: value.into(),
        }],
        limit: None,
        hits: None,
        at_the_end,
        headers: None,
    })
}

fn asking(requests: RequestType, rules: Vec<Arc<DescriptorRule>>, runtime: &Runtime) -> Asking {
    let plan = plan::Asking {
        filter: filter(0, requests),
        domain: "shop".into(),
        source: "d/gw".into(),
        descriptors: rules,
    };
    Asking::compile(&plan, &Nobody, runtime)
}

fn with_seen<R>(then: impl FnOnce(&Seen<'_>) -> R) -> R {
    let headers = HeaderMap::new();
    then(&Seen {
        request: RequestView {
            connection: None,
            method: &Method::GET,
            path: "/",
            query: None,
            headers: &headers,
            client: [192, 0, 2, 1].into(),
        },
        tls: false,
        source: "",
        destination: "d/backend",
    })
}

/// Values of the descriptors asked first and last, by numbers drawn in this order.
fn asked(asking: &Asking, internal: bool, drawn: &[u64]) -> (Vec<String>, Vec<String>) {
    let mut drawn = drawn.iter().copied();
    let mut random = || drawn.next().expect("so many numbers are drawn");
    with_seen(|seen| {
        let questions = asking.questions(seen, internal, &mut random);
        let values = |question: Option<Question<'_>>| -> Vec<String> {
            let descriptors = question.into_iter().flat_map(|question| {
                assert_eq!(question.domain, "shop");
                question.descriptors
            });
            descriptors
                .map(|one| one.entries[0].1.to_string())
                .collect()
        };
        (values(questions.first), values(questions.last))
    })
}

#[test]
fn every_configuration_is_a_descriptor() {
    let runtime = Runtime::default();
    let rules = vec![
        rule("a", "", false),
        rule("b", "", true),
        rule("c", "", false),
    ];
    let asking = asking(RequestType::Both, rules, &runtime);
    let (first, last) = asked(&asking, false, &[0]);
    assert_eq!(
        (first, last),
        (vec!["a".into(), "c".into()], vec!["b".into()])
    );
}

#[test]
fn requests_of_the_other_type_are_not_asked_about() {
    let runtime = Runtime::default();
    for (requests, internal, wanted) in [
        (RequestType::Both, false, 1),
        (RequestType::Both, true, 1),
        (RequestType::Internal, false, 0),
        (RequestType::Internal, true, 1),
        (RequestType::External, false, 1),
        (RequestType::External, true, 0),
    ] {
        let asking = asking(requests, vec![rule("a", "", false)], &runtime);
        let (first, _) = asked(&asking, internal, &[0]);
        assert_eq!(first.len(), wanted, "{requests:?} {internal}");
    }
}

#[test]
fn settings_say_for_which_part_of_the_requests() {
    let runtime = Runtime::default();
    let set = |name: &str, percent: &str| {
        runtime
            .change(&[(name.to_owned(), percent.to_owned())])
            .unwrap();
    };
    let rules = vec![rule("a", "login", false), rule("b", "", false)];
    let asking = asking(RequestType::Both, rules, &runtime);
    set(ENABLED, "30");
    set(&of_key("login"), "50");
    assert_eq!(asked(&asking, false, &[29, 49]).0, ["a", "b"]);
    assert_eq!(asked(&asking, false, &[129, 50]).0, ["b"]);
    assert_eq!(asked(&asking, false, &[30]).0, [""; 0]);
    set(ENFORCING, "10");
    assert!(asking.enforces(9) && asking.enforces(209) && !asking.enforces(10));
}

fn own(requests: u32) -> OwnService {
    let second = 1_000_000_000;
    let domain = Domain {
        algorithm: Algorithm::TokenBucket,
        descriptors: vec![Node {
            key: "generic_key".into(),
            value: EntryValue::Is("a".into()),
            share_threshold: false,
            value_to_metric: false,
            limit: Some(DomainLimit {
                amount: Amount::PerUnit {
                    requests,
                    unit: TimeUnit::Second,
                    limit: Limit::new(requests.into(), requests.into(), second).unwrap(),
                },
                name: Some("per-shop".into()),
                replaces: Vec::new(),
                shadow: false,
                quota: false,
                detailed: false,
                metadata: None,
                weight: 0,
                always: false,
                written: None,
            }),
            descriptors: Vec::new(),
        }],
        ..Domain::new("shop")
    };
    let broken = Domain {
        broken: Some("it is".into()),
        ..Domain::new("broken")
    };
    let domains = Domains::compile(&[domain, broken], &State::new(64));
    OwnService {
        domains: Arc::new(ArcSwap::from_pointee(domains)),
    }
}

fn question(domain: &'static str, values: &[&str], hits: Option<HitsAddend>) -> Question<'static> {
    let descriptors = values.iter().map(|value| Descriptor {
        entries: [(
            Cow::Borrowed("generic_key"),
            Cow::Owned((*value).to_owned()),
        )]
        .into_iter()
        .collect(),
        limit: None,
        hits,
        headers: None,
    });
    Question {
        domain: Cow::Borrowed(domain),
        descriptors: descriptors.collect(),
    }
}

fn now(service: &OwnService, question: &Question<'_>) -> Result<Reply, Failure> {
    match service.ask(question, Now::default()) {
        Answer::Ready(reply) => reply,
        Answer::Pending(_) => panic!("it counts here"),
    }
}

#[test]
fn its_own_domains_answer_at_once_and_in_order() {
    let service = own(2);
    let both = question("shop", &["b", "a"], None);
    let reply = now(&service, &both).unwrap();
    assert!(!reply.over_limit);
    assert_eq!(
        reply.statuses[0],
        ReplyStatus {
            remaining: reply.statuses[0].remaining,
            ..ReplyStatus::default()
        }
    );
    let limit = ReplyLimit {
        requests: 2,
        unit: Some(TimeUnit::Second),
        name: "per-shop".into(),
    };
    let status = ReplyStatus {
        over_limit: false,
        limit: Some(limit),
        remaining: 1,
        reset: 1,
    };
    assert_eq!(reply.statuses[1], status);
    now(&service, &both).unwrap();
    let reply = now(&service, &both).unwrap();
    let over: Vec<_> = reply.statuses.iter().map(|one| one.over_limit).collect();
    assert_eq!((reply.over_limit, over), (true, vec![false, true]));
}

#[test]
fn hits_count_and_come_back() {
    let service = own(10);
    let hits = |number, negative| Some(HitsAddend { number, negative });
    let left = |hits| {
        let reply = now(&service, &question("shop", &["a"], hits)).unwrap();
        (reply.over_limit, reply.statuses[0].remaining)
    };
    assert_eq!(left(hits(4, false)), (false, 6));
    assert_eq!(left(hits(0, false)), (false, 6));
    assert_eq!(left(hits(7, false)), (true, 6));
    assert_eq!(left(hits(3, true)), (false, 9));
    assert_eq!(left(None), (false, 8));
}

#[test]
fn domains_that_are_not_there_limit_nothing_and_broken_ones_say_nothing() {
    let service = own(1);
    let reply = now(&service, &question("other", &["a", "b"], None)).unwrap();
    assert_eq!((reply.over_limit, reply.statuses.len()), (false, 2));
    let reply = now(&service, &question("broken", &["a"], None));
    assert_eq!(reply, Err(Failure::Refused("it is".into())));
}

#[test]
fn compiled_askings_go_by_the_files_settings() {
    let runtime = Runtime::default();
    runtime.follow(&BTreeMap::from([(ENABLED.to_owned(), 0)]));
    let asking = asking(RequestType::Both, vec![rule("a", "", false)], &runtime);
    assert_eq!(asked(&asking, false, &[0]).0, [""; 0]);
}
