//! What the reference service answers to the kinds of configuration that its documents explain,
//! request by request, and where limiterd answers otherwise on purpose. In memory, in Redis, and in
//! Redis with the reference's keys.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use limiter_daemon::rls::proto::{
    Code, RateLimitOverride, RateLimitRequest, RateLimitResponse, Unit,
};
use tests::netns::Netns;
use tests::redis::Redis;
use tests::redis_cluster::RedisCluster;
use tests::rls::{descriptor, question};

use crate::support::{Server, config};

/// A question and its answer.
struct Step {
    /// Descriptors, divided by `;`. Each may be followed by `x3` (hits; `x0` only asks), `-3` (hits
    /// given back) and `5/year` (a limit of its own).
    asked: &'static str,
    /// Overall, and of each descriptor its code and what is left; `-`: no limit, `free`: unlimited.
    here: &'static str,
    /// What the reference service answers; empty: the same.
    there: &'static str,
}

const fn step(asked: &'static str, here: &'static str) -> Step {
    Step {
        asked,
        here,
        there: "",
    }
}

const fn differs(asked: &'static str, here: &'static str, there: &'static str) -> Step {
    Step { asked, here, there }
}

/// A domain's descriptors, and what is asked of it one after the other. Units are long, so that no
/// window ends while a test runs.
struct Example {
    domain: &'static str,
    descriptors: &'static str,
    steps: &'static [Step],
}

const EXAMPLES: &[Example] = &[
    Example {
        domain: "levels",
        descriptors: "
  - key: kind
    value: offer
    descriptors:
      - { key: phone, rate_limit: { unit: year, requests_per_unit: 2 } }
      - { key: phone, value: '112', rate_limit: { unit: year, requests_per_unit: 0 } }
  - { key: phone, rate_limit: { unit: year, requests_per_unit: 3 } }
  - { key: kind, rate_limit: { unit: year, requests_per_unit: 1 } }
",
        steps: &[
            step("kind=offer,phone=1", "ok | ok 1"),
            step("kind=offer,phone=2", "ok | ok 1"),
            step("kind=offer,phone=1", "ok | ok 0"),
            step("kind=offer,phone=1", "over | over 0"),
            step("kind=offer,phone=112", "over | over 0"),
            // Deeper or less deep than a limit is none.
            step("kind=offer", "ok | -"),
            step("kind=offer,phone=1,more=1", "ok | -"),
            // The way of the value is taken, and there is none back to the key.
            step("kind=news", "ok | ok 0"),
            step("kind=news,phone=1", "ok | -"),
            step("phone=1,kind=offer", "ok | -"),
            step("phone=1;kind=offer,phone=3", "ok | ok 2, ok 1"),
            step("nothing=1", "ok | -"),
        ],
    },
    Example {
        domain: "addresses",
        descriptors: "
  - { key: remote_address, rate_limit: { unit: year, requests_per_unit: 2 } }
  - { key: remote_address, value: 192.0.2.7, rate_limit: { unit: year, requests_per_unit: 0 } }
  - { key: remote_address, value: 192.0.2.9 }
",
        steps: &[
            step("remote_address=192.0.2.1", "ok | ok 1"),
            step("remote_address=192.0.2.2 x2", "ok | ok 0"),
            step("remote_address=192.0.2.7", "over | over 0"),
            step("remote_address=192.0.2.9 x50", "ok | -"),
            // None has a count too.
            step("remote_address", "ok | ok 1"),
        ],
    },
    Example {
        domain: "patterns",
        descriptors: "
  - { key: host, value: 'a*', rate_limit: { unit: year, requests_per_unit: 1 } }
  - { key: host, value: 'ab*', rate_limit: { unit: year, requests_per_unit: 9 } }
  - { key: host, rate_limit: { unit: year, requests_per_unit: 5 } }
  - { key: file, value: 'img/*', share_threshold: true, rate_limit: { unit: year, requests_per_unit: 3 } }
  - key: team
    value: 'x*'
    share_threshold: true
    descriptors:
      - { key: user, rate_limit: { unit: year, requests_per_unit: 1 } }
",
        steps: &[
            step("host=a1", "ok | ok 0"),
            step("host=a1", "over | over 0"),
            // Each has a count of its own; the first pattern in the file takes it.
            step("host=ab1", "ok | ok 0"),
            step("host=b", "ok | ok 4"),
            // One count for all that match.
            step("file=img/1", "ok | ok 2"),
            step("file=img/2 x2", "ok | ok 0"),
            step("file=img/3", "over | over 0"),
            step("team=x1,user=u", "ok | ok 0"),
            step("team=x2,user=u", "over | over 0"),
            step("team=x2,user=v", "ok | ok 0"),
        ],
    },
    Example {
        domain: "unlimited",
        descriptors: "
  - { key: user, rate_limit: { unit: year, requests_per_unit: 1 } }
  - { key: user, value: root, rate_limit: { unlimited: true } }
",
        steps: &[
            step("user=root x1000", "ok | free"),
            step("user=root;user=a", "ok | free, ok 0"),
            step("user=root;user=a", "over | free, over 0"),
        ],
    },
    Example {
        domain: "replaced",
        descriptors: "
  - { key: user, rate_limit: { name: base, unit: year, requests_per_unit: 1 } }
  - key: plan
    value: gold
    rate_limit: { name: gold, replaces: [{ name: base }], unit: year, requests_per_unit: 3 }
",
        steps: &[
            step("user=a;plan=gold", "ok | -, ok 2"),
            step("user=a;plan=gold", "ok | -, ok 1"),
            // What was replaced was not charged.
            step("user=a;plan=tin", "ok | ok 0, -"),
            step("user=a;plan=tin", "over | over 0, -"),
        ],
    },
    Example {
        domain: "shadow",
        descriptors: "
  - { key: user, shadow_mode: true, rate_limit: { unit: year, requests_per_unit: 1 } }
  - { key: all, rate_limit: { unit: year, requests_per_unit: 3 } }
",
        steps: &[
            step("user=a;all=1", "ok | ok 0, ok 2"),
            step("user=a;all=1", "ok | ok 0, ok 1"),
            step("user=a", "ok | ok 0"),
            // One that is denied is none that a limit in shadow mode would have seen.
            differs(
                "user=b;all=1 x2",
                "over | ok 1, over 1",
                "over | ok 0, over 0",
            ),
        ],
    },
    Example {
        domain: "quota",
        descriptors: "
  - { key: small, quota_mode: true, rate_limit: { unit: year, requests_per_unit: 1 } }
  - { key: large, quota_mode: true, rate_limit: { unit: year, requests_per_unit: 2 } }
  - { key: hard, rate_limit: { unit: year, requests_per_unit: 1 } }
",
        steps: &[
            step("small=1;large=1", "ok | ok 0, ok 1"),
            step("small=1;large=1", "ok | over 0, ok 0"),
            step("small=1;large=1", "over | over 0, over 0"),
            // One alone is all there are.
            step("small=1", "over | over 0"),
            step("small=1;large=2;hard=1", "ok | over 0, ok 1, ok 0"),
            differs(
                "small=1;large=2;hard=1",
                "over | over 0, ok 1, over 0",
                "over | over 0, ok 0, over 0",
            ),
        ],
    },
    Example {
        domain: "together",
        descriptors: "
  - { key: user, rate_limit: { unit: year, requests_per_unit: 1 } }
  - { key: all, rate_limit: { unit: year, requests_per_unit: 5 } }
",
        steps: &[
            step("user=a;all=1", "ok | ok 0, ok 4"),
            differs(
                "user=a;all=1",
                "over | over 0, ok 4",
                "over | over 0, ok 3",
            ),
            differs(
                "user=b;all=1",
                "ok | ok 0, ok 3",
                "ok | ok 0, ok 2",
            ),
        ],
    },
    Example {
        domain: "hits",
        descriptors: "
  - { key: user, rate_limit: { unit: year, requests_per_unit: 10 } }
",
        steps: &[
            step("user=a x0", "ok | ok 10"),
            step("user=a x4;user=b x1", "ok | ok 6, ok 9"),
            // Too many at once: what is left stays for smaller requests.
            differs("user=a x7", "over | over 6", "over | over 0"),
            differs("user=a x6", "ok | ok 0", "over | over 0"),
            differs("user=a x0", "over | over 0", "ok | ok 0"),
            step("user=b x9", "ok | ok 0"),
            step("user=b -3", "ok | ok 3"),
            step("user=b x3", "ok | ok 0"),
            step("user=c x2 5/year", "ok | ok 3"),
            step("user=c x4 5/month", "ok | ok 1"),
            step("user=c x1 0/day", "over | over 0"),
        ],
    },
    Example {
        domain: "units",
        descriptors: "
  - { key: wk, rate_limit: { unit: week, requests_per_unit: 7 } }
  - { key: mo, rate_limit: { unit: MONTH, requests_per_unit: 30 } }
  - { key: yr, rate_limit: { unit: Year, requests_per_unit: 365 } }
",
        steps: &[
            step("wk=1;mo=1;yr=1", "ok | ok 6, ok 29, ok 364"),
            step("wk=1 x6;mo=1 x29;yr=1 x364", "ok | ok 0, ok 0, ok 0"),
            step("wk=1", "over | over 0"),
        ],
    },
];

fn asked(domain: &str, text: &str) -> Result<RateLimitRequest> {
    let mut question = question(domain, &[]);
    for one in text.split(';') {
        let mut words = one.split(' ');
        let mut descriptor = descriptor(words.next().context("no descriptor")?);
        for word in words {
            if let Some(hits) = word.strip_prefix('x') {
                descriptor.hits_addend = Some(hits.parse()?);
            } else if let Some(hits) = word.strip_prefix('-') {
                descriptor.hits_addend = Some(hits.parse()?);
                descriptor.is_negative_hits = true;
            } else {
                let (requests, unit) = word.split_once('/').context("no limit")?;
                let unit = match unit {
                    "day" => Unit::Day,
                    "month" => Unit::Month,
                    _ => Unit::Year,
                };
                descriptor.limit = Some(RateLimitOverride {
                    requests_per_unit: requests.parse()?,
                    unit: unit.into(),
                });
            }
        }
        question.descriptors.push(descriptor);
    }
    Ok(question)
}

fn told(answer: &RateLimitResponse) -> String {
    let code = |code: Code| {
        if code == Code::OverLimit {
            "over"
        } else {
            "ok"
        }
    };
    let statuses = answer.statuses.iter().map(|status| {
        match (&status.current_limit, status.limit_remaining) {
            (None, 0) => "-".to_owned(),
            (None, _) => "free".to_owned(),
            (Some(_), left) => format!("{} {left}", code(status.code())),
        }
    });
    let statuses: Vec<_> = statuses.collect();
    format!("{} | {}", code(answer.overall_code()), statuses.join(", "))
}

/// The files of all examples.
fn files() -> String {
    let domains = EXAMPLES.iter().map(|example| {
        format!(
            "domain: {}\ndescriptors:{}",
            example.domain, example.descriptors
        )
    });
    domains.collect::<Vec<_>>().join("---\n")
}

fn run(way: &str, server: &Server, store: bool) -> Result<()> {
    for example in EXAMPLES {
        let questions = example.steps.iter();
        let questions = questions.map(|step| asked(example.domain, step.asked));
        let answers = server.answers(questions.collect::<Result<_>>()?)?;
        for (step, answer) in example.steps.iter().zip(&answers) {
            let (domain, Step { asked, here, there }) = (example.domain, step);
            let found = told(answer);
            ensure!(
                found == *here,
                "{way}, {domain}, {asked}: {found}, not {here}"
            );
            ensure!(here != there, "{domain}, {asked}: that is the same");
        }
    }
    if store {
        let page = server.daemon.metrics(&server.netns)?;
        let asked = page.sum("limiterd_store_requests_total", &[("result", "ok")]);
        ensure!(asked > 50.0, "{way}: the store was asked {asked} times");
    }
    Ok(())
}

#[test]
fn as_the_reference_service_answers() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let start = |rls, redis| Server::start(rls, redis, &files());
    run("memory", &start("", None)?, false)?;
    run("Redis", &start("", Some(&redis))?, true)?;
    let way = "keys of the reference";
    run(way, &start("keys: Reference", Some(&redis))?, true)
}

#[test]
fn a_cluster_answers_the_same() -> Result<()> {
    let cluster = RedisCluster::start(3, 0)?;
    // All counts of a domain in one slot; and each of those of a question in one of its own.
    for (number, way) in [(1, "keys: Limiterd"), (2, "keys: Reference")] {
        let config = config(way, Some(&cluster.url()));
        let server = Server::inside(cluster.neighbour(number)?, &config, &files())?;
        run(way, &server, true)?;
    }
    let servers: BTreeSet<usize> = cluster.keys()?.iter().map(|(at, _)| *at).collect();
    ensure!(servers.len() == 3, "{servers:?}");
    Ok(())
}

#[test]
fn units_names_and_the_time_until_a_reset() -> Result<()> {
    let example = EXAMPLES.iter().find(|one| one.domain == "units");
    let descriptors = example.context("no such example")?.descriptors;
    let server = Server::start("", None, &format!("domain: d\ndescriptors:{descriptors}"))?;
    let answers = server.answers(vec![asked("d", "wk=1;mo=1;yr=1")?])?;
    let days = [7, 30, 365].map(|days| days * 86_400);
    let units = [Unit::Week, Unit::Month, Unit::Year];
    for ((status, unit), length) in answers[0].statuses.iter().zip(units).zip(days) {
        let limit = status.current_limit.as_ref().context("no limit")?;
        ensure!(limit.unit() == unit, "{limit:?}");
        let reset = status.duration_until_reset.context("no reset")?.seconds;
        ensure!((1..=length).contains(&reset), "{unit:?}: {reset}");
    }
    Ok(())
}
