//! HTTP limits over real sockets: exact counts, and the headers of every answer.

use anyhow::{Context as _, Result};
use http::Request;
use tests::daemon::{Daemon, Policies, Process, demo_backend};
use tests::http_client::{Answer, Speak, count, get, gets, many};
use tests::netns::Netns;
use tests::policies::{GATEWAY, route, traffic};

const HUNDRED: &str = "      - limit: {requests: 100, unit: Minute}\n";
const USERS: &str = "      - clientSelectors: [{headers: [{name: x-user-id, type: Distinct}]}]
        limit: {requests: 50, unit: Minute}
      - clientSelectors: [{headers: [{name: x-user-id, type: Distinct, invert: true}]}]
        limit: {requests: 10, unit: Minute}
      - clientSelectors: [{headers: [{name: x-user-id, type: Exact, value: heavy-user-123}]}]
        limit: {requests: 5, unit: Minute}
";
const HEAVY: &str =
    "      - clientSelectors: [{headers: [{name: x-user-id, value: heavy-user-123}]}]
        limit: {requests: 10, unit: Minute}
      - limit: {requests: 20, unit: Minute}
";

struct Stage {
    netns: Netns,
    daemon: Daemon,
    _backend: Process,
    _policies: Policies,
}

fn stage() -> Result<Stage> {
    let netns = Netns::new("http")?;
    let backend = demo_backend(&netns)?;
    let policies = Policies::new(&[
        ("gateway.yaml", GATEWAY),
        ("plain.yaml", &route("plain", "/")),
        ("users.yaml", &route("users", "/users")),
        ("heavy.yaml", &route("heavy", "/heavy")),
        (
            "default.yaml",
            &traffic("default", ("Gateway", "eg"), HUNDRED),
        ),
        (
            "per-user.yaml",
            &traffic("per-user", ("HTTPRoute", "users"), USERS),
        ),
        (
            "per-heavy.yaml",
            &traffic("per-heavy", ("HTTPRoute", "heavy"), HEAVY),
        ),
    ])?;
    let daemon = Daemon::start(&netns, policies.path())?;
    Ok(Stage {
        netns,
        daemon,
        _backend: backend,
        _policies: policies,
    })
}

fn number(answer: &Answer, header: &str) -> Result<u64> {
    let text = answer.header(header);
    text.parse()
        .with_context(|| format!("{header} of {answer:?}"))
}

#[test]
fn a_hundred_a_minute_of_a_hundred_and_twenty_at_once() -> Result<()> {
    let stage = stage()?;
    let answers = stage
        .netns
        .enter(|| gets("http://127.0.0.1:8080/", &[], 120))?;
    assert_eq!(count(&answers, 200), 100);
    assert_eq!(count(&answers, 429), 20);

    let mut remaining = Vec::new();
    for answer in &answers {
        assert_eq!(answer.header("x-ratelimit-limit"), "100, 100;w=60");
        let left = number(answer, "x-ratelimit-remaining")?;
        let reset = number(answer, "x-ratelimit-reset")?;
        // A token comes back every 600 ms; what the run itself takes is not more than a few.
        let full_after = ((100 - left) * 600).div_ceil(1000);
        assert!(
            (full_after.saturating_sub(3)..=full_after).contains(&reset),
            "{answer:?}"
        );
        if answer.status == 200 {
            remaining.push(left);
            assert_eq!(answer.header("retry-after"), "");
            assert!(
                answer.text().starts_with("demo backend: GET /"),
                "{}",
                answer.text()
            );
        } else {
            assert_eq!(left, 0);
            assert_eq!(answer.header("retry-after"), "1");
            assert_eq!(answer.text(), "local_rate_limited");
        }
    }
    // Each admitted request saw a count of its own, but for tokens that came back in the meantime.
    remaining.sort_unstable();
    remaining.dedup();
    assert!(remaining.len() >= 95, "{remaining:?}");

    let page = stage.daemon.metrics(&stage.netns)?;
    let decisions = |decision| {
        let labels = [
            ("rule", "default/default/rule/0"),
            ("route", "default/plain"),
            ("decision", decision),
        ];
        page.sum("limiterd_local_rate_limit_total", &labels)
    };
    assert_eq!([decisions("ok"), decisions("over_limit")], [100.0, 20.0]);
    assert!(stage.daemon.stop()?.success());
    Ok(())
}

#[test]
fn users_have_quotas_of_their_own() -> Result<()> {
    let stage = stage()?;
    let ask = |headers: &[(&str, &str)], requests| {
        stage
            .netns
            .enter(|| gets("http://127.0.0.1:8080/users", headers, requests))
    };
    for user in ["alice", "bob"] {
        let answers = ask(&[("x-user-id", user)], 60)?;
        assert_eq!(
            [count(&answers, 200), count(&answers, 429)],
            [50, 10],
            "{user}"
        );
        assert!(
            answers
                .iter()
                .all(|a| a.header("x-ratelimit-limit") == "50, 50;w=60")
        );
    }
    let anonymous = ask(&[], 15)?;
    assert_eq!([count(&anonymous, 200), count(&anonymous, 429)], [10, 5]);
    assert!(
        anonymous
            .iter()
            .all(|a| a.header("x-ratelimit-limit") == "10, 10;w=60")
    );

    // The heavy user meets two rules: both are told, the strictest decides.
    let heavy = ask(&[("x-user-id", "heavy-user-123")], 12)?;
    assert_eq!([count(&heavy, 200), count(&heavy, 429)], [5, 7]);
    assert!(
        heavy
            .iter()
            .all(|a| a.header("x-ratelimit-limit") == "5, 50;w=60, 5;w=60")
    );
    assert!(
        heavy
            .iter()
            .filter(|a| a.status == 429)
            .all(|a| a.header("retry-after") == "12")
    );
    Ok(())
}

#[test]
fn a_heavy_user_meets_his_rule_and_others_keep_the_default() -> Result<()> {
    let stage = stage()?;
    let url = "http://127.0.0.1:8080/heavy";
    let ask = |headers: &[(&str, &str)]| stage.netns.enter(|| gets(url, headers, 30));
    assert_eq!(count(&ask(&[("x-user-id", "heavy-user-123")])?, 200), 10);
    // The default bucket was not touched by him, and is shared by all others.
    assert_eq!(count(&ask(&[("x-user-id", "alice")])?, 200), 20);
    assert_eq!(count(&ask(&[])?, 200), 0);
    Ok(())
}

#[test]
fn http2_in_clear_text_is_limited_alike() -> Result<()> {
    let stage = stage()?;
    let requests = (0..12).map(|_| {
        Request::get("http://127.0.0.1:8080/users/2?q=1")
            .header("te", "trailers")
            .body(Default::default())
    });
    let requests = requests.collect::<Result<_, _>>()?;
    let answers = stage.netns.enter(|| many(Speak::H2c, requests))?;
    assert_eq!([count(&answers, 200), count(&answers, 429)], [10, 2]);
    let passed = answers
        .iter()
        .find(|a| a.status == 200)
        .map(Answer::text)
        .unwrap_or_default();
    for line in [
        "GET /users/2?q=1\n",
        "host: 127.0.0.1:8080\n",
        "te: trailers\n",
        "x-forwarded-for: 127.0.0.1\n",
    ] {
        assert!(passed.contains(line), "{passed}");
    }
    Ok(())
}

#[test]
fn no_route_and_no_upstream_are_told_apart() -> Result<()> {
    let netns = Netns::new("http")?;
    let policies = Policies::new(&[
        ("gateway.yaml", GATEWAY),
        ("api.yaml", &route("api", "/api")),
    ])?;
    let daemon = Daemon::start(&netns, policies.path())?;
    let status = |path: &str| {
        netns.enter(|| {
            Ok(get(&format!("http://127.0.0.1:8080{path}"))?
                .status
                .as_u16())
        })
    };
    assert_eq!(status("/other")?, 404);
    assert_eq!(status("/api")?, 503);
    let _backend = demo_backend(&netns)?;
    assert_eq!(status("/api")?, 200);
    let page = daemon.metrics(&netns)?;
    assert_eq!(page.sum("limiterd_downstream_rq_unrouted_total", &[]), 1.0);
    let class = |class| {
        let labels = [("route", "default/api"), ("response_code_class", class)];
        page.sum("limiterd_downstream_rq_total", &labels)
    };
    assert_eq!([class("2xx"), class("5xx")], [1.0, 1.0]);
    Ok(())
}
