//! The examples of Envoy Gateway's flows, over real sockets: who passes, who gets 429, and that
//! `limiterd explain` says so beforehand.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use http::{Method, Request};
use tests::daemon::{Daemon, Process, demo_backend, limiterd};
use tests::http_client::{Answer, Speak, count, gets, many};
use tests::netns::Netns;

const HOST: (&str, &str) = ("host", "tasks.example.com");

/// An example that runs in a network namespace of its own.
struct Example {
    dir: PathBuf,
    netns: Netns,
    _daemon: Daemon,
    _backend: Process,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the daemon goes by the same clock"
)]
fn now() -> Instant {
    Instant::now()
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

impl Example {
    fn start(name: &str) -> Result<Self> {
        let dir = examples().join("envoy-gateway").join(name);
        let netns = Netns::new("example")?;
        let backend = demo_backend(&netns)?;
        let daemon = Daemon::start(&netns, &dir)?;
        Ok(Self {
            dir,
            netns,
            _daemon: daemon,
            _backend: backend,
        })
    }

    /// `requests` at once for `path`, as `user`.
    fn ask(&self, path: &str, user: Option<&str>, requests: usize) -> Result<Vec<Answer>> {
        let mut headers = vec![HOST];
        headers.extend(user.map(|user| ("x-user-id", user)));
        let url = format!("http://127.0.0.1:8080{path}");
        self.netns.enter(|| gets(&url, &headers, requests))
    }

    /// Asks, and expects so many answers of 200 and of 429, all of them about a limit of `quota`
    /// (empty: no limit). What comes back into the bucket meanwhile may pass, too.
    #[track_caller]
    fn expect(&self, path: &str, user: Option<&str>, [passed, limited]: [usize; 2], quota: &str) {
        let begin = now();
        let answers = self.ask(path, user, passed + limited).expect("answers");
        let a_minute: u128 = quota
            .split(',')
            .next()
            .and_then(|n| n.parse().ok())
            .unwrap_or(0);
        let back = begin.elapsed().as_millis() * a_minute / 60_000;
        let back = usize::try_from(back).expect("a few");
        let seen = count(&answers, 200);
        assert!(
            (passed..=passed + back).contains(&seen),
            "{path} {user:?}: {seen} of {passed}"
        );
        assert_eq!(
            count(&answers, 429),
            passed + limited - seen,
            "{path} {user:?}"
        );
        for answer in &answers {
            assert_eq!(answer.header("x-ratelimit-limit"), quota, "{answer:?}");
            let waits = answer.header("retry-after").parse::<u64>().is_ok();
            assert_eq!(waits, answer.status == 429, "{answer:?}");
        }
    }

    /// Names of the rules that `limiterd explain` says the request meets.
    fn explained(&self, path: &str, user: Option<&str>) -> Result<Vec<String>> {
        let dir = self.dir.to_str().context("not UTF-8")?;
        let url = format!("http://tasks.example.com{path}");
        let header = user.map(|user| format!("x-user-id: {user}"));
        let mut args = vec!["explain", "--config", dir, "--format", "json", "GET", &url];
        if let Some(header) = &header {
            args.extend(["-H", header]);
        }
        let output = limiterd(&args)?;
        let said: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let policies = said["policies"].as_array().context("no policies")?;
        Ok(policies
            .iter()
            .filter_map(|policy| policy["rules"].as_array())
            .flatten()
            .filter(|rule| rule["matches"] == true)
            .filter_map(|rule| Some(rule["name"].as_str()?.to_owned()))
            .collect())
    }
}

#[test]
fn simple_a_hundred_a_minute() -> Result<()> {
    let example = Example::start("simple")?;
    example.expect("/tasks", None, [100, 20], "100, 100;w=60");
    let met = example.explained("/tasks", None)?;
    assert_eq!(met, ["default/task-api-limit/rule/0"]);
    Ok(())
}

#[test]
fn per_user_everyone_has_a_bucket() -> Result<()> {
    let example = Example::start("per-user")?;
    example.expect("/tasks", Some("alice"), [50, 10], "50, 50;w=60");
    example.expect("/tasks", Some("bob"), [50, 10], "50, 50;w=60");
    // No rule is for requests without the header: they are not limited.
    example.expect("/tasks", None, [60, 0], "");
    assert!(example.explained("/tasks", None)?.is_empty());
    assert_eq!(example.explained("/", Some("alice"))?.len(), 1);
    Ok(())
}

#[test]
fn heavy_user_one_has_less_and_others_the_default() -> Result<()> {
    let example = Example::start("heavy-user")?;
    example.expect("/tasks", Some("heavy-user-123"), [10, 5], "10, 10;w=60");
    // He did not touch the bucket that all others share.
    example.expect("/tasks", Some("alice"), [60, 0], "100, 100;w=60");
    example.expect("/tasks", None, [40, 10], "100, 100;w=60");
    let met = example.explained("/", Some("heavy-user-123"))?;
    assert_eq!(met, ["default/heavy-user-limit/rule/0"]);
    let met = example.explained("/", Some("alice"))?;
    assert_eq!(met, ["default/heavy-user-limit/rule/1"]);
    Ok(())
}

#[test]
fn anonymous_requests_have_less() -> Result<()> {
    let example = Example::start("anonymous")?;
    example.expect("/tasks", None, [10, 5], "10, 10;w=60");
    example.expect("/tasks", Some("alice"), [100, 5], "100, 100;w=60");
    example.expect("/tasks", Some("bob"), [100, 5], "100, 100;w=60");
    let met = example.explained("/", None)?;
    assert_eq!(met, ["default/tiered-limit/rule/1"]);
    Ok(())
}

#[test]
fn merge_a_route_has_its_own_limit_in_place_of_the_default() -> Result<()> {
    let example = Example::start("merge")?;
    example.expect("/v1/inference/chat", None, [10, 5], "10, 10;w=60");
    example.expect("/tasks", None, [100, 20], "100, 100;w=60");
    let met = example.explained("/v1/inference", None)?;
    assert_eq!(met, ["default/llm-limit/rule/0"]);
    let met = example.explained("/tasks", None)?;
    assert_eq!(met, ["default/gateway-default/rule/0"]);
    Ok(())
}

#[test]
fn conditions_are_told_as_envoy_gateway_states_them() -> Result<()> {
    let check = |name: &str| -> Result<String> {
        let dir = examples().join("envoy-gateway").join(name);
        let output = limiterd(&["check", "--status", dir.to_str().context("not UTF-8")?])?;
        Ok(String::from_utf8(output.stdout)?)
    };
    let text = check("merge")?;
    for line in [
        "BackendTrafficPolicy default/gateway-default at Gateway default/eg: Accepted=True (Accepted)",
        "BackendTrafficPolicy default/gateway-default at Gateway default/eg: Overridden=True (Overridden)",
        "Gateway default/eg listener http: Programmed=True (Programmed)",
        "HTTPRoute default/llm-inference at Gateway default/eg: ResolvedRefs=True (ResolvedRefs)",
    ] {
        assert!(text.contains(line), "no {line:?} in\n{text}");
    }
    let text = check("merge-strategic")?;
    let merged =
        "BackendTrafficPolicy default/llm-limit at Gateway default/eg: Merged=True (Merged)";
    assert!(text.contains(merged), "{text}");
    Ok(())
}

#[test]
fn merge_strategic_joins_both_policies() -> Result<()> {
    let example = Example::start("merge-strategic")?;
    let answers = example.ask("/v1/inference/chat", None, 15)?;
    let passed = count(&answers, 200);
    // A token comes back every six seconds.
    assert!((10..=12).contains(&passed), "{passed} passed");
    for answer in &answers {
        let quotas = answer.header("x-ratelimit-limit");
        assert!(quotas.starts_with("10, "), "{quotas}");
        assert!(
            quotas.contains("10;w=60") && quotas.contains("100;w=60"),
            "{quotas}"
        );
    }
    let mut met = example.explained("/v1/inference", None)?;
    met.sort();
    assert_eq!(
        met,
        ["default/gateway-default/rule/0", "default/llm-limit/rule/0"]
    );
    // Other routes have the default alone.
    example.expect("/tasks", None, [100, 20], "100, 100;w=60");
    Ok(())
}

#[test]
fn global_and_local_must_both_pass() -> Result<()> {
    let example = Example::start("global")?;
    for user in ["alice", "bob"] {
        let answers = example.ask("/tasks", Some(user), 40)?;
        assert_eq!(
            [count(&answers, 200), count(&answers, 429)],
            [30, 10],
            "{user}"
        );
        for answer in &answers {
            let quotas = answer.header("x-ratelimit-limit");
            assert!(
                quotas.contains("1000;w=1") && quotas.contains("30;w=3600"),
                "{quotas}"
            );
        }
    }
    // Without the header only the local limit is met.
    example.expect("/tasks", None, [40, 0], "1000, 1000;w=1");
    let met = example.explained("/tasks", Some("alice"))?;
    assert_eq!(met.len(), 2, "{met:?}");
    Ok(())
}

#[test]
fn selectors_of_a_rule_must_all_match() -> Result<()> {
    let example = Example::start("selectors")?;
    let send = |method: Method, path: &str, count: usize| {
        let url = format!("http://127.0.0.1:8080{path}");
        let request = || {
            let request = Request::builder().method(&method).uri(&url);
            request.header(HOST.0, HOST.1).body(Default::default())
        };
        let requests = (0..count).map(|_| request()).collect::<Result<_, _>>()?;
        example.netns.enter(|| many(Speak::Http1, requests))
    };
    let writes = send(Method::POST, "/tasks/1", 8)?;
    assert_eq!([count(&writes, 200), count(&writes, 429)], [5, 3]);
    // The same bucket, whichever of the methods it is; and neither reading nor another path is limited.
    assert_eq!(count(&send(Method::DELETE, "/tasks", 2)?, 429), 2);
    assert_eq!(count(&send(Method::POST, "/users", 20)?, 200), 20);
    assert_eq!(count(&send(Method::GET, "/tasks", 20)?, 200), 20);
    let searches = send(Method::GET, "/tasks?q=x&sort=relevance", 5)?;
    assert_eq!([count(&searches, 200), count(&searches, 429)], [3, 2]);
    assert_eq!(count(&send(Method::GET, "/tasks?sort=date", 5)?, 200), 5);
    Ok(())
}

#[test]
fn every_example_is_without_findings() -> Result<()> {
    let mut seen = 0;
    for parent in [examples(), examples().join("envoy-gateway")] {
        for entry in parent.read_dir()? {
            let path = entry?.path();
            if !path.is_dir() || path.ends_with("envoy-gateway") {
                continue;
            }
            let dir = path.to_str().context("not UTF-8")?;
            let output = limiterd(&["check", "--deny-warnings", "--format", "json", dir])?;
            let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
            assert_eq!(output.status.code(), Some(0), "{dir}: {report}");
            assert_eq!(report["findings"], serde_json::json!([]), "{dir}");
            seen += 1;
        }
    }
    assert!(seen >= 10, "only {seen} examples");
    Ok(())
}
