//! Boards of pages as a daemon writes them.

use super::*;
use crate::admin::l4::BucketView;
use crate::admin::node::{BlocksView, LastReadView, MemberView, PolicyView, StoreView};
use crate::admin::offenders::LimitedView;
use crate::cli::top::table::{Cell, Mood, Row};
use crate::engine::fleet::Scope;

const BEFORE: &str = r#"
limiterd_local_rate_limit_total{rule="shop/p/rule/0",route="shop/api",decision="ok"} 100
limiterd_local_rate_limit_total{rule="shop/p/rule/0",route="shop/api",decision="over_limit"} 10
limiterd_local_rate_limit_total{rule="shop/p/rule/0",route="shop/api",decision="shadow_over_limit"} 0
limiterd_downstream_rq_total{route="shop/api",response_code_class="2xx"} 100
limiterd_downstream_rq_total{route="shop/api",response_code_class="4xx"} 10
limiterd_downstream_rq_total{route="shop/api",response_code_class="5xx"} 0
limiterd_xdp_packets_total{policy="shop/net",level="0",reason="conforming",mode="enforced",verdict="passed"} 1000
limiterd_xdp_packets_total{policy="shop/net",level="0",reason="over_connections",mode="enforced",verdict="dropped"} 50
limiterd_xdp_packets_total{policy="shop/net",level="0",reason="sentenced",mode="enforced",verdict="dropped"} 500
limiterd_xdp_packets_total{policy="shop/tried",level="0",reason="over_packets",mode="shadow",verdict="passed"} 0
limiterd_xdp_packets_total{policy="",level="0",reason="untargeted",mode="enforced",verdict="passed"} 3
limiterd_store_requests_total{store="limits",result="ok"} 10
limiterd_store_requests_total{store="limits",result="timeout"} 0
envoy_cluster_upstream_rq_pending_overflow{envoy_cluster_name="shop/web",policy="shop/b"} 0
"#;

const AFTER: &str = r#"
limiterd_local_rate_limit_total{rule="shop/p/rule/0",route="shop/api",decision="ok"} 130
limiterd_local_rate_limit_total{rule="shop/p/rule/0",route="shop/api",decision="over_limit"} 20
limiterd_local_rate_limit_total{rule="shop/p/rule/0",route="shop/api",decision="shadow_over_limit"} 0
limiterd_rate_limit_candidate_total{limit="local",rule="shop/p/rule/0",route="shop/api",candidate="half",decision="ok"} 20
limiterd_rate_limit_candidate_total{limit="local",rule="shop/p/rule/0",route="shop/api",candidate="half",decision="over_limit"} 20
ratelimit_service_rate_limit_within_limit{domain="edge",key1="tenant"} 8
ratelimit_service_rate_limit_over_limit{domain="edge",key1="tenant"} 0
ratelimit_service_rate_limit_shadow_mode{domain="edge",key1="tenant"} 0
limiterd_downstream_rq_total{route="shop/api",response_code_class="2xx"} 130
limiterd_downstream_rq_total{route="shop/api",response_code_class="4xx"} 20
limiterd_downstream_rq_total{route="shop/api",response_code_class="5xx"} 10
limiterd_downstream_cx_active 7
limiterd_xdp_packets_total{policy="shop/net",level="0",reason="conforming",mode="enforced",verdict="passed"} 1100
limiterd_xdp_packets_total{policy="shop/net",level="0",reason="over_connections",mode="enforced",verdict="dropped"} 350
limiterd_xdp_packets_total{policy="shop/net",level="0",reason="sentenced",mode="enforced",verdict="dropped"} 500
limiterd_xdp_packets_total{policy="shop/tried",level="0",reason="over_packets",mode="shadow",verdict="passed"} 20
limiterd_xdp_packets_total{policy="",level="0",reason="untargeted",mode="enforced",verdict="passed"} 3
envoy_cluster_upstream_rq_active{envoy_cluster_name="shop/web",policy="shop/b"} 12
envoy_cluster_upstream_rq_pending_active{envoy_cluster_name="shop/web",policy="shop/b"} 3
envoy_cluster_upstream_rq_pending_overflow{envoy_cluster_name="shop/web",policy="shop/b"} 6
envoy_cluster_circuit_breakers_default_rq_open{envoy_cluster_name="shop/web",policy="shop/b"} 1
envoy_cluster_circuit_breakers_default_cx_open{envoy_cluster_name="shop/web",policy="shop/b"} 0
envoy_cluster_membership_total{envoy_cluster_name="shop/web",policy="shop/b"} 4
envoy_cluster_membership_healthy{envoy_cluster_name="shop/web",policy="shop/b"} 3
envoy_cluster_outlier_detection_ejections_active{envoy_cluster_name="shop/web",policy="shop/b"} 1
limiterd_store_requests_total{store="limits",result="ok"} 16
limiterd_store_requests_total{store="limits",result="timeout"} 2
limiterd_store_state{store="limits"} 2
limiterd_store_connections{store="limits"} 2
"#;

fn block(cidr: &str, since: &str) -> BlockView {
    BlockView {
        cidr: cidr.to_owned(),
        scope: Scope::Fleet,
        told: Some(true),
        since: Some(since.to_owned()),
        until: "2026-11-25T23:00:00Z".to_owned(),
        seconds_left: 540,
        by: "edge-1".to_owned(),
        why: "429 x 50".to_owned(),
        rule: "shop/escalation".to_owned(),
    }
}

fn offender(source: &str, drops_per_second: u64) -> OffenderView {
    OffenderView {
        source: source.parse().unwrap(),
        policy: "shop/net".to_owned(),
        reason: "over_connections".to_owned(),
        shadow: false,
        port: 443,
        samples: 100,
        error: 0,
        drops_per_second,
        seconds_ago: 0,
        tightest: Some(BucketView {
            level: 0,
            unit: "connections".to_owned(),
            remaining: 1,
            capacity: 4,
        }),
    }
}

fn limited(client: &str, route: &str) -> LimitedView {
    LimitedView {
        client: client.to_owned(),
        rule: "shop/p/rule/0".to_owned(),
        route: route.to_owned(),
        limited: 500,
        limited_per_second: 12.5,
        seconds_ago: 1,
    }
}

/// What a daemon with all parts says two seconds after [`before`].
pub(in crate::cli::top) fn after() -> Look {
    Look {
        at: 5_000_000_000,
        metrics: Page::read(AFTER),
        node: NodeView {
            name: "edge-1".to_owned(),
            version: "0.1.0".to_owned(),
            started: "2026-11-25T20:00:00Z".to_owned(),
            uptime_seconds: 7200,
            phase: "serving".to_owned(),
            ready: true,
            report: vec!["ready".to_owned()],
            policy: PolicyView {
                directory: "/etc/limiterd".to_owned(),
                fingerprint: "0123456789abcdef".to_owned(),
                in_force_since: "2026-11-25T22:00:00Z".to_owned(),
                generation: 1,
                watching: true,
                restart_pending: false,
                last_read: LastReadView::default(),
            },
            listeners: Vec::new(),
            kernel: None,
            store: Some(StoreView {
                address: "redis:6379".to_owned(),
                breaker: "open".to_owned(),
                connections: 2,
                fleet_connected: true,
                nodes: 2,
            }),
            blocks: BlocksView { node: 0, fleet: 2 },
        },
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
        offenders: Some(vec![
            offender("192.0.2.9", 300),
            offender("198.51.100.7", 0),
        ]),
        limited: Some(OffendersView {
            limited: vec![
                limited("192.0.2.77", "shop/api"),
                limited("203.0.113.5", ""),
            ],
            missing: 0,
        }),
        blocks: Some(vec![
            block("203.0.113.0/24", "2026-11-25T22:10:00Z"),
            block("198.51.100.7/32", "2026-11-25T22:50:00Z"),
        ]),
    }
}

/// What it said before.
pub(in crate::cli::top) fn before() -> Look {
    Look {
        at: 3_000_000_000,
        metrics: Page::read(BEFORE),
        ..after()
    }
}

fn board() -> Board {
    Board::of(Some(&before()), &after())
}

fn rows(board: &Board, section: Section) -> Vec<Row> {
    let table = board.table(section).unwrap();
    for row in &table.rows {
        assert_eq!(row.cells.len(), section.columns().len(), "{section:?}");
    }
    let shown = table.shown("", section.sort());
    shown.into_iter().cloned().collect()
}

fn texts(row: &Row) -> Vec<String> {
    row.cells.iter().map(Cell::text).collect()
}

#[test]
fn limits_have_rates_and_the_busiest_is_first() {
    let rows = rows(&board(), Section::Limits);
    assert_eq!(
        texts(&rows[0]),
        [
            "shop/p/rule/0",
            "shop/api",
            "local",
            "15",
            "5.0",
            "0",
            "25 %",
            "20"
        ]
    );
    assert_eq!(rows[0].mood, Mood::Busy);
    let of = |name: &str| rows.iter().find(|row| row.cells[0].text() == name).unwrap();
    // A candidate denies nobody: what it would is in the shadow's column.
    assert_eq!(
        texts(of("shop/p/rule/0 ~ half"))[2..7],
        ["local, tried", "10", "-", "10", "50 %"]
    );
    assert_eq!(
        texts(of("edge / tenant"))[2..6],
        ["service", "4.0", "0", "0"]
    );
}

#[test]
fn the_kernel_is_told_by_policy_with_the_reason_of_most_drops() {
    let rows = rows(&board(), Section::Kernel);
    assert_eq!(
        texts(&rows[0]),
        [
            "shop/net",
            "50",
            "150",
            "0",
            "75 %",
            "850",
            "over_connections"
        ]
    );
    let tried = rows.iter().find(|row| row.cells[0].text() == "shop/tried");
    assert_eq!(texts(tried.unwrap())[2..4], ["0", "10"]);
    assert!(rows.iter().any(|row| row.cells[0].text() == "(none)"));
}

#[test]
fn sources_say_who_is_blocked() {
    let rows = rows(&board(), Section::Sources);
    assert_eq!(
        texts(&rows[0])[..4],
        ["192.0.2.9", "300", "over_connections", "25 %"]
    );
    let of = |source: &str| {
        let found = rows.iter().find(|row| row.cells[0].text() == source);
        texts(found.unwrap())
    };
    assert_eq!(of("198.51.100.7")[2], "blocked for 9m");
    // Whom only limits on requests deny.
    assert_eq!(
        texts(&rows[1]),
        [
            "192.0.2.77",
            "12",
            "denied requests on shop/api",
            "-",
            "-",
            "1 s",
            "shop/p/rule/0"
        ]
    );
    assert_eq!(of("203.0.113.5")[2], "blocked for 9m");
}

#[test]
fn open_breakers_and_lost_endpoints_are_bad() {
    let rows = rows(&board(), Section::Upstreams);
    assert_eq!(
        texts(&rows[0]),
        [
            "shop/web",
            "open: requests, 1 ejected",
            "0",
            "12",
            "3",
            "3.0",
            "0",
            "75 %",
            "shop/b"
        ]
    );
    assert_eq!(rows[0].mood, Mood::Bad);
}

#[test]
fn the_store_the_fleet_and_the_latest_block() {
    let board = board();
    let stores = rows(&board, Section::Store);
    assert_eq!(
        texts(&stores[0]),
        ["limits", "not asked: it fails", "4.0", "1.0", "25 %", "2"]
    );
    let nodes = rows(&board, Section::Nodes);
    assert_eq!(texts(&nodes[0])[3], "caught up, this node");
    let blocks = rows(&board, Section::Blocks);
    assert_eq!(texts(&blocks[0])[0], "198.51.100.7/32");
}

#[test]
fn the_heading_sums_up() {
    let Heading {
        requests_per_second,
        limited_per_second,
        dropped_per_second,
        connections,
        ..
    } = board().heading;
    assert_eq!(requests_per_second, Some(25.0));
    assert_eq!(limited_per_second, Some(5.0));
    assert_eq!(dropped_per_second, Some(150.0));
    assert_eq!(connections, 7);
}

#[test]
fn a_first_look_has_no_rates_and_a_small_daemon_few_tables() {
    let mut look = after();
    look.metrics =
        Page::read("limiterd_downstream_rq_total{route=\"a\",response_code_class=\"2xx\"} 1\n");
    (look.fleet, look.offenders, look.limited) = (None, None, None);
    look.blocks = None;
    let board = Board::of(None, &look);
    let sections: Vec<_> = board.tables.iter().map(|table| table.section).collect();
    assert_eq!(sections, [Section::Routes]);
    assert_eq!(
        texts(&rows(&board, Section::Routes)[0])[1..4],
        ["-", "-", "-"]
    );
    assert_eq!(board.heading.packets_per_second, None);
}

#[test]
fn json_has_every_section_that_is_wanted() {
    let json = board().json(&Section::ALL, "", Section::sort);
    assert_eq!(json["node"]["name"], "edge-1");
    assert_eq!(json["limits"][0]["limited_per_second"], 5.0);
    assert_eq!(json["blocks"].as_array().unwrap().len(), 2);
    let filtered = board().json(&[Section::Blocks], "203.0.113", Section::sort);
    assert_eq!(filtered["blocks"].as_array().unwrap().len(), 1);
    assert!(filtered.get("limits").is_none());
}
