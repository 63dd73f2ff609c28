//! The order in which a request is judged: local limits, global limits, the circuit breaker, and then
//! it is tried, and tried again.

use anyhow::Result;
use tests::netns::Netns;
use tests::scripted::{Script, Scripted};

use super::support::{Host, stage, told};

const BUSY: Script = Script::Answer("503 Busy", "");

fn limit(kind: &str, requests: u32, more: &str) -> String {
    format!("    {kind}: {{rules: [{{limit: {{requests: {requests}, unit: Year}}{more}}}]}}\n")
}

/// Limits, and room for one request at a time.
fn policy(limits: &str) -> String {
    format!("  rateLimit:\n{limits}  circuitBreaker: {{maxParallelRequests: 1}}\n")
}

#[test]
fn limits_come_before_the_breaker_and_the_local_one_before_the_global_one() -> Result<()> {
    let netns = Netns::new("order")?;
    let backend = Scripted::start(&netns, "127.0.0.1:3001")?;
    let local = policy(&(limit("local", 2, "") + &limit("global", 10, "")));
    let global = policy(&(limit("local", 10, "") + &limit("global", 2, "")));
    let hosts = [
        ("local", &[3001][..], local.as_str()),
        ("global", &[3001], &global),
    ];
    let scene = stage(netns, &hosts)?;
    for (round, name) in (1..).zip(["local", "global"]) {
        let host = Host::new(&scene, name);
        backend.plays(Script::Hold);
        let mut first = host.send("GET /", "", "")?;
        backend.came(round)?;
        // Within the limits: it has paid before the breaker refuses it.
        let refused = host.get()?;
        assert!(refused.is_overloaded(), "{refused:?}");
        assert_eq!(refused.header("x-ratelimit-remaining"), "0");
        // Over them, it is not the breaker's to refuse, though there is no room.
        for _ in 0..3 {
            let limited = host.get()?;
            assert_eq!(limited.status, 429);
            let by = format!(
                "{}rate_limited",
                if name == "local" { "local_" } else { "" }
            );
            assert_eq!(limited.body, by);
        }
        host.expect(&[
            ("upstream_rq_pending_overflow", 1),
            ("upstream_rq_active", 1),
        ]);
        backend.release(1);
        assert_eq!(told(&mut first)?.status, 200);
        // Over the limits, it takes no place.
        assert_eq!(host.get()?.status, 429);
        host.rests()?;
        host.expect(&[("upstream_rq_total", 1)]);
    }
    assert_eq!(backend.counts().requests, 2);
    Ok(())
}

#[test]
fn who_is_refused_by_the_breaker_has_paid_unless_the_rule_gives_it_back() -> Result<()> {
    let netns = Netns::new("refund")?;
    let backend = Scripted::start(&netns, "127.0.0.1:3001")?;
    let pays = policy(&limit("local", 5, ""));
    let refunds = policy(&limit("local", 5, ", limiterd: {refundOn: [Overload]}"));
    let hosts = [
        ("pays", &[3001][..], pays.as_str()),
        ("refunds", &[3001], &refunds),
    ];
    let scene = stage(netns, &hosts)?;
    for (round, (name, left)) in (1..).zip([("pays", "0"), ("refunds", "3")]) {
        let host = Host::new(&scene, name);
        backend.plays(Script::Hold);
        let mut first = host.send("GET /", "", "")?;
        backend.came(2 * round - 1)?;
        for _ in 0..3 {
            assert!(host.get()?.is_overloaded());
        }
        backend.release(1);
        assert_eq!(told(&mut first)?.status, 200);
        host.rests()?;
        backend.plays(Script::Echo);
        let last = host.get()?;
        assert_eq!(
            (last.status, last.header("x-ratelimit-remaining").as_str()),
            (200, left)
        );
    }
    Ok(())
}

#[test]
fn a_retry_takes_a_place_of_the_breaker_and_no_second_token() -> Result<()> {
    let netns = Netns::new("token")?;
    let backend = Scripted::start(&netns, "127.0.0.1:3001")?;
    let limits = limit("local", 5, "") + &limit("global", 9, "");
    let quick = policy(&limits)
        + "  retry: {numRetries: 3, retryOn: {triggers: [5xx]}, perRetry: {backOff: {baseInterval: 1ms}}}\n";
    let long = policy(&limit("local", 5, "")) + "  retry: {retryOn: {triggers: [5xx]}}\n";
    let hosts = [
        ("quick", &[3001][..], quick.as_str()),
        ("long", &[3001], &long),
    ];
    let scene = stage(netns, &hosts)?;
    let quick = Host::new(&scene, "quick");
    for left in (0..5).rev() {
        backend.next([BUSY; 3]);
        let answer = quick.get()?;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-ratelimit-remaining"), left.to_string());
    }
    assert_eq!(quick.get()?.status, 429);
    assert_eq!(backend.counts().requests, 20);
    quick.rests()?;
    quick.expect(&[("upstream_rq_total", 20), ("upstream_rq_retry", 15)]);

    // While it waits for its next attempt it has no place; and there may be none for that.
    let long = Host::new(&scene, "long");
    backend.next([
        Script::Answer("503 Busy", "retry-after: 6\r\n"),
        Script::Hold,
    ]);
    let mut first = long.send("GET /first", "", "")?;
    long.becomes("upstream_rq_retry_active", 1)?;
    let mut second = long.send("GET /second", "", "")?;
    backend.came(22)?;
    let refused = told(&mut first)?;
    assert!(refused.is_overloaded(), "{refused:?}");
    assert_eq!(refused.header("x-ratelimit-remaining"), "4");
    backend.release(1);
    let answer = told(&mut second)?;
    assert_eq!(
        (
            answer.status,
            answer.header("x-ratelimit-remaining").as_str()
        ),
        (200, "3")
    );
    long.rests()?;
    long.expect(&[
        ("upstream_rq_pending_overflow", 1),
        ("upstream_rq_retry", 1),
        ("upstream_rq_total", 2),
        ("upstream_rq_retry_backoff_ratelimited", 1),
    ]);
    Ok(())
}

#[test]
fn what_a_limit_refuses_is_not_sent_to_an_endpoint_that_fails_either() -> Result<()> {
    let netns = Netns::new("last")?;
    let backend = Scripted::start(&netns, "127.0.0.1:3001")?;
    let refunds = policy(&limit(
        "local",
        1,
        ", limiterd: {refundOn: [UpstreamFailure]}",
    ));
    let scene = stage(netns, &[("one", &[3001], &refunds)])?;
    let one = Host::new(&scene, "one");
    // The failure of a backend is none of the client's: it has its token back.
    for script in [Script::Reset, Script::Close, Script::Garbage] {
        backend.next([script]);
        assert_eq!(one.get()?.status, 502);
    }
    assert_eq!(one.get()?.status, 200);
    assert_eq!(one.get()?.status, 429);
    assert_eq!(backend.counts().requests, 4);
    one.rests()
}
