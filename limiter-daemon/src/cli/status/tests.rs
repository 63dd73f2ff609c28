//! Judgements of what daemons say, and how they are told.

use super::facts::{Facts, Look};
use super::tell::WIDTH;
use super::{State, judge, tell};
use crate::admin::node::{
    BlocksView, FleetView, InterfaceView, KernelView, LastReadView, MemberView, NodeView,
    PolicyView, StoreView,
};
use crate::cli::paint::Paint;
use crate::cli::top::page::Page;

const WELL: &str = r#"
limiterd_downstream_cx_active 7
limiterd_downstream_rq_total{route="shop/api",response_code_class="2xx"} 100
limiterd_local_rate_limit_total{rule="shop/p/rule/0",route="shop/api",decision="ok"} 100
limiterd_local_rate_limit_total{rule="shop/p/rule/0",route="shop/api",decision="over_limit"} 10
limiterd_buckets_capacity 1024
limiterd_buckets_live 3
limiterd_xdp_slots 65536
limiterd_xdp_slots_used{state="live"} 12
limiterd_xdp_slots_used{state="kept"} 3
limiterd_xdp_packets_total{policy="shop/net",level="0",reason="over_connections",mode="enforced",verdict="dropped"} 5
limiterd_store_state{store="main"} 0
limiterd_store_connections{store="main"} 4
envoy_cluster_membership_total{envoy_cluster_name="shop/web",policy="shop/b"} 2
envoy_cluster_membership_healthy{envoy_cluster_name="shop/web",policy="shop/b"} 2
"#;

fn node() -> NodeView {
    NodeView {
        name: "edge-1".to_owned(),
        version: "0.1.0".to_owned(),
        started: "2026-11-25T20:00:00Z".to_owned(),
        uptime_seconds: 7_260,
        phase: "serving".to_owned(),
        ready: true,
        report: vec!["ready".to_owned()],
        policy: PolicyView {
            directory: "/etc/limiterd".to_owned(),
            fingerprint: "0123456789abcdef".to_owned(),
            in_force_since: "2026-11-25T22:00:00.123Z".to_owned(),
            generation: 3,
            watching: true,
            restart_pending: false,
            last_read: LastReadView {
                at: "2026-11-25T22:00:00.123Z".to_owned(),
                trigger: "file change".to_owned(),
                applied: true,
                ..LastReadView::default()
            },
        },
        listeners: Vec::new(),
        kernel: Some(KernelView {
            interfaces: vec![interface("eth0", Some("native"))],
        }),
        store: Some(StoreView {
            address: "redis:6379".to_owned(),
            breaker: "closed".to_owned(),
            connections: 4,
            fleet_connected: true,
            nodes: 1,
        }),
        blocks: BlocksView { node: 1, fleet: 2 },
    }
}

fn interface(name: &str, mode: Option<&str>) -> InterfaceView {
    InterfaceView {
        name: name.to_owned(),
        mode: mode.map(str::to_owned),
        renamed: None,
    }
}

fn look(at: u64, metrics: &str) -> Look {
    Look {
        at: at * 1_000_000_000,
        metrics: Page::read(metrics),
        node: node(),
        fleet: Some(FleetView {
            connected: true,
            away: None,
            blocks: 2,
            last_event: "1-0".to_owned(),
            nodes: vec![MemberView {
                id: "abcdef".to_owned(),
                name: "edge-1".to_owned(),
                address: "10.0.0.1:9901".to_owned(),
                version: "0.1.0".to_owned(),
                since: "2026-11-25T22:00:00Z".to_owned(),
                seconds_since_beat: 1.5,
                blocks: 2,
                caught_up: true,
                here: true,
            }],
        }),
    }
}

/// What is found of a node that `change` has made different from one that is well.
fn found(change: impl FnOnce(&mut Look)) -> (State, Vec<&'static str>) {
    let before = look(1, WELL);
    let mut after = look(3, WELL);
    change(&mut after);
    let conditions = judge::judge(&Facts::of(Some(&before), after));
    let codes = conditions.iter().map(|condition| {
        assert!(!condition.message.is_empty() && !condition.remedy.is_empty());
        condition.code
    });
    (judge::state(&conditions), codes.collect())
}

#[test]
fn exit_statuses_are_those_of_monitoring_plugins() {
    let all = [
        State::Well,
        State::Degraded,
        State::NotReady,
        State::Unknown,
    ];
    assert_eq!(all.map(State::exit_status), [0, 1, 2, 3]);
}

#[test]
fn what_a_daemon_is_for_is_no_condition() {
    assert_eq!(found(|_| {}), (State::Well, vec![]));
    // Denials, drops, blocks and warnings.
    let busy = |look: &mut Look| {
        let more = WELL
            .replace("\"over_limit\"} 10", "\"over_limit\"} 90")
            .replace("\"dropped\"} 5", "\"dropped\"} 5000");
        look.metrics = Page::read(&more);
        look.node.policy.last_read.warnings = 4;
        look.node.blocks.node = 1_000;
    };
    assert_eq!(found(busy), (State::Well, vec![]));
}

/// A condition's code, and what makes it.
type Case = (&'static str, fn(&mut Look));

#[test]
fn each_condition_is_found_alone() {
    let metric = |look: &mut Look, text: &str| {
        look.metrics = Page::read(&(WELL.to_owned() + text));
    };
    // The one that `metric` is about is told by what the page says last.
    let cases: [Case; 10] = [
        ("policy_rejected", |look| {
            look.node.policy.last_read.applied = false;
            look.node.policy.last_read.rejected = Some("a.yaml:1:1: no\nmore".to_owned());
        }),
        ("policy_errors", |look| {
            look.node.policy.last_read.errors = 1;
            look.node.policy.last_read.kept = vec!["BackendTrafficPolicy shop/p".to_owned()];
        }),
        ("policy_not_watched", |look| {
            look.node.policy.watching = false;
        }),
        ("restart_pending", |look| {
            look.node.policy.restart_pending = true;
        }),
        ("interface_not_attached", |look| {
            let gone = interface("eth1", None);
            look.node.kernel.as_mut().unwrap().interfaces.push(gone);
        }),
        ("fleet_away", |look| {
            look.fleet.as_mut().unwrap().connected = false;
        }),
        ("fleet_behind", |look| {
            look.fleet.as_mut().unwrap().nodes[0].caught_up = false;
        }),
        ("store_away", |look| {
            let open = WELL.replace("state{store=\"main\"} 0", "state{store=\"main\"} 2");
            look.metrics = Page::read(&open);
        }),
        ("endpoints_out", |look| {
            let out = WELL.replace("policy=\"shop/b\"} 2\n", "policy=\"shop/b\"} 1\n");
            let total =
                "envoy_cluster_membership_total{envoy_cluster_name=\"shop/web\",policy=\"shop/b\"}";
            look.metrics = Page::read(&out.replace(&format!("{total} 1"), &format!("{total} 2")));
        }),
        ("no_healthy_endpoint", |look| {
            let healthy = "healthy{envoy_cluster_name=\"shop/web\",policy=\"shop/b\"}";
            let out = WELL.replace(&format!("{healthy} 2"), &format!("{healthy} 0"));
            look.metrics = Page::read(&out);
        }),
    ];
    for (code, change) in cases {
        assert_eq!(found(change), (State::Degraded, vec![code]));
    }
    for (code, text) in [
        (
            "kernel_table_full",
            "limiterd_xdp_sources_total{event=\"sketched\"} 3",
        ),
        (
            "breaker_open",
            "envoy_cluster_circuit_breakers_default_rq_open{envoy_cluster_name=\"shop/web\",policy=\"shop/b\"} 1",
        ),
        (
            "asked_service_away",
            "limiterd_asked_service_connections{service=\"rls:8081\"} 0\nlimiterd_asked_service_connect_fail_total{service=\"rls:8081\"} 2",
        ),
        ("buckets_full", "limiterd_buckets_refused_total 1"),
        ("workers_full", "limiterd_downstream_cx_full_total 1"),
        (
            "access_log_lost",
            "limiterd_access_log_lines_total{result=\"lost\"} 1",
        ),
    ] {
        let seen = found(|look| metric(look, text));
        assert_eq!(seen, (State::Degraded, vec![code]));
    }
}

#[test]
fn what_does_not_serve_is_not_ready_whatever_else_is_wrong() {
    for phase in ["starting", "draining", "failed"] {
        let (state, codes) = found(|look| {
            look.node.ready = false;
            phase.clone_into(&mut look.node.phase);
            look.node.policy.restart_pending = true;
        });
        assert_eq!(
            (state, codes),
            (State::NotReady, vec![phase, "restart_pending"])
        );
    }
}

#[test]
fn what_is_too_long_or_too_much_fits_on_the_screen() {
    let before = look(1, WELL);
    let mut after = look(3, WELL);
    let node = &mut after.node;
    node.ready = false;
    node.phase = "draining".to_owned();
    node.name = "a\u{1b}[31m".repeat(40);
    node.policy.last_read.errors = 1_000;
    node.policy.last_read.kept = vec!["BackendTrafficPolicy 名前/方針".repeat(9); 9];
    node.policy.restart_pending = true;
    node.policy.watching = false;
    let kernel = node.kernel.as_mut().unwrap();
    kernel.interfaces = vec![interface("a-long-interface", None); 20];
    after.fleet.as_mut().unwrap().connected = false;
    let mut page = WELL.replace("state{store=\"main\"} 0", "state{store=\"main\"} 2");
    for rule in 0..50 {
        page += &format!(
            "limiterd_local_rate_limit_total{{rule=\"shop/p/rule/{rule}\",route=\"shop/api\",decision=\"over_limit\"}} 1000\n"
        );
    }
    after.metrics = Page::read(&page);
    let facts = Facts::of(Some(&before), after);
    let conditions = judge::judge(&facts);
    let text = tell::tell(State::NotReady, &conditions, &facts, Paint::Plain);
    assert!(text.lines().count() <= 24, "{text}");
    for line in text.lines() {
        let width = ratatui::text::Span::raw(line).width();
        assert!(width <= WIDTH, "{width}: {line}");
    }
    assert!(!text.contains('\u{1b}'), "{text}");
    assert!(text.starts_with("not ready: limiterd 0.1.0 on a"), "{text}");
    assert!(text.contains("more: --json has all"), "{text}");
}

#[test]
fn one_who_is_well_is_told_so_in_few_words() {
    let more = WELL.replace("\"over_limit\"} 10", "\"over_limit\"} 90");
    let facts = Facts::of(Some(&look(1, WELL)), look(3, &more));
    let text = tell::tell(State::Well, &[], &facts, Paint::Plain);
    let wanted = "\
well: limiterd 0.1.0 on edge-1, ready, up 2h 01m
policy     generation 3 since 2026-11-25T22:00:00Z: 0123456789abcdef of /etc/li…
           read 2026-11-25T22:00:00Z (file change): 0 errors, 0 warnings, 0 kept
listeners  \nkernel     eth0 native; 12 of 65536 places; 0 packets/s, 0 dropped; 0 sentences
requests   0/s, 40/s limited, 0/s with 5xx; 7 connections; 3 of 1024 buckets
denied     40/s by shop/p/rule/0 on shop/api (local)
backends   1, 0 breakers open; 2 endpoints, 2 healthy, 0 ejected
store      redis:6379 asked, 4 connections; 1 node alive
blocked    1 by this node, 2 by the fleet; 0 offenders are known
";
    assert_eq!(text, wanted);
    // At once: no rates.
    let facts = Facts::of(None, look(3, &more));
    let text = tell::tell(State::Well, &[], &facts, Paint::Plain);
    assert!(text.contains("requests   -/s, -/s limited"), "{text}");
    assert!(text.contains("denied     -\n"), "{text}");
}
