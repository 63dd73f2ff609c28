//! One limit for three nodes, and what they answer without the store.

use std::thread;

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use limiter_daemon::rls::proto::Code;
use tests::daemon::eventually;
use tests::http_client::{Speak, many};
use tests::netns::Netns;
use tests::redis::Redis;
use tests::rls::question;

use crate::support::{ADDRESS, Server, told};

const MEMORY: &str = "limiterd_store_over_limit_memory_total";

/// A year, so that no window ends while a test runs.
const LIMITS: &str = "
domain: shop
descriptors:
  - { key: all, rate_limit: { unit: year, requests_per_unit: 100 } }
  - { key: user, rate_limit: { unit: year, requests_per_unit: 3 } }
  - { key: open, rate_limit: { unlimited: true } }
";

#[test]
fn a_hundred_are_a_hundred_over_three_nodes() -> Result<()> {
    for rls in [
        "",
        "keys: Reference",
        "algorithm: TokenBucket",
        "algorithm: SlidingWindow",
    ] {
        let netns = Netns::new("redis")?;
        let redis = Redis::start(&netns)?;
        let nodes = (0..3)
            .map(|_| Server::start(rls, Some(&redis), LIMITS))
            .collect::<Result<Vec<_>>>()?;
        // 150 questions from thirty connections at once, over three nodes.
        let passed = thread::scope(|scope| {
            let asking: Vec<_> = (0..30)
                .map(|n| {
                    let node = &nodes[n % 3];
                    let questions = vec![question("shop", &["all=one"]); 5];
                    scope.spawn(move || node.answers(questions))
                })
                .collect();
            let answers = asking
                .into_iter()
                .map(|asking| asking.join().map_err(|_panic| anyhow!("a node failed"))?);
            answers.collect::<Result<Vec<_>>>()
        })?;
        let passed = passed.iter().flatten();
        let passed = passed.filter(|answer| answer.overall_code() == Code::Ok);
        assert_eq!(passed.count(), 100, "{rls}");
        // One round trip a question, or two where the window was not known yet.
        for node in &nodes {
            let page = node.daemon.metrics(&node.netns)?;
            let asked = page.sum("limiterd_store_requests_total", &[("result", "ok")]);
            let remembered = page.sum(MEMORY, &[("result", "answered")]);
            assert_eq!(asked + remembered, 50.0, "{rls}");
        }
        for key in redis.keys()? {
            let left: i64 = redis.ask(&["PTTL", &key])?.parse()?;
            assert!(left > 0, "{key}: {left}");
        }
    }
    Ok(())
}

#[test]
fn what_is_known_to_be_over_is_not_asked_again() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    for rls in ["", "keys: Reference"] {
        let node = Server::start(rls, Some(&redis), LIMITS)?;
        let answers = node.answers(vec![question("shop", &["user=eve"]); 40])?;
        let told: Vec<_> = answers.iter().map(told).collect();
        let left = |left: u32| (false, vec![(false, left)]);
        assert_eq!(told[..3], [left(2), left(1), left(0)], "{rls}");
        assert_eq!(told[3..], vec![(true, vec![(true, 0)]); 37], "{rls}");
        // Another limit beside it is told of, so it is asked about.
        let both = node.answers(vec![question("shop", &["user=eve", "all=eve"])])?;
        assert_eq!(
            (both[0].overall_code(), both[0].statuses.len()),
            (Code::OverLimit, 2)
        );
        assert_eq!(both[0].statuses[1].limit_remaining, 100, "{rls}");
        let page = node.daemon.metrics(&node.netns)?;
        let count = |name: &str| {
            let name = format!("ratelimit_service_rate_limit_{name}");
            page.sum(&name, &[("key1", "user")])
        };
        assert_eq!([count("total_hits"), count("over_limit")], [41.0, 38.0]);
        let remembered = page.sum(MEMORY, &[("result", "answered")]);
        assert!(remembered > 0.0);
        assert_eq!(count("over_limit_with_local_cache"), remembered, "{rls}");
        let asked = page.sum("limiterd_store_requests_total", &[("result", "ok")]);
        assert_eq!(asked + remembered, 41.0, "{rls}");
    }
    Ok(())
}

#[test]
fn keys_have_no_values_of_requests_and_one_hash_tag() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let node = Server::start("", Some(&redis), LIMITS)?;
    node.answers(vec![question("shop", &["user=ann", "all=bob"])])?;
    let keys = redis.keys()?;
    assert_eq!(keys.len(), 2, "{keys:?}");
    for key in keys {
        assert!(key.starts_with("limiterd:{shop}"), "{key}");
        assert!(!key.contains("ann") && !key.contains("bob"), "{key}");
    }
    Ok(())
}

fn json(node: &Server) -> Result<u16> {
    let body = r#"{"domain":"shop","descriptors":[{"entries":[{"key":"user","value":"j"}]}]}"#;
    let request =
        Request::post(format!("http://{ADDRESS}/json")).body(Full::new(Bytes::from(body)))?;
    let answers = node.netns.enter(|| many(Speak::Http1, vec![request]))?;
    let answer = answers.first().context("no answer")?;
    Ok(answer.status.as_u16())
}

#[test]
fn without_the_store_each_domain_is_as_it_says() -> Result<()> {
    let netns = Netns::new("redis")?;
    let mut redis = Redis::start(&netns)?;
    let limits = ["shop", "local", "open", "shut"].map(|name| LIMITS.replace("shop", name));
    let rls = "domains: [{ name: local, onStoreFailure: Local }, \
               { name: open, onStoreFailure: Allow }, { name: shut, onStoreFailure: Deny }]";
    let node = Server::start(rls, Some(&redis), &limits.join("---"))?;
    let ask = |domain: &str| -> Result<_> {
        let mut found = node.ask(vec![question(domain, &["user=a", "open=1"])])?;
        found.pop().context("no answer")
    };
    for domain in ["shop", "local", "open", "shut"] {
        assert_eq!(
            told(&ask(domain)??),
            (false, vec![(false, 2), (false, u32::MAX)])
        );
    }
    redis.kill()?;
    let refused = ask("shop")?.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    assert!(refused.message().contains("`shop`"), "{refused}");
    assert_eq!(json(&node)?, 500);
    // This node's memory knows nothing of what the store counted.
    let unlimited = (false, u32::MAX);
    assert_eq!(told(&ask("local")??), (false, vec![(false, 2), unlimited]));
    assert_eq!(told(&ask("open")??), (false, vec![(false, 0), unlimited]));
    assert_eq!(told(&ask("shut")??), (true, vec![(true, 0), unlimited]));
    // What needs no store is answered.
    let free = node.answers(vec![question("shop", &["open=1", "none=1"])])?;
    assert_eq!(told(&free[0]), (false, vec![unlimited, (false, 0)]));
    let page = node.daemon.metrics(&node.netns)?;
    for mode in ["local", "allow", "deny"] {
        let name = "limiterd_rls_store_failure_decisions_total";
        assert_eq!(page.sum(name, &[("mode", mode)]), 1.0, "{mode}");
    }
    let errors = page.sum(
        "ratelimit_service_should_rate_limit_error",
        &[("err_type", "redis_error")],
    );
    assert_eq!(errors, 2.0);
    // It comes back empty, and counts.
    redis.begin(&netns)?;
    let answer = eventually("the store to be asked again", || Ok(ask("shop")?.ok()))?;
    assert_eq!(told(&answer).1[0], (false, 2));
    assert!(node.daemon.stop()?.success());
    Ok(())
}
