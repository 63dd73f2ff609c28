//! What files and settings say besides limits: metadata, statistics of values, modes of the whole
//! service, names of headers; and what is told of a domain.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use limiter_daemon::rls::proto::{Code, RateLimitOverride, RateLimitResponse, Unit};
use prost_types::value::Kind;
use tests::daemon::{ADMIN, limiterd};
use tests::metrics::Page;
use tests::netns::Netns;
use tests::redis::Redis;
use tests::rls::question;

use crate::support::{Server, told};

/// Years, so that no window ends while a test runs.
const LIMITS: &str = "
domain: shop
descriptors:
  - key: user
    metadata: { tier: basic, on: true, at: { zone: a, rack: 4 }, all: [1, x, null] }
    rate_limit: { unit: year, requests_per_unit: 10, name: per-user }
  - key: plan
    value: gold
    metadata: { tier: gold, at: { zone: b, row: 5 } }
    rate_limit: { unit: year, requests_per_unit: 1 }
  - key: path
    detailed_metric: true
    rate_limit: { unit: year, requests_per_unit: 100 }
  - key: host
    value: 'a*'
    value_to_metric: true
    descriptors:
      - { key: method, rate_limit: { unit: year, requests_per_unit: 100 } }
      - key: verb
        value: 'g*'
        share_threshold: true
        detailed_metric: true
        rate_limit: { unit: year, requests_per_unit: 100 }
  - key: team
    value: x
    descriptors: [{ key: user }]
";

/// A value, as text.
fn text(kind: Option<&Kind>) -> String {
    match kind {
        Some(Kind::StringValue(text)) => text.clone(),
        Some(Kind::NumberValue(number)) => number.to_string(),
        Some(Kind::BoolValue(value)) => value.to_string(),
        Some(Kind::ListValue(list)) => {
            let values = list.values.iter().map(|value| text(value.kind.as_ref()));
            format!("[{}]", values.collect::<Vec<_>>().join(" "))
        }
        Some(Kind::StructValue(fields)) => {
            let fields = fields.fields.iter();
            let mut fields: Vec<_> = fields
                .map(|(name, value)| format!("{name}={}", text(value.kind.as_ref())))
                .collect();
            fields.sort();
            format!("({})", fields.join(" "))
        }
        Some(Kind::NullValue(_)) | None => "null".to_owned(),
    }
}

fn metadata(answer: &RateLimitResponse) -> Option<String> {
    let metadata = answer.dynamic_metadata.as_ref()?.fields.get("metadata")?;
    Some(text(metadata.kind.as_ref()))
}

#[test]
fn what_files_say_of_limits_that_a_request_conforms_to_is_told() -> Result<()> {
    let server = Server::start("", None, LIMITS)?;
    let both = || question("shop", &["user=a", "plan=gold"]);
    let found = server.answers(vec![both(), both(), question("shop", &["path=/"])])?;
    // Of two, the first says it; maps are put together.
    let first = "(all=[1 x null] at=(rack=4 row=5 zone=a) on=true tier=basic)";
    assert_eq!(metadata(&found[0]).as_deref(), Some(first));
    // The second is over.
    let second = "(all=[1 x null] at=(rack=4 zone=a) on=true tier=basic)";
    assert_eq!(metadata(&found[1]).as_deref(), Some(second));
    let told = &found[1]
        .dynamic_metadata
        .as_ref()
        .context("nothing told")?
        .fields;
    let rule = Kind::StringValue("shop.plan_gold".to_owned());
    assert_eq!(told["rule"].kind, Some(rule));
    assert!(found[2].dynamic_metadata.is_none());
    Ok(())
}

#[test]
fn questions_are_repeated_and_requests_get_headers_where_it_is_set() -> Result<()> {
    let rls = "echoRequest: true, requestHeaders: true, requestHeaderNames: { limit: X-Limit }";
    let server = Server::start(rls, None, LIMITS)?;
    let mut asked = question("shop", &["user=a", "team=x,user=a"]);
    asked.hits_addend = 2;
    asked.descriptors[0].hits_addend = Some(3);
    asked.descriptors[1].limit = Some(RateLimitOverride {
        requests_per_unit: 5,
        unit: Unit::Year.into(),
    });
    let found = server.answers(vec![asked])?;
    let fields = found[0].dynamic_metadata.clone().context("nothing told")?;
    let fields = fields.fields.into_iter();
    let fields: BTreeMap<_, _> = fields
        .map(|(name, value)| (name, text(value.kind.as_ref())))
        .collect();
    assert_eq!(fields["domain"], "shop");
    assert_eq!(fields["hitsAddend"], "2");
    let descriptors = "[(entries=[user=a] hitsAddend=3) \
                       (entries=[team=x user=a] limit=requests_per_unit:5 unit:YEAR)]";
    assert_eq!(fields["descriptors"], descriptors);
    let headers = found[0].request_headers_to_add.iter();
    let headers: Vec<_> = headers
        .map(|header| (header.key.as_str(), header.value.as_str()))
        .collect();
    assert_eq!(
        headers[..2],
        [("X-Limit", "5"), ("RateLimit-Remaining", "3")]
    );
    assert!(found[0].response_headers_to_add.is_empty());
    Ok(())
}

fn hits(page: &Page, keys: &[&str]) -> f64 {
    let names: Vec<_> = (1..=keys.len()).map(|at| format!("key{at}")).collect();
    let mut labels = vec![("domain", "shop")];
    let pairs = names.iter().zip(keys);
    labels.extend(pairs.map(|(name, key)| (name.as_str(), *key)));
    page.sum("ratelimit_service_rate_limit_total_hits", &labels)
}

#[test]
fn values_are_told_in_statistics_where_files_say_so() -> Result<()> {
    let server = Server::start("", None, LIMITS)?;
    let ask = |descriptors: &[&str]| server.answers(vec![question("shop", descriptors)]);
    ask(&["path=/a", "path=/b", "path=/b", "user=ann"])?;
    ask(&[
        "host=a1,method=get",
        "host=a2,method=get",
        "host=a1,verb=get",
    ])?;
    let page = server.daemon.metrics(&server.netns)?;
    assert_eq!(hits(&page, &["path_/a"]), 1.0);
    assert_eq!(hits(&page, &["path_/b"]), 2.0);
    // Those of the limit are not counted twice, and other values are no labels.
    assert_eq!(hits(&page, &["path"]), 0.0);
    assert_eq!(hits(&page, &["user"]), 1.0);
    assert_eq!(hits(&page, &["user_ann"]), 0.0);
    assert_eq!(hits(&page, &["host_a1", "method"]), 1.0);
    assert_eq!(hits(&page, &["host_a2", "method"]), 1.0);
    // Values that share a count share their statistics.
    assert_eq!(hits(&page, &["host_a1", "verb_g*"]), 1.0);
    let refused = || -> Result<f64> {
        let page = server.daemon.metrics(&server.netns)?;
        Ok(page.sum("limiterd_rls_details_refused_total", &[]))
    };
    assert_eq!(refused()?, 0.0);
    // There are 10,000 of them at most; more are counted with their limit.
    let mut sent = 0;
    while sent < 10_100 {
        let texts: Vec<_> = (sent..sent + 200).map(|n| format!("path=/n/{n}")).collect();
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        ask(&texts)?;
        sent += 200;
    }
    let page = server.daemon.metrics(&server.netns)?;
    let more = refused()?;
    assert!(more > 0.0);
    assert_eq!(hits(&page, &["path"]), more);
    // Answers are timed.
    let times = page.sum("ratelimit_service_response_time_seconds_count", &[]);
    assert_eq!(times, page.sum("ratelimit_service_total_requests", &[]));
    Ok(())
}

#[test]
fn modes_of_all_limits_and_names_of_headers() -> Result<()> {
    let rls = "shadowMode: true, nearLimitRatio: 0.5, responseHeaders: true, \
               responseHeaderNames: { limit: X-Limit, reset: X-Reset }";
    let server = Server::start(rls, None, LIMITS)?;
    let gold = || question("shop", &["plan=gold", "user=a"]);
    let mut many = question("shop", &["user=a"]);
    many.hits_addend = 6;
    let found = server.answers(vec![gold(), gold(), many])?;
    assert_eq!(told(&found[0]), (false, vec![(false, 0), (false, 9)]));
    // It would be denied, so it is charged nothing; but it passes.
    assert_eq!(told(&found[1]), (false, vec![(true, 0), (false, 9)]));
    let names: Vec<_> = found[0]
        .response_headers_to_add
        .iter()
        .map(|header| header.key.as_str())
        .collect();
    assert_eq!(names, ["X-Limit", "RateLimit-Remaining", "X-Reset"]);
    let page = server.daemon.metrics(&server.netns)?;
    assert_eq!(page.sum("ratelimit_service_global_shadow_mode", &[]), 1.0);
    // Seven of ten, of which two are beyond a half.
    let near = [("domain", "shop"), ("key1", "user")];
    assert_eq!(
        page.sum("ratelimit_service_rate_limit_near_limit", &near),
        2.0
    );
    // A reload ends it.
    let config = crate::support::config("quotaMode: true", None);
    server.policies.write("0.yaml", &config)?;
    server.daemon.reload(&server.netns)?;
    let found = server.answers(vec![gold(), question("shop", &["plan=gold"])])?;
    // All are quotas: one that is left lets the request pass.
    assert_eq!(told(&found[0]), (false, vec![(true, 0), (false, 2)]));
    assert_eq!(found[1].overall_code(), Code::OverLimit);
    Ok(())
}

fn explain(server: &Server, descriptors: &[&str]) -> Result<String> {
    let mut args = vec!["explain", "--admin", ADMIN, "--domain", "shop"];
    for descriptor in descriptors {
        args.extend(["--descriptor", descriptor]);
    }
    let output = server.netns.enter(|| limiterd(&args))?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8(text)?)
}

#[test]
fn limits_of_descriptors_are_explained_with_their_counts() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    for (redis, key) in [
        (None, ""),
        (Some(&redis), "limiterd:{shop}plan=gold#fixed/"),
    ] {
        let server = Server::start("", redis, LIMITS)?;
        server.answers(vec![question("shop", &["plan=gold", "user=a"])])?;
        for _ in 0..2 {
            let text = explain(&server, &["user=a", "host=ab,verb=get", "team=x,user=a"])?;
            for part in [
                "it passes\n",
                "user=a: the descriptor without a value",
                "shop.user: 10 a year (per-user)",
                "9 left, all again in",
                "verb=get: the first pattern that matches, `g*`",
                "it has no `rate_limit`: nothing is limited",
            ] {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
        let text = explain(&server, &["plan=gold", "plan=tin"])?;
        assert!(text.contains("over the limit shop.plan_gold"), "{text}");
        assert!(text.contains("no descriptor here has this value"), "{text}");
        assert!(text.contains(key), "{text}");
    }
    // By files, which have no counts.
    let server = Server::start("", None, LIMITS)?;
    let dir = server.policies.path().display().to_string();
    let domain = ["explain", "--config", &dir, "--domain", "shop"];
    let output = limiterd(&[&domain[..], &["--descriptor", "plan=gold"]].concat())?;
    let text = String::from_utf8(output.stdout)?;
    assert!(text.contains("meets   shop.plan_gold: 1 a year"), "{text}");
    assert!(!text.contains("left"), "{text}");
    let text = explain(&server, &["plan"])?;
    assert!(text.contains("`plan` is not a descriptor"), "{text}");
    Ok(())
}
