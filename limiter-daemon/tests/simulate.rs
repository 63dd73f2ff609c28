//! Logs and captures replayed against policy files: who is limited, when, by which rule.

#![expect(clippy::unwrap_used, reason = "a helper that fails, fails the test")]

mod policy_support;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etherparse::PacketBuilder;
use flate2::Compression;
use flate2::write::GzEncoder;
use limiter_daemon::simulate::{self, Policy, Report, Settings, SimulateError};
use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use policy_support::{Scratch, good};

const GATEWAY: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: eg}
spec:
  gatewayClassName: limiterd
  listeners: [{name: http, protocol: HTTP, port: 8080}]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: demo}
spec: {endpoints: [{ip: {address: 127.0.0.1, port: 3000}}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: api}
spec:
  parentRefs: [{name: eg}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /api}}]
    backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: demo}]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {name: p}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: api}]
  rateLimit:
    local:
      rules:
";
/// Each client.
const CLIENTS: &str = "      - clientSelectors: [{sourceCIDR: {value: 0.0.0.0/0, type: Distinct}}]
        limit: {requests: NUMBER, unit: UNIT}\n";
/// Each value of a header.
const USERS: &str = "      - clientSelectors: [{headers: [{name: x-user-id, type: Distinct}]}]
        limit: {requests: 1, unit: Hour}\n";

struct Scene(Scratch);

impl Scene {
    fn new(name: &str) -> Self {
        Self(Scratch::new(&format!("simulate-{name}")))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.0.join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn policy(&self, name: &str, rules: &str) -> Policy {
        let path = self.write(&format!("{name}.yaml"), &format!("{GATEWAY}{rules}"));
        Policy {
            name: name.to_owned(),
            plan: good(path.to_str().unwrap()),
        }
    }
}

fn clients(number: u64, unit: &str) -> String {
    CLIENTS
        .replace("NUMBER", &number.to_string())
        .replace("UNIT", unit)
}

fn try_replay(
    policy: &Policy,
    against: Option<&Policy>,
    logs: &[PathBuf],
) -> Result<Report, SimulateError> {
    let settings = Settings {
        policy,
        against,
        logs,
        host: "",
        top: 10,
    };
    simulate::run(&settings, &mut |_| {})
}

#[track_caller]
fn replay(policy: &Policy, against: Option<&Policy>, logs: &[PathBuf]) -> Report {
    try_replay(policy, against, logs).unwrap()
}

/// A line of `combined`, `second` seconds after 22:00.
fn combined(client: &str, second: u64, path: &str) -> String {
    let (minute, second) = (second / 60, second % 60);
    format!(
        "{client} - - [25/Nov/2026:22:{minute:02}:{second:02} +0000] \"GET {path} HTTP/1.1\" 200 5 \"-\" \"ua\"\n"
    )
}

/// A line of JSON.
fn json(second: f64, rest: &str) -> String {
    format!(
        "{{\"start_time\":\"2026-11-25T22:00:{second:06.3}Z\",\"method\":\"GET\",\"path\":\"/api\",\"client\":\"192.0.2.1\"{rest}}}\n"
    )
}

#[test]
fn the_logs_own_times_fill_the_buckets() {
    let scene = Scene::new("times");
    let policy = scene.policy("p", &clients(2, "Minute"));
    // Two at once; the third is over. 30 s bring one back.
    let seconds = [0, 0, 0, 29, 30, 30, 120, 120, 120];
    let lines: String = seconds
        .iter()
        .map(|second| combined("192.0.2.1", *second, "/api"))
        .collect();
    let lines = lines + &combined("192.0.2.2", 121, "/api") + &combined("192.0.2.2", 121, "/x");
    let log = scene.write("access.log", &lines);
    let report = replay(&policy, None, &[log]);
    assert_eq!(report.from.as_deref(), Some("2026-11-25T22:00:00.000Z"));
    assert_eq!(report.to.as_deref(), Some("2026-11-25T22:02:01.000Z"));
    let found = &report.policy;
    assert_eq!((found.requests, found.admitted), (11, 6));
    assert_eq!((found.limited, found.no_route), (4, 1));
    let [rule] = &*found.rules else {
        panic!("one rule: {:?}", found.rules);
    };
    assert_eq!((&*rule.rule, rule.limited), ("default/p/rule/0", 4));
    assert_eq!(rule.first.as_deref(), Some("2026-11-25T22:00:00.000Z"));
    assert_eq!(rule.last.as_deref(), Some("2026-11-25T22:02:00.000Z"));
    let [client] = &*found.clients.most else {
        panic!("one client: {:?}", found.clients);
    };
    assert_eq!((&*client.client, client.limited), ("192.0.2.1", 4));
    let limited: u64 = found.limited_over_time.counts.iter().sum();
    assert_eq!(limited, 4);
    let host = report
        .notes
        .iter()
        .any(|note| note.contains("have no host"));
    assert!(host, "{:?}", report.notes);
}

#[test]
fn requests_are_decided_in_the_order_in_which_they_began() {
    let scene = Scene::new("order");
    let policy = scene.policy("p", &clients(1, "Hour"));
    // The one that began first took longest: it is the one that is admitted.
    let slow = json(
        1.0,
        ",\"duration\":9000,\"rate_limit\":{\"decision\":\"ok\",\"rule\":\"default/p/rule/0\"}",
    );
    let fast = json(
        2.0,
        ",\"duration\":1,\"rate_limit\":{\"decision\":\"over_limit\",\"rule\":\"default/p/rule/0\"}",
    );
    let log = scene.write("access.log", &(fast.clone() + &slow));
    let report = replay(&policy, None, &[log]);
    let logged = report.logged.unwrap();
    assert_eq!((logged.requests, logged.same), (2, 2));
    // The same from two files, of which one is compressed.
    let first = scene.write("a.log", &fast);
    let second = scene.path("b.log.gz");
    let mut gz = GzEncoder::new(File::create(&second).unwrap(), Compression::fast());
    gz.write_all(slow.as_bytes()).unwrap();
    gz.finish().unwrap();
    let report = replay(&policy, None, &[first, second]);
    assert_eq!(report.logged.unwrap().same, 2);
}

#[test]
fn headers_are_taken_from_the_log_or_missed_aloud() {
    let scene = Scene::new("headers");
    let policy = scene.policy("p", USERS);
    let user = |second, user: &str| json(second, &format!(",\"x_user_id\":\"{user}\""));
    let log = scene.write(
        "with.log",
        &(user(1.0, "alice") + &user(2.0, "bob") + &user(3.0, "alice") + &json(4.0, "")),
    );
    let report = replay(&policy, None, &[log]);
    assert_eq!(report.policy.limited, 1);
    let [bucket] = &*report.policy.buckets.most else {
        panic!("one bucket");
    };
    assert_eq!((&*bucket.bucket, bucket.limited), ("x-user-id=alice", 1));
    let missed = |report: &Report| {
        report
            .notes
            .iter()
            .any(|note| note.contains("never have the header x-user-id"))
    };
    assert!(!missed(&report), "{:?}", report.notes);
    let log = scene.write("without.log", &combined("192.0.2.1", 0, "/api"));
    let report = replay(&policy, None, &[log]);
    assert!(missed(&report), "{:?}", report.notes);
    assert_eq!(report.policy.admitted, 1);
}

/// Tokens come back at the time when the log says that a response was over, and not before.
#[test]
fn failures_give_tokens_back_when_they_were_seen() {
    let scene = Scene::new("refunds");
    let rules =
        clients(1, "Hour") + "        limiterd: {refundOn: [UpstreamFailure, ServerError]}\n";
    let policy = scene.policy("p", &rules);
    let failed = |second, rest: &str| json(second, &format!(",\"duration\":2000,{rest}"));
    for (rest, limited) in [
        ("\"response_code\":503,\"response_flags\":\"UF\"", 1),
        ("\"response_code\":500", 1),
        ("\"response_code\":200", 2),
        // Nobody knows what the upstream would have said.
        ("\"response_code\":429,\"response_flags\":\"RL\"", 2),
    ] {
        let lines = failed(1.0, rest) + &json(2.0, "") + &json(3.5, "");
        let log = scene.write("access.log", &lines);
        let report = replay(&policy, None, &[log]);
        assert_eq!(report.policy.limited, limited, "{rest}");
    }
}

#[test]
fn rules_in_shadow_and_candidates_are_counted_beside() {
    let scene = Scene::new("shadow");
    let candidates = "        limiterd: {candidates: [{name: tight, requests: 1}]}\n";
    let rules = clients(3, "Hour")
        + candidates
        + &clients(2, "Hour").replace("        limit:", "        shadowMode: true\n        limit:");
    let policy = scene.policy("p", &rules);
    let lines: String = (0..4)
        .map(|second| combined("192.0.2.1", second, "/api"))
        .collect();
    let log = scene.write("access.log", &lines);
    let report = replay(&policy, None, &[log]);
    assert_eq!((report.policy.admitted, report.policy.limited), (3, 1));
    let of = |rule: &str, candidate: &str| {
        let mut rules = report.policy.rules.iter();
        let found = rules.find(|one| one.rule == rule && one.candidate == candidate);
        found
            .map(|one| (one.admitted, one.limited, one.shadow_limited))
            .unwrap()
    };
    assert_eq!(of("default/p/rule/0", ""), (3, 1, 0));
    assert_eq!(of("default/p/rule/0", "tight"), (1, 3, 0));
    assert_eq!(of("default/p/rule/1", ""), (2, 0, 1));
}

#[test]
fn rules_of_one_name_have_times_of_their_own() {
    let scene = Scene::new("names");
    let both = clients(1, "Hour")
        + "    global:\n      rules:\n      - limit: {requests: 2, unit: Hour}\n";
    let policy = scene.policy("p", &both);
    // The client's own limit, then that of all, both rule 0.
    let lines = [
        ("192.0.2.1", 0),
        ("192.0.2.1", 1),
        ("192.0.2.2", 2),
        ("192.0.2.3", 3),
    ];
    let lines = lines.map(|(client, second)| combined(client, second, "/api"));
    let log = scene.write("access.log", &lines.concat());
    let report = replay(&policy, None, &[log]);
    for (reach, at) in [("local", "22:00:01"), ("global", "22:00:03")] {
        let mut rules = report.policy.rules.iter();
        let rule = rules.find(|rule| rule.reach == reach).unwrap();
        assert_eq!((&*rule.rule, rule.limited), ("default/p/rule/0", 1));
        let at = format!("2026-11-25T{at}.000Z");
        assert_eq!((&rule.first, &rule.last), (&Some(at.clone()), &Some(at)));
    }
}

#[test]
fn two_policies_are_compared() {
    let scene = Scene::new("compare");
    let strict = scene.policy("strict", &clients(2, "Hour"));
    let loose = scene.policy("loose", &clients(4, "Hour"));
    let mut lines = String::new();
    for second in 0..5 {
        lines += &combined("192.0.2.1", second, "/api");
    }
    for second in 5..8 {
        lines += &combined("192.0.2.2", second, "/api");
    }
    let log = scene.write("access.log", &lines);
    let report = replay(&strict, Some(&loose), &[log]);
    let found = report.comparison.as_ref().unwrap();
    assert_eq!(found.limited_by_both, 1);
    assert_eq!(found.only_policy.requests, 3);
    assert_eq!(found.only_policy.rules["default/p/rule/0"], 3);
    assert_eq!(found.only_against.requests, 0);
    let clients = found.only_policy.clients.most.iter();
    let clients: Vec<_> = clients.map(|one| (&*one.client, one.limited)).collect();
    assert_eq!(clients, [("192.0.2.1", 2), ("192.0.2.2", 1)]);
    assert_eq!(report.policy.limited, 4);
    assert_eq!(report.against.as_ref().unwrap().limited, 1);
    let page = simulate::html(&report);
    for wanted in [
        "Limited only by strict",
        "192.0.2.2",
        "<svg",
        "strict against",
    ] {
        let plain = page.replace("<b>", "").replace("</b>", "");
        assert!(plain.contains(wanted), "{wanted}");
    }
}

#[test]
fn lines_that_cannot_be_read_are_counted_and_the_first_named() {
    let scene = Scene::new("unreadable");
    let policy = scene.policy("p", &clients(1, "Hour"));
    let mut lines = combined("192.0.2.1", 0, "/api") + "\n";
    for _ in 0..9 {
        lines += "nonsense\n";
    }
    lines += &"x".repeat((1 << 20) + 5);
    lines += "\n";
    lines += &combined("192.0.2.1", 1, "/api/<script>");
    let log = scene.write("access.log", &lines);
    let report = replay(&policy, None, std::slice::from_ref(&log));
    assert_eq!((report.lines.requests, report.lines.unreadable), (2, 10));
    assert_eq!(report.policy.limited, 1);
    let first = format!("{}:3: it is in none of the formats", log.display());
    assert_eq!(report.lines.first_unreadable.len(), 5);
    assert!(report.lines.first_unreadable[0].starts_with(&first));
    // Of a file that breaks off what was read is not passed off as all of it.
    let cut = scene.path("cut.log.gz");
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    for second in 0..3000 {
        gz.write_all(combined("192.0.2.1", second, "/api").as_bytes())
            .unwrap();
    }
    let whole = gz.finish().unwrap();
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let error = try_replay(&policy, None, &[cut]).unwrap_err().to_string();
    assert!(error.contains("cut.log.gz after line "), "{error}");
    let none = try_replay(&policy, None, &[scene.path("none")]).unwrap_err();
    assert!(none.to_string().starts_with("cannot open "), "{none}");
}

#[test]
fn what_logs_say_is_escaped_in_the_page() {
    let scene = Scene::new("page");
    let policy = scene.policy("p", USERS);
    let evil = json(1.0, ",\"x-user-id\":\"<script>alert(1)</script>\"");
    let log = scene.write("access.log", &(evil.clone() + &evil));
    let report = replay(&policy, None, &[log]);
    assert_eq!(report.policy.limited, 1);
    let page = simulate::html(&report);
    assert!(page.contains("x-user-id=&lt;script&gt;alert(1)"), "{page}");
    assert!(!page.contains("<script"), "{page}");
    for outside in ["http://", "https://", "url(", "src="] {
        assert!(!page.contains(outside), "{outside}");
    }
}

const NETWORK: &str = "\
apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: {name: limiterd}
spec: {interfaces: [{name: lo}]}
---
apiVersion: limiterd.io/v1alpha1
kind: NetworkRateLimitPolicy
metadata: {name: web}
spec:
  ports: [{protocol: TCP, port: 443}]
  levels:
  - connections: {maxTokens: 2, tokensPerFill: 1, fillInterval: 10s}
";

fn capture(path: &Path, link: DataLink, packets: &[(u64, &str)]) {
    let header = PcapHeader {
        datalink: link,
        ..PcapHeader::default()
    };
    let mut writer = PcapWriter::with_header(File::create(path).unwrap(), header).unwrap();
    for (second, source) in packets {
        let source: std::net::Ipv4Addr = source.parse().unwrap();
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4(source.octets(), [192, 0, 2, 10], 64)
            .tcp(4711, 443, 1, 1024)
            .syn()
            .write(&mut frame, &[])
            .unwrap();
        let data = if link == DataLink::RAW {
            &frame[14..]
        } else {
            &frame[..]
        };
        let length = u32::try_from(data.len()).unwrap();
        let at = Duration::from_secs(1_795_646_400 + second);
        writer
            .write_packet(&PcapPacket::new(at, length, data))
            .unwrap();
    }
}

/// Real packets through the program that the kernel runs; needs to be root, as all tests of it do.
#[test]
fn captures_go_through_the_kernels_program() {
    let scene = Scene::new("capture");
    let path = scene.write("network.yaml", NETWORK);
    let policy = Policy {
        name: "network".to_owned(),
        plan: good(path.to_str().unwrap()),
    };
    // Two at once; 10 s bring one back.
    let one = [0, 0, 0, 0, 5, 10, 11].map(|second| (second, "198.51.100.1"));
    let frames = scene.path("frames.pcap");
    capture(&frames, DataLink::ETHERNET, &one);
    let raw = scene.path("raw.pcap");
    capture(
        &raw,
        DataLink::RAW,
        &[
            (3, "198.51.100.2"),
            (4, "198.51.100.2"),
            (5, "198.51.100.2"),
        ],
    );
    let report = replay(&policy, None, &[frames, raw]);
    let found = report.packets.as_ref().unwrap();
    assert_eq!((found.packets, found.passed, found.dropped), (10, 5, 5));
    assert_eq!((found.unreadable, found.cut), (0, 0));
    let sources = found.sources.most.iter();
    let sources: Vec<_> = sources
        .map(|one| (&*one.source, one.port, one.dropped))
        .collect();
    assert_eq!(
        sources,
        [("198.51.100.1", 443, 4), ("198.51.100.2", 443, 1)]
    );
    let dropped: Vec<_> = found.reasons.iter().filter(|one| one.dropped).collect();
    let [reason] = &*dropped else {
        panic!("one reason: {dropped:?}");
    };
    assert_eq!(
        (reason.policy.as_deref(), reason.reason),
        (Some("default/web"), "over_connections")
    );
    assert_eq!(reason.packets, 5);
    assert!(simulate::html(&report).contains("over_connections"));
}
