//! Retries: what is sent again, where, how often, and what never is.

use anyhow::Result;
use tests::netns::Netns;
use tests::scripted::{Script, Scripted};

use super::support::{Host, stage};

const BUSY: Script = Script::Answer("503 Busy", "");
/// Of one attempt, quickly.
const QUICK: &str = "backOff: {baseInterval: 1ms}";

fn retries(said: &str) -> String {
    format!("  retry: {{{said}}}\n")
}

#[test]
fn a_failure_is_not_noticed_and_too_many_are() -> Result<()> {
    let netns = Netns::new("retry")?;
    let backend = Scripted::start(&netns, "127.0.0.1:3001")?;
    let spec = retries(&format!(
        "numRetries: 2, retryOn: {{triggers: [gateway-error, reset]}}, perRetry: {{{QUICK}}}"
    ));
    let scene = stage(netns, &[("twice", &[3001], &spec)])?;
    let twice = Host::new(&scene, "twice");
    let mut sent = 0;
    for (script, last) in [
        (BUSY, 503),
        (Script::Reset, 502),
        (Script::Close, 502),
        (Script::Garbage, 502),
    ] {
        for failures in 0..=3 {
            backend.next([script].repeat(failures));
            let wanted = if failures == 3 { last } else { 200 };
            // A body goes with each attempt, also after POST: the policy names what is retried.
            let answer = twice.ask("POST /", "", "the whole body")?;
            assert_eq!(answer.status, wanted, "{script:?} {failures} {answer:?}");
            if wanted == 200 {
                assert_eq!(answer.body, "the whole body");
            }
            sent += (failures + 1).min(3);
            assert_eq!(backend.counts().requests, sent, "{script:?} {failures}");
        }
    }
    twice.rests()?;
    twice.expect(&[
        ("upstream_rq_retry", 20),
        ("upstream_rq_retry_success", 8),
        ("upstream_rq_retry_limit_exceeded", 4),
        ("upstream_rq_retry_backoff_exponential", 20),
    ]);
    assert!(
        backend
            .seen()
            .iter()
            .all(|seen| seen.body == b"the whole body")
    );
    Ok(())
}

#[test]
fn what_may_have_been_done_is_only_done_again_if_the_policy_says_so() -> Result<()> {
    let netns = Netns::new("post")?;
    let backend = Scripted::start(&netns, "127.0.0.1:3001")?;
    let careful = retries(&format!("perRetry: {{{QUICK}}}"));
    let scene = stage(netns, &[("careful", &[3001], &careful)])?;
    let careful = Host::new(&scene, "careful");
    for (line, wanted) in [
        ("GET /", 200),
        ("PUT /", 200),
        ("DELETE /", 200),
        ("POST /", 503),
        ("PATCH /", 503),
    ] {
        backend.next([BUSY]);
        assert_eq!(careful.ask(line, "", "x")?.status, wanted, "{line}");
    }
    // Not even those: an answer with 500 is none that is retried by default.
    backend.next([Script::Answer("500 Broken", "")]);
    assert_eq!(careful.get()?.status, 500);
    careful.rests()
}

#[test]
fn another_endpoint_is_tried_next_and_none_twice() -> Result<()> {
    let netns = Netns::new("other")?;
    let ports = [3001, 3002, 3003, 3004, 3005];
    let backends: Vec<_> = ports
        .iter()
        .map(|port| Scripted::start(&netns, &format!("127.0.0.1:{port}")))
        .collect::<Result<_>>()?;
    let spec = retries(&format!(
        "numRetries: 4, retryOn: {{triggers: [connect-failure, reset, gateway-error]}}, perRetry: {{{QUICK}}}"
    ));
    let scene = stage(netns, &[("five", &ports, &spec)])?;
    let five = Host::new(&scene, "five");
    for lives in 0..backends.len() {
        for (number, backend) in backends.iter().enumerate() {
            match (lives + number) % 5 {
                _ if number == lives => backend.plays(Script::Echo),
                1 => backend.plays(BUSY),
                2 => backend.plays(Script::Reset),
                3 => backend.plays(Script::Garbage),
                _ => backend.down(),
            }
        }
        for _ in 0..20 {
            let answer = five.ask("PUT /", "", "hello")?;
            assert_eq!(
                (answer.status, answer.body.as_str()),
                (200, "hello"),
                "{lives}"
            );
        }
        for backend in &backends {
            backend.up(&scene.netns)?;
        }
    }
    five.rests()
}

#[test]
fn an_attempt_that_takes_too_long_is_given_up_for_another() -> Result<()> {
    let netns = Netns::new("slow")?;
    let backend = Scripted::start(&netns, "127.0.0.1:3001")?;
    let spec = retries(&format!(
        "retryOn: {{triggers: [reset]}}, perRetry: {{timeout: 100ms, {QUICK}}}"
    ));
    let scene = stage(netns, &[("slow", &[3001], &spec)])?;
    let slow = Host::new(&scene, "slow");
    backend.next([Script::Stall, Script::Stall]);
    assert_eq!(slow.get()?.status, 200);
    slow.rests()?;
    slow.expect(&[("upstream_rq_per_try_timeout", 2)]);
    backend.wait_for(|counts| counts.open == 1)?;
    Ok(())
}

#[test]
fn an_answer_that_has_begun_is_never_replaced() -> Result<()> {
    let netns = Netns::new("begun")?;
    let backend = Scripted::start(&netns, "127.0.0.1:3001")?;
    let spec = retries(&format!(
        "retryOn: {{triggers: [reset, 5xx]}}, perRetry: {{{QUICK}}}"
    ));
    let scene = stage(netns, &[("begun", &[3001], &spec)])?;
    let begun = Host::new(&scene, "begun");
    for script in [Script::HalfAnswer, Script::ResetAnswer] {
        let before = backend.counts().requests;
        backend.next([script]);
        assert!(begun.get().is_err(), "{script:?}");
        assert_eq!(backend.counts().requests, before + 1);
    }
    begun.rests()
}

#[test]
fn retries_are_bounded_by_number_by_budget_and_by_what_is_asked_for() -> Result<()> {
    let netns = Netns::new("budget")?;
    let backend = Scripted::start(&netns, "127.0.0.1:3001")?;
    let none =
        retries("retryOn: {triggers: [5xx]}") + "  circuitBreaker: {maxParallelRetries: 0}\n";
    let long = retries("retryOn: {triggers: [5xx]}");
    let hosts = [
        ("none", &[3001][..], none.as_str()),
        ("long", &[3001], &long),
    ];
    let scene = stage(netns, &hosts)?;
    let none = Host::new(&scene, "none");
    backend.plays(BUSY);
    assert_eq!(none.get()?.status, 503);
    assert_eq!(backend.counts().requests, 1);
    none.becomes("upstream_rq_retry_active", 0)?;
    none.expect(&[("upstream_rq_retry_overflow", 1), ("upstream_rq_retry", 0)]);

    // Who asks for more time than is reasonable is not asked again; the client can wait.
    let long = Host::new(&scene, "long");
    backend.plays(Script::Answer("503 Busy", "retry-after: 3600\r\n"));
    let answer = long.get()?;
    assert_eq!(
        (answer.status, answer.header("retry-after").as_str()),
        (503, "3600")
    );
    assert_eq!(backend.counts().requests, 2);
    // A body that is longer than what is kept of one is sent once.
    backend.plays(BUSY);
    let answer = long.ask("PUT /", "", &".".repeat(100_000))?;
    assert_eq!(answer.status, 503);
    assert_eq!(backend.counts().requests, 3);
    long.rests()?;
    long.expect(&[("upstream_rq_retry", 0), ("retry_or_shadow_abandoned", 1)]);
    Ok(())
}
