//! Envoy's rate limit service, asked by gRPC and JSON.

use std::process::Command;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use limiter_daemon::rls::proto::{
    Code, DescriptorStatus, RateLimitOverride, RateLimitRequest, RateLimitResponse, Unit,
};
use prost_types::value::Kind;
use tests::daemon::{Daemon, Policies, Process, binary};
use tests::http_client::{Answer, Speak, gets, many};
use tests::netns::Netns;
use tests::rls::{ask, ask_by, descriptor, health, question, reflect, secure};
use tests::tls::Authority;

const ADDRESS: &str = "127.0.0.1:8081";

/// Years, so that no window ends while a test runs.
const LIMITS: &str = "
domain: shop
descriptors:
  - key: user
    rate_limit: { unit: year, requests_per_unit: 3, name: per-user }
  - key: user
    value: root
    rate_limit: { unlimited: true }
  - key: route
    value: search
    descriptors:
      - key: user
        rate_limit: { unit: year, requests_per_unit: 2 }
  - key: tier
    value: try*
    shadow_mode: true
    share_threshold: true
    rate_limit: { unit: year, requests_per_unit: 1 }
  - key: remote_address
    rate_limit: { unit: year, requests_per_unit: 5 }
";

fn config(rls: &str) -> String {
    format!(
        "
apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: {{ name: limiterd }}
spec: {{ rls: {{ listen: '{ADDRESS}', {rls} }} }}
"
    )
}

fn scene(name: &str, rls: &str) -> Result<(Netns, Policies, Daemon)> {
    let netns = Netns::new(name)?;
    let policies = Policies::new(&[("0.yaml", &config(rls)), ("shop.yaml", LIMITS)])?;
    let daemon = Daemon::start(&netns, policies.path())?;
    Ok((netns, policies, daemon))
}

fn answers(netns: &Netns, questions: Vec<RateLimitRequest>) -> Result<Vec<RateLimitResponse>> {
    let answers = ask(netns, ADDRESS, questions)?;
    Ok(answers.into_iter().collect::<Result<_, _>>()?)
}

/// Overall code, and code and remaining of each status.
fn told(answer: &RateLimitResponse) -> (Code, Vec<(Code, u32)>) {
    let status = |one: &DescriptorStatus| (one.code(), one.limit_remaining);
    (
        answer.overall_code(),
        answer.statuses.iter().map(status).collect(),
    )
}

#[test]
fn descriptors_are_answered_in_their_order() -> Result<()> {
    let (netns, _policies, daemon) = scene("rls", "responseHeaders: true")?;
    let both = || {
        question(
            "shop",
            &["user=a", "route=search,user=a", "user=root", "none=1"],
        )
    };
    let found = answers(&netns, vec![both(), both(), both()])?;
    let ok = |left| (Code::Ok, left);
    assert_eq!(
        told(&found[0]),
        (Code::Ok, vec![ok(2), ok(1), ok(u32::MAX), ok(0)])
    );
    assert_eq!(
        told(&found[1]),
        (Code::Ok, vec![ok(1), ok(0), ok(u32::MAX), ok(0)])
    );
    // Denied by one, charged nothing at the others.
    let over = (Code::OverLimit, 0);
    assert_eq!(
        told(&found[2]),
        (Code::OverLimit, vec![ok(1), over, ok(u32::MAX), ok(0)])
    );
    let first = &found[0].statuses[0];
    let limit = first.current_limit.as_ref().context("no limit")?;
    assert_eq!(
        (limit.requests_per_unit, limit.unit(), limit.name.as_str()),
        (3, Unit::Year, "per-user")
    );
    let reset = first.duration_until_reset.context("no reset")?.seconds;
    assert!((1..=365 * 86_400).contains(&reset), "{reset}");
    assert!(found[0].statuses[3].current_limit.is_none());
    // Which rule it was.
    let metadata = found[2].dynamic_metadata.as_ref().context("no metadata")?;
    let rule = metadata.fields["rule"].kind.clone();
    assert_eq!(
        rule,
        Some(Kind::StringValue("shop.route_search.user".into()))
    );
    let index = metadata.fields["descriptor"].kind.clone();
    assert_eq!(index, Some(Kind::NumberValue(1.0)));
    assert!(found[0].dynamic_metadata.is_none());
    let header =
        |answer: &RateLimitResponse, at: usize| answer.response_headers_to_add[at].value.clone();
    let quotas = "3;w=31536000;name=\"per-user\", 2;w=31536000";
    assert_eq!(header(&found[0], 0), format!("2, {quotas}"));
    assert_eq!(header(&found[0], 1), "1");
    assert_eq!(header(&found[0], 2), reset.to_string());

    let metrics = daemon.metrics(&netns)?;
    let counted = |name: &str, key: &str| {
        let name = format!("ratelimit_service_rate_limit_{name}");
        metrics.sum(&name, &[("domain", "shop"), ("key1", key)])
    };
    assert_eq!(counted("total_hits", "user"), 3.0);
    assert_eq!(counted("within_limit", "user"), 2.0);
    assert_eq!(counted("over_limit", "route_search"), 1.0);
    assert_eq!(metrics.sum("ratelimit_service_total_requests", &[]), 3.0);
    assert!(daemon.stop()?.success());
    Ok(())
}

#[test]
fn hits_overrides_and_shadow_mode() -> Result<()> {
    let (netns, _policies, _daemon) = scene("rlsh", "")?;
    let with = |hits: Option<u64>, negative: bool| {
        let mut one = question("shop", &["user=a"]);
        one.descriptors[0].hits_addend = hits;
        one.descriptors[0].is_negative_hits = negative;
        one
    };
    let mut of_request = question("shop", &["user=b"]);
    of_request.hits_addend = 3;
    let mut brought = question("shop", &["user=c"]);
    brought.descriptors[0].limit = Some(RateLimitOverride {
        requests_per_unit: 10,
        unit: Unit::Year.into(),
    });
    let found = answers(
        &netns,
        vec![
            with(Some(0), false),
            with(Some(3), false),
            with(Some(0), false),
            with(Some(2), true),
            with(None, false),
            of_request,
            brought,
            question("shop", &["tier=try-1", "user=d"]),
            question("shop", &["tier=try-2", "user=d"]),
            question("elsewhere", &["user=a", "user=b"]),
        ],
    )?;
    let found: Vec<_> = found.iter().map(told).collect();
    let one = |code, left| (code, vec![(code, left)]);
    assert_eq!(found[0], one(Code::Ok, 3));
    assert_eq!(found[1], one(Code::Ok, 0));
    assert_eq!(found[2], one(Code::OverLimit, 0));
    assert_eq!(found[3], one(Code::Ok, 2));
    assert_eq!(found[4], one(Code::Ok, 1));
    assert_eq!(found[5], one(Code::Ok, 0));
    assert_eq!(found[6], one(Code::Ok, 9));
    let ok = |left| (Code::Ok, left);
    assert_eq!(found[7], (Code::Ok, vec![ok(0), ok(2)]));
    assert_eq!(found[8], (Code::Ok, vec![ok(0), ok(1)]));
    assert_eq!(found[9], (Code::Ok, vec![ok(0), ok(0)]));
    Ok(())
}

#[test]
fn questions_that_cannot_be_answered_are_errors() -> Result<()> {
    let netns = Netns::new("rlse")?;
    let policies = Policies::new(&[
        ("0.yaml", &config("")),
        ("shop.yaml", LIMITS),
        (
            "bad.yaml",
            "domain: bad\ndescriptors:\n  - key: k\n    rate_limit: { unit: eon }\n",
        ),
    ])?;
    let daemon = Daemon::start(&netns, policies.path())?;
    let mut no_unit = question("shop", &["user=a"]);
    no_unit.descriptors[0].limit = Some(RateLimitOverride::default());
    let questions = vec![
        question("", &["user=a"]),
        question("shop", &[]),
        no_unit,
        question("bad", &["k=1"]),
        question("shop", &["user=a"]),
    ];
    let found = ask(&netns, ADDRESS, questions)?;
    let codes: Vec<_> = found
        .iter()
        .map(|answer| {
            answer
                .as_ref()
                .map_or_else(tonic::Status::code, |_| tonic::Code::Ok)
        })
        .collect();
    use tonic::Code::{InvalidArgument, Ok as Fine, Unavailable};
    assert_eq!(
        codes,
        [
            InvalidArgument,
            InvalidArgument,
            InvalidArgument,
            Unavailable,
            Fine
        ]
    );
    // A reload mends it, without losing a count; and what is bad then, changes nothing.
    policies.write("bad.yaml", &LIMITS.replace("shop", "bad"))?;
    daemon.reload(&netns)?;
    policies.write("shop.yaml", &LIMITS.replace("unit: year", "unit: eon"))?;
    daemon.reload(&netns)?;
    let found = answers(
        &netns,
        vec![question("bad", &["user=a"]), question("shop", &["user=a"])],
    )?;
    assert_eq!(told(&found[0]).1, [(Code::Ok, 2)]);
    assert_eq!(told(&found[1]).1, [(Code::Ok, 1)]);
    Ok(())
}

#[test]
fn the_same_question_as_json() -> Result<()> {
    let (netns, _policies, _daemon) = scene("rlsj", "")?;
    let post = |body: &'static str| -> Result<Answer> {
        let request =
            Request::post(format!("http://{ADDRESS}/json")).body(Full::new(Bytes::from(body)))?;
        netns.enter(|| {
            many(Speak::Http1, vec![request])?
                .pop()
                .context("no answer")
        })
    };
    let question = r#"{"domain":"shop","descriptors":[{"entries":[{"key":"user","value":"a"}],"hitsAddend":"2"}]}"#;
    let first = post(question)?;
    assert_eq!(first.status, 200);
    let json: serde_json::Value = serde_json::from_slice(&first.body)?;
    assert_eq!(json["overallCode"], "OK");
    assert_eq!(json["statuses"][0]["limitRemaining"], 1);
    assert_eq!(json["statuses"][0]["currentLimit"]["unit"], "YEAR");
    let second = post(question)?;
    assert_eq!(second.status, 429);
    let json: serde_json::Value = serde_json::from_slice(&second.body)?;
    assert_eq!(json["overallCode"], "OVER_LIMIT");
    assert_eq!(json["dynamicMetadata"]["rule"], "shop.user");
    assert_eq!(post("{}")?.status, 400);
    assert_eq!(post(r#"{"domein":"shop"}"#)?.status, 400);
    let health = netns.enter(|| gets(&format!("http://{ADDRESS}/healthcheck"), &[], 1))?;
    assert_eq!(
        (health[0].status.as_u16(), health[0].text()),
        (200, "OK".to_owned())
    );
    Ok(())
}

#[test]
fn the_example_answers_as_it_says() -> Result<()> {
    let netns = Netns::new("rlsx")?;
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/ratelimit-service");
    let _daemon = Daemon::start(&netns, dir.as_ref())?;
    let questions = [
        &[
            "user=alice",
            "route=search",
            "route=search,user=alice",
            "remote_address=192.0.2.1",
        ][..],
        &["user=monitoring"],
        &["user=mallory"],
        &["user=alice", "path=/img/a.png"],
    ];
    let questions = questions.map(|descriptors| question("shop", descriptors));
    let found = answers(&netns, questions.to_vec())?;
    let ok = |left| (Code::Ok, left);
    assert_eq!(
        told(&found[0]),
        (Code::Ok, vec![ok(99), ok(999), ok(9), ok(4_999)])
    );
    assert_eq!(told(&found[1]), (Code::Ok, vec![ok(u32::MAX)]));
    assert_eq!(
        told(&found[2]),
        (Code::OverLimit, vec![(Code::OverLimit, 0)])
    );
    assert_eq!(told(&found[3]), (Code::Ok, vec![ok(0), ok(199)]));
    assert!(found[3].statuses[0].current_limit.is_none());
    Ok(())
}

#[test]
fn a_limit_is_exact_under_concurrent_questions() -> Result<()> {
    const CLIENTS: usize = 8;
    const EACH: usize = 40;
    let netns = Netns::new("rlsc")?;
    let limits = "
domain: shop
descriptors:
  - { key: all, value: one, rate_limit: { unit: year, requests_per_unit: 100 } }
  - { key: user, rate_limit: { unit: year, requests_per_unit: 150 } }
";
    let policies = Policies::new(&[("0.yaml", &config("")), ("shop.yaml", limits)])?;
    let _daemon = Daemon::start(&netns, policies.path())?;
    // Half of them meet both limits, so that each of 100 is charged at both or at none.
    let client = &|index: usize| -> Result<[usize; 2]> {
        let both = index.is_multiple_of(2);
        let descriptors: &[&str] = if both {
            &["user=a", "all=one"]
        } else {
            &["user=a"]
        };
        let found = answers(&netns, vec![question("shop", descriptors); EACH])?;
        let passed = found.iter().filter(|one| one.overall_code() == Code::Ok);
        let passed = passed.count();
        Ok(if both { [passed, 0] } else { [0, passed] })
    };
    let passed = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| scope.spawn(move || client(n)))
            .collect();
        let results = clients.into_iter().map(|one| one.join().expect("no panic"));
        results.collect::<Result<Vec<_>>>()
    })?;
    let sum = |at: usize| passed.iter().map(|one| one[at]).sum::<usize>();
    assert!(sum(0) <= 100, "{passed:?}");
    assert_eq!(sum(0) + sum(1), 150, "{passed:?}");
    // What is left of the one limit is what those that passed have not taken.
    let left = told(&answers(&netns, vec![question("shop", &["all=one"])])?[0]).1[0].1;
    assert_eq!(usize::try_from(left)?, 99 - sum(0).min(99));
    Ok(())
}

#[test]
fn health_and_reflection() -> Result<()> {
    let (netns, _policies, _daemon) = scene("rlsr", "")?;
    let service = "envoy.service.ratelimit.v3.RateLimitService";
    assert_eq!(health(&netns, ADDRESS, "")?, 1);
    assert_eq!(health(&netns, ADDRESS, service)?, 1);
    assert!(health(&netns, ADDRESS, "no.such.Service").is_err());
    let (services, files) = reflect(&netns, ADDRESS, service)?;
    assert!(services.iter().any(|one| one == service), "{services:?}");
    assert_eq!(files, 1);
    Ok(())
}

#[test]
fn tls_and_client_certificates() -> Result<()> {
    let netns = Netns::new("rlst")?;
    let (ours, theirs) = (Authority::new()?, Authority::new()?);
    let tls = "tls: { certificateRefs: [{ name: rls }], \
               clientValidation: { caCertificateRefs: [{ kind: ConfigMap, name: clients }] } }";
    let authority = serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "clients" },
        "data": { "ca.crt": ours.pem() },
    });
    let policies = Policies::new(&[
        ("0.yaml", &config(tls)),
        ("shop.yaml", LIMITS),
        ("secret.yaml", &ours.secret("rls", "rls.example")?),
        ("clients.yaml", &authority.to_string()),
    ])?;
    let daemon = Daemon::start(&netns, policies.path())?;
    let client = ours.pair("envoy")?;
    let stranger = theirs.pair("envoy")?;
    let ask = |trusted: &Authority, client: Option<&[String; 2]>| {
        let client = client.map(|[certificate, key]| (certificate.as_str(), key.as_str()));
        let endpoint = secure(ADDRESS, "rls.example", &trusted.pem(), client)?;
        let found = ask_by(&netns, endpoint, vec![question("shop", &["user=a"])])?;
        let answer = found.into_iter().next().context("no answer")??;
        anyhow::Ok(told(&answer).1[0].1)
    };
    assert_eq!(ask(&ours, Some(&client))?, 2);
    assert!(ask(&ours, None).is_err());
    assert!(ask(&ours, Some(&stranger)).is_err());
    assert!(ask(&theirs, Some(&client)).is_err());
    assert!(answers(&netns, vec![question("shop", &["user=a"])]).is_err());
    // Another certificate is taken at a reload; one that is gone leaves it as it is.
    policies.write("secret.yaml", &theirs.secret("rls", "rls.example")?)?;
    daemon.reload(&netns)?;
    assert_eq!(ask(&theirs, Some(&client))?, 1);
    policies.write("secret.yaml", "")?;
    daemon.reload(&netns)?;
    assert_eq!(ask(&theirs, Some(&client))?, 0);
    Ok(())
}

#[test]
fn a_new_process_takes_the_address_over() -> Result<()> {
    let (netns, policies, old) = scene("rlsv", "")?;
    let ask = || answers(&netns, vec![question("shop", &["user=a"])]);
    assert_eq!(told(&ask()?[0]).1, [(Code::Ok, 2)]);
    let mut command = Command::new(binary());
    command
        .args(["run", "--takeover", "--config"])
        .arg(policies.path());
    let new = Process::spawn(&netns, command)?;
    let mut old = old.process;
    assert!(old.wait()?.success(), "{}", old.output());
    let new = Daemon::ready(&netns, new)?;
    // What was counted goes on.
    assert_eq!(told(&ask()?[0]).1, [(Code::Ok, 1)]);
    assert!(new.stop()?.success());
    Ok(())
}

#[test]
fn descriptors_are_written_as_the_protocol_has_them() {
    use prost::Message as _;
    let mut one = question("d", &["k=v"]);
    one.descriptors[0] = descriptor("k=v");
    one.descriptors[0].hits_addend = Some(0);
    // domain=1, descriptors=2 { entries=1 { key=1, value=2 }, hits_addend=3 {} }
    let bytes = [10, 1, b'd', 18, 10, 10, 6, 10, 1, b'k', 18, 1, b'v', 26, 0];
    assert_eq!(one.encode_to_vec(), bytes);
}
