//! Keys and counts of the reference service: both may count in one Redis.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use limiter_common::Limit;
use limiter_daemon::engine::domain::{Asked, DomainStore, Domains, Hits};
use limiter_daemon::engine::state::State;
use limiter_daemon::engine::time::Now;
use limiter_daemon::global::{RedisLedger, Windows};
use limiter_daemon::policy::plan::{
    self, Amount, Descriptor, DomainKeys, DomainLimit, EntryValue, OnStoreFailure, StoreAddress,
    StoreConfig, TimeUnit,
};
use limiter_daemon::rls::proto::{RateLimitOverride, Unit};
use tests::netns::Netns;
use tests::redis::Redis;
use tests::rls::question;

use crate::support::{Server, told};

/// Years, so that no window ends while a test runs.
const LIMITS: &str = "
domain: shop
descriptors:
  - { key: user, rate_limit: { unit: year, requests_per_unit: 5 } }
  - { key: plan, value: gold, rate_limit: { unit: year, requests_per_unit: 5 } }
  - { key: tier, value: 'x*', rate_limit: { unit: year, requests_per_unit: 5 } }
  - { key: file, value: 'img/*', share_threshold: true, rate_limit: { unit: year, requests_per_unit: 5 } }
  - key: route
    descriptors:
      - { key: user, rate_limit: { unit: year, requests_per_unit: 5 } }
";

const YEAR: u64 = 365 * 86_400;

/// The server's clock, in seconds.
fn clock(redis: &Redis) -> Result<u64> {
    let answer = redis.ask(&["TIME"])?;
    Ok(answer.lines().next().context("no time")?.parse()?)
}

/// The second at which the year's window began.
fn begun(redis: &Redis) -> Result<u64> {
    Ok(clock(redis)? / YEAR * YEAR)
}

#[test]
fn both_count_on_where_the_other_was() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let node = Server::start("keys: Reference", Some(&redis), LIMITS)?;
    let begun = begun(&redis)?;
    // Each descriptor, and what the reference service calls its count.
    for (descriptor, key) in [
        ("user=ann", "shop_user_ann_"),
        ("user", "shop_user__"),
        ("plan=gold", "shop_plan_gold_"),
        ("tier=x1", "shop_tier_x1_"),
        ("file=img/a.png", "shop_file_img/*_"),
        ("route=/a,user=ann", "shop_route_/a_user_ann_"),
    ] {
        let key = format!("{key}{begun}");
        let ask = || -> Result<_> {
            let found = node.answers(vec![question("shop", &[descriptor])])?;
            Ok(told(found.first().context("no answer")?).1[0])
        };
        // As the reference service counts: first it, then limiterd.
        redis.ask(&["INCRBY", &key, "2"])?;
        redis.ask(&["EXPIRE", &key, "31536100"])?;
        assert_eq!(ask()?, (false, 2), "{descriptor}");
        assert_eq!(redis.ask(&["GET", &key])?, "3", "{descriptor}");
        // And the other way round.
        assert_eq!(redis.ask(&["INCRBY", &key, "1"])?, "4", "{descriptor}");
        assert_eq!(ask()?, (false, 0), "{descriptor}");
        assert_eq!(ask()?, (true, 0), "{descriptor}");
        assert_eq!(redis.ask(&["GET", &key])?, "5", "{descriptor}");
        // The reference counts on when a limit is over; that is not to be undone.
        redis.ask(&["INCRBY", &key, "10"])?;
        assert_eq!(ask()?, (true, 0), "{descriptor}");
        assert_eq!(redis.ask(&["GET", &key])?, "15", "{descriptor}");
        let left: u64 = redis.ask(&["TTL", &key])?.parse()?;
        assert!((YEAR - 60..=YEAR + 300).contains(&left), "{key}: {left}");
    }
    assert_eq!(redis.keys()?.len(), 6);
    Ok(())
}

#[test]
fn refunds_limits_of_requests_and_a_prefix() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let rls = "keys: Reference, keyPrefix: 'rl:'";
    let node = Server::start(rls, Some(&redis), LIMITS)?;
    let key = format!("rl:shop_user_ann_{}", begun(&redis)?);
    let with = |hits: u64, negative: bool| {
        let mut one = question("shop", &["user=ann"]);
        one.descriptors[0].hits_addend = Some(hits);
        one.descriptors[0].is_negative_hits = negative;
        one
    };
    // As there, a limit that a request brings along has the count of the file's.
    let mut brought = question("shop", &["user=ann"]);
    brought.descriptors[0].limit = Some(RateLimitOverride {
        requests_per_unit: 10,
        unit: Unit::Year.into(),
    });
    let found = node.answers(vec![
        with(4, false),
        with(2, false),
        with(3, true),
        with(0, false),
        brought,
        with(100, true),
        with(5, false),
    ])?;
    let found: Vec<_> = found.iter().map(|answer| told(answer).1[0]).collect();
    assert_eq!(
        found,
        [
            (false, 1),
            (true, 1),
            (false, 4),
            (false, 4),
            (false, 8),
            (false, 5),
            (false, 0)
        ]
    );
    assert_eq!(redis.ask(&["GET", &key])?, "5");
    // What is no number is nobody's count: an error, and not a new limit.
    redis.ask(&["SET", &key, "many"])?;
    let refused = node.ask(vec![with(1, false)])?;
    let refused = refused.into_iter().next().context("no answer")?;
    assert_eq!(refused.unwrap_err().code(), tonic::Code::Unavailable);
    Ok(())
}

/// A node that counts in `redis` by its server's clock, 100,000 a minute.
fn node(redis: &Redis) -> Result<Domains> {
    let config = StoreConfig {
        address: StoreAddress::Unix(redis.socket()),
        user: None,
        password: None,
        database: 0,
        tls: None,
        budget: Duration::from_secs(20),
        prefix: String::new(),
        on_failure: OnStoreFailure::Deny,
        over_limit_memory: 0,
    };
    let windows = Windows::new(Arc::new(RedisLedger::new(&config)?), config.budget);
    let store = DomainStore::new(Arc::new(windows), &config.prefix);
    let state = State::new(64).with_domain_store(Arc::new(store));
    let (requests, unit) = (100_000, TimeUnit::Minute);
    let tokens = u64::from(requests);
    let limit = Limit::new(tokens, tokens, unit.seconds() * 1_000_000_000).expect("a limit");
    let descriptor = Descriptor {
        key: "user".to_owned(),
        value: EntryValue::Any,
        share_threshold: false,
        value_to_metric: false,
        limit: Some(DomainLimit {
            amount: Amount::PerUnit {
                requests,
                unit,
                limit,
            },
            name: None,
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
    };
    let domain = plan::Domain {
        keys: DomainKeys::Reference {
            prefix: String::new(),
        },
        descriptors: vec![descriptor],
        ..plan::Domain::new("d")
    };
    Ok(Domains::compile(&[domain], &state))
}

#[test]
fn nodes_whose_clocks_disagree_count_in_the_same_windows() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let before = clock(&redis)?;
    // Ten minutes behind, and an hour ahead.
    for unix in [before - 600, before + 3_600] {
        let node = node(&redis)?;
        let now = Now {
            mono: 0,
            unix: unix * 1_000_000_000,
        };
        let domain = node.get("d").expect("it is there");
        for _ in 0..5 {
            let asked = Asked {
                entries: &[("user", "ann")],
                limit: None,
                hits: Hits::Take(1),
            };
            let decided = async { domain.decide(&[asked], now).outcome().await };
            let outcome = runtime.block_on(decided)?;
            assert!(!outcome.over_limit);
            // It is told how long the server's minute still is.
            let reset = outcome.statuses[0].reset;
            assert!((1..=60_000_000_000).contains(&reset), "{reset}");
        }
    }
    let windows = before / 60..=clock(&redis)? / 60;
    let mut hits = 0;
    for key in redis.keys()? {
        let begins: u64 = key.trim_start_matches("d_user_ann_").parse()?;
        assert!(windows.contains(&(begins / 60)), "{key}: {windows:?}");
        hits += redis.ask(&["GET", &key])?.parse::<u64>()?;
    }
    assert_eq!(hits, 10);
    Ok(())
}
