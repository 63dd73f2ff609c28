//! What limiterd adds to rules: other algorithms and bursts, candidates, costs that are found in the
//! response, refunds.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use tests::daemon::demo_backend;
use tests::http_client::Answer;
use tests::netns::Netns;
use tests::policies::{GATEWAY, limited_host};
use tests::raw::{Raw, header, tcp};
use tests::scene::Scene;
use tests::upstream::{Upstream, response};

const BACKEND: &str = tests::daemon::BACKEND;
const TOKENS: &str = "limiterd_rate_limit_response_tokens_total";
const REFUNDED: &str = "limiterd_rate_limit_refunded_tokens_total";
const YEAR: u64 = 365 * 24 * 3600;

fn rule(limit: &str, extension: &str) -> String {
    format!("local: {{rules: [{{limit: {{{limit}}}, limiterd: {{{extension}}}}}]}}")
}

#[expect(clippy::disallowed_methods, reason = "windows begin by the wall clock")]
fn left_of_the_year() -> Result<u64> {
    Ok(YEAR - SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() % YEAR)
}

#[test]
fn bursts_and_windows() -> Result<()> {
    let netns = Netns::new("algorithms")?;
    let _backend = demo_backend(&netns)?;
    let files = [
        ("gateway.yaml", GATEWAY),
        (
            "burst.yaml",
            &limited_host(
                "burst",
                &rule(
                    "requests: 1, unit: Hour",
                    "fillInterval: 3h, tokensPerFill: 2, burst: 4",
                ),
            ),
        ),
        (
            "fixed.yaml",
            &limited_host(
                "fixed",
                &rule("requests: 3, unit: Year", "algorithm: FixedWindow"),
            ),
        ),
        (
            "sliding.yaml",
            &limited_host(
                "sliding",
                &rule("requests: 3, unit: Year", "algorithm: SlidingWindow"),
            ),
        ),
    ];
    let scene = Scene::start(netns, &files)?;
    // A token in an hour and a half.
    for (left, reset) in [
        ("3", "5400"),
        ("2", "10800"),
        ("1", "16200"),
        ("0", "21600"),
    ] {
        let told = scene.get("burst", "/", &[])?;
        scene.expect(&told, 200, ["4, 4;w=10800", left, reset, ""]);
    }
    let told = scene.get("burst", "/", &[])?;
    scene.expect(&told, 429, ["4, 4;w=10800", "0", "21600", "5400"]);

    let window = left_of_the_year()?;
    let [end, next] = [window, window + YEAR].map(|seconds| seconds.to_string());
    let limit = format!("3, 3;w={YEAR}");
    for left in ["2", "1", "0"] {
        let told = scene.get("fixed", "/", &[])?;
        scene.expect(&told, 200, [&limit, left, &end, ""]);
        let told = scene.get("sliding", "/", &[])?;
        scene.expect(&told, 200, [&limit, left, &next, ""]);
    }
    let told = scene.get("fixed", "/", &[])?;
    scene.expect(&told, 429, [&limit, "0", &end, &end]);
    // When a third of the next window is over, the three of this one weigh two.
    let third = (window + YEAR.div_ceil(3)).to_string();
    let told = scene.get("sliding", "/", &[])?;
    scene.expect(&told, 429, [&limit, "0", &next, &third]);
    Ok(())
}

#[test]
fn candidates_count_what_they_would_deny_and_deny_nothing() -> Result<()> {
    let netns = Netns::new("candidates")?;
    let _backend = demo_backend(&netns)?;
    let candidates = "candidates: [{name: half, requests: 5}, {name: twice, burst: 20}]";
    let free = "local: {rules: [
      {clientSelectors: [{headers: [{name: x-vip, value: '1'}]}], limit: {requests: 1, unit: Second}, limiterd: {unlimited: true}},
      {limit: {requests: 1, unit: Hour}}]}";
    let files = [
        ("gateway.yaml", GATEWAY),
        (
            "tried.yaml",
            &limited_host("tried", &rule("requests: 10, unit: Hour", candidates)),
        ),
        ("free.yaml", &limited_host("free", free)),
    ];
    let scene = Scene::start(netns, &files)?;
    let statuses = scene.statuses("tried", &[], 12)?;
    assert_eq!(statuses, [[200; 10].as_slice(), &[429; 2]].concat());
    let told = scene.get("tried", "/", &[])?;
    scene.expect(&told, 429, ["10, 10;w=3600", "0", "3600", "360"]);
    let page = scene.metrics()?;
    for (candidate, wanted) in [("half", [5.0, 8.0]), ("twice", [13.0, 0.0])] {
        let seen = ["ok", "over_limit"].map(|decision| {
            let labels = [
                ("rule", "default/tried/rule/0"),
                ("candidate", candidate),
                ("decision", decision),
            ];
            page.sum("limiterd_rate_limit_candidate_total", &labels)
        });
        assert_eq!(seen, wanted, "{candidate}");
    }

    for _ in 0..3 {
        scene.expect(&scene.get("free", "/", &[("x-vip", "1")])?, 200, [""; 4]);
    }
    assert_eq!(scene.statuses("free", &[], 2)?, [200, 429]);
    let labels = [("rule", "default/free/rule/0"), ("decision", "ok")];
    scene.counted("limiterd_local_rate_limit_total", &labels, 3.0)
}

/// Answers with what the request says, in a header and as JSON.
fn priced(netns: &Netns) -> Result<Upstream> {
    Upstream::start(netns, BACKEND, |seen, client| {
        let tokens = seen.header("x-price");
        let body = format!("{{\"id\": 1, \"usage\": {{\"total_tokens\": {tokens}}}}}");
        let headers = format!("content-type: application/json\r\nx-tokens: {tokens}\r\n");
        client.send(response("200 OK", &headers, &body))?;
        Ok(true)
    })
}

#[test]
fn what_a_response_costs_is_paid_when_it_is_over() -> Result<()> {
    let netns = Netns::new("prices")?;
    let _upstream = priced(&netns)?;
    let extension = [
        ("header", "responseCost: {header: x-tokens}"),
        ("json", "responseCost: {jsonField: usage.total_tokens}"),
    ];
    let routes =
        extension.map(|(name, text)| limited_host(name, &rule("requests: 100, unit: Hour", text)));
    let files = [("gateway.yaml", GATEWAY), ("routes.yaml", &routes.concat())];
    let scene = Scene::start(netns, &files)?;
    for (name, _) in extension {
        let rule = format!("default/{name}/rule/0");
        let labels = [("rule", rule.as_str())];
        let ask = |price| scene.get(name, "/", &[("x-price", price)]);
        for (left, paid) in [("99", 40.0), ("58", 80.0), ("17", 120.0)] {
            let told = ask("40")?;
            assert_eq!(
                (told.status.as_u16(), told.header("x-ratelimit-remaining")),
                (200, left)
            );
            scene.counted(TOKENS, &labels, paid)?;
        }
        // 23 are owed: with the one that the request needs, 24 times 36 seconds.
        scene.expect(&ask("0")?, 429, ["100, 100;w=3600", "0", "4428", "864"]);
    }
    Ok(())
}

#[test]
fn the_end_of_an_event_stream_is_paid_for_and_nothing_is_held_back() -> Result<()> {
    const DELTA: &str = "data: {\"choices\": [{\"delta\": {\"content\": \"Hel\"}}]}\n\n";
    const USAGE: &str =
        "data: {\"choices\": [], \"usage\": {\"prompt_tokens\": 10, \"total_tokens\": 60}}\n\n";
    const DONE: &str = "data: [DONE]\n\n";
    let netns = Netns::new("stream")?;
    let (go, wait) = mpsc::channel();
    let wait = Mutex::new(wait);
    let over = Arc::new(AtomicBool::new(false));
    let told_over = Arc::clone(&over);
    let _upstream = Upstream::start(&netns, BACKEND, move |_, client| {
        client.send(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
             transfer-encoding: chunked\r\n\r\n",
        )?;
        for event in [DELTA, USAGE, DONE] {
            // An event in two pieces.
            let (first, second) = event.split_at(event.len() / 2);
            for piece in [first, second] {
                client.send(format!("{:x}\r\n{piece}\r\n", piece.len()))?;
            }
            let wait = wait.lock().ok().context("poisoned")?;
            wait.recv()?;
        }
        told_over.store(true, Ordering::SeqCst);
        client.send("0\r\n\r\n")?;
        Ok(true)
    })?;
    let llm = limited_host(
        "llm",
        "global: {rules: [{clientSelectors: [{headers: [{name: x-user-id, type: Distinct}]}],
      limit: {requests: 100, unit: Hour},
      cost: {request: {from: Number, number: 0}},
      limiterd: {responseCost: {jsonField: usage.total_tokens, maxBytes: 4096}}}]}",
    );
    let scene = Scene::start(netns, &[("gateway.yaml", GATEWAY), ("llm.yaml", &llm)])?;
    let labels = [("rule", "default/llm/rule/0")];

    let ask = |left: &str, paid: f64| -> Result<()> {
        let mut client = Raw::on(tcp(&scene.netns, "127.0.0.1:8080")?);
        client.send("GET / HTTP/1.1\r\nhost: llm.test\r\nx-user-id: ann\r\n\r\n")?;
        let head = client.head()?.context("closed")?;
        ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(header(&head, "x-ratelimit-remaining"), left);
        over.store(false, Ordering::SeqCst);
        for event in [DELTA, USAGE, DONE] {
            let mut seen = Vec::new();
            while seen.len() < event.len() {
                let chunk = client.chunk()?;
                ensure!(!chunk.is_empty(), "the stream is over");
                seen.extend_from_slice(&chunk);
            }
            // Each event is here before the next one is sent.
            assert_eq!(String::from_utf8(seen)?, event);
            assert!(!over.load(Ordering::SeqCst));
            let so_far = scene.metrics()?.sum(TOKENS, &labels);
            assert_eq!(so_far, paid - 60.0);
            go.send(())?;
        }
        assert!(client.chunk()?.is_empty());
        scene.counted(TOKENS, &labels, paid)
    };
    ask("100", 60.0)?;
    ask("40", 120.0)?;
    // Twenty are owed, and one is needed.
    let told = scene.get("llm", "/", &[("x-user-id", "ann")])?;
    scene.expect(&told, 429, ["100, 100;w=3600", "0", "4320", "756"]);
    // Somebody else has his own.
    let page = scene.metrics()?;
    assert_eq!(
        page.sum("limiterd_rate_limit_unmetered_responses_total", &[]),
        0.0
    );
    Ok(())
}

/// Does what the request says: answers, fails, or breaks off, before its answer or in it (`cut`: when
/// it is told that the client has the first half).
fn unreliable(netns: &Netns, told: mpsc::Receiver<()>) -> Result<Upstream> {
    let told = Mutex::new(told);
    Upstream::start(netns, BACKEND, move |seen, client| {
        let half = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf";
        match seen.header("x-do").as_str() {
            "close" => return Ok(false),
            "break" => {
                client.send(half)?;
                return Ok(false);
            }
            "cut" => {
                client.send(half)?;
                told.lock().ok().context("poisoned")?.recv()?;
                return Ok(false);
            }
            "fail" => client.send(response("500 Internal Server Error", "", "sorry"))?,
            _ => client.send(response("200 OK", "", "fine"))?,
        }
        Ok(true)
    })
}

#[test]
fn who_got_nothing_gets_his_tokens_back() -> Result<()> {
    let netns = Netns::new("refunds")?;
    let (go, told) = mpsc::channel();
    let _upstream = unreliable(&netns, told)?;
    let limit = "requests: 2, unit: Hour";
    let routes = limited_host("upstream", &rule(limit, "refundOn: [UpstreamFailure]"))
        + &limited_host("server", &rule(limit, "refundOn: [ServerError]"))
        + &limited_host("none", &rule(limit, "burst: 2"));
    let scene = Scene::start(
        netns,
        &[("gateway.yaml", GATEWAY), ("routes.yaml", &routes)],
    )?;
    let doing = |name, what: &str, count| scene.statuses(name, &[("x-do", what)], count);
    let refunded = |name: &str, wanted| {
        scene.counted(
            REFUNDED,
            &[("rule", &format!("default/{name}/rule/0"))],
            wanted,
        )
    };

    assert_eq!(doing("upstream", "close", 3)?, [502; 3]);
    refunded("upstream", 3.0)?;
    let begin = |what: &str| -> Result<Raw> {
        let mut client = Raw::on(tcp(&scene.netns, "127.0.0.1:8080")?);
        client.send(format!(
            "GET / HTTP/1.1\r\nhost: upstream.test\r\nx-do: {what}\r\n\r\n"
        ))?;
        Ok(client)
    };
    for count in [4.0, 5.0] {
        let mut client = begin("cut")?;
        let head = client.head()?.context("closed")?;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(client.bytes(4)?, b"half");
        go.send(())?;
        assert!(client.bytes(1).is_err());
        refunded("upstream", count)?;
    }
    // Where the end comes with the beginning, the client may see neither.
    let mut client = begin("break")?;
    assert!(!matches!(client.head(), Ok(Some(_))) || client.bytes(8).is_err());
    refunded("upstream", 6.0)?;
    assert_eq!(doing("upstream", "fail", 1)?, [500]);
    assert_eq!(doing("upstream", "answer", 2)?, [200, 429]);

    assert_eq!(doing("server", "fail", 3)?, [500; 3]);
    refunded("server", 3.0)?;
    assert_eq!(doing("server", "close", 1)?, [502]);
    assert_eq!(doing("server", "answer", 2)?, [200, 429]);

    assert_eq!(doing("none", "close", 1)?, [502]);
    assert_eq!(doing("none", "fail", 2)?, [500, 429]);
    let told: Answer = scene.get("none", "/", &[("x-do", "answer")])?;
    scene.expect(&told, 429, ["2, 2;w=3600", "0", "3600", "1800"]);
    refunded("none", 0.0)
}
