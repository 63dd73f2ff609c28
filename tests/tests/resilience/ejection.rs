//! Endpoints that fail get no requests for a while, and come back.

use anyhow::Result;
use tests::daemon::eventually;
use tests::netns::Netns;
use tests::scripted::{Script, Scripted};

use super::support::{Host, stage};

/// After three failures in a row; `base`: for how long.
fn ejects(base: &str) -> String {
    format!(
        "  loadBalancer: {{type: RoundRobin}}
  healthCheck:
    panicThreshold: 0
    passive: {{consecutive5XxErrors: 3, interval: 100ms, baseEjectionTime: {base}, maxEjectionPercent: 100}}
"
    )
}

fn pair(netns: &Netns) -> Result<[Scripted; 2]> {
    Ok([
        Scripted::start(netns, "127.0.0.1:3001")?,
        Scripted::start(netns, "127.0.0.1:3002")?,
    ])
}

#[test]
fn who_fails_is_left_alone_also_after_a_reload() -> Result<()> {
    let netns = Netns::new("eject")?;
    let [good, bad] = pair(&netns)?;
    let scene = stage(netns, &[("pair", &[3001, 3002], &ejects("1h"))])?;
    let pair = Host::new(&scene, "pair");
    bad.plays(Script::Answer("500 Broken", ""));
    let mut failed = 0;
    for _ in 0..30 {
        failed += usize::from(pair.get()?.status == 500);
    }
    assert_eq!((failed, bad.counts().requests), (3, 3));
    pair.expect(&[
        ("outlier_detection_ejections_active", 1),
        ("outlier_detection_ejections_enforced_total", 1),
        ("membership_total", 2),
        ("membership_healthy", 1),
    ]);
    bad.plays(Script::Echo);
    scene.daemon.reload(&scene.netns)?;
    for _ in 0..10 {
        assert_eq!(pair.get()?.status, 200);
    }
    assert_eq!(bad.counts().requests, 3);
    assert_eq!(good.counts().requests, 37);
    pair.rests()
}

#[test]
fn who_is_well_again_comes_back() -> Result<()> {
    let netns = Netns::new("return")?;
    let [_good, bad] = pair(&netns)?;
    let scene = stage(netns, &[("pair", &[3001, 3002], &ejects("500ms"))])?;
    let pair = Host::new(&scene, "pair");
    // Resets, and silence where there was a listener, are failures as well.
    for rounds in 1..=2 {
        if rounds == 1 {
            bad.plays(Script::Reset);
        } else {
            bad.down();
        }
        eventually("an ejection", || {
            pair.get()?;
            let ejections = pair.metric("outlier_detection_ejections_enforced_total")?;
            Ok((ejections >= f64::from(rounds)).then_some(()))
        })?;
        bad.plays(Script::Echo);
        bad.up(&scene.netns)?;
        let before = bad.counts().requests;
        eventually("the endpoint to be asked again", || {
            assert_eq!(pair.get()?.status, 200);
            Ok((bad.counts().requests > before).then_some(()))
        })?;
        pair.becomes("outlier_detection_ejections_active", 0)?;
        pair.expect(&[("membership_healthy", 2)]);
    }
    pair.rests()
}

#[test]
fn checks_find_who_is_not_well_before_a_request_does() -> Result<()> {
    let netns = Netns::new("check")?;
    let [good, bad] = pair(&netns)?;
    let spec = "  healthCheck:
    panicThreshold: 0
    active:
      interval: 100ms
      unhealthyThreshold: 1
      type: HTTP
      http: {path: /health}
";
    let scene = stage(netns, &[("checked", &[3001, 3002], spec)])?;
    let checked = Host::new(&scene, "checked");
    checked.becomes("membership_healthy", 2)?;
    for gone in [false, true] {
        if gone {
            bad.down();
        } else {
            bad.plays(Script::Answer("503 Unwell", ""));
        }
        checked.becomes("membership_healthy", 1)?;
        for _ in 0..20 {
            assert_eq!(checked.get()?.status, 200);
        }
        bad.plays(Script::Echo);
        bad.up(&scene.netns)?;
        checked.becomes("membership_healthy", 2)?;
    }
    let asked = |backend: &Scripted| {
        let seen = backend.seen();
        seen.iter().any(|seen| seen.line() == "GET /health")
    };
    assert!(asked(&good));
    assert!(checked.metric("health_check_failure")? >= 2.0);
    checked.rests()
}

#[test]
fn of_three_that_all_fail_not_more_are_ejected_than_may_be() -> Result<()> {
    let netns = Netns::new("most")?;
    let backends =
        [3001, 3002, 3003].map(|port: u16| Scripted::start(&netns, &format!("127.0.0.1:{port}")));
    let spec = "  healthCheck:
    panicThreshold: 0
    passive: {consecutive5XxErrors: 1, baseEjectionTime: 1h, maxEjectionPercent: 67}
";
    let scene = stage(netns, &[("three", &[3001, 3002, 3003], spec)])?;
    let three = Host::new(&scene, "three");
    for backend in &backends {
        let backend = backend.as_ref().expect("listens");
        backend.plays(Script::Answer("500 Broken", ""));
    }
    for _ in 0..30 {
        assert_eq!(three.get()?.status, 500);
    }
    three.expect(&[("outlier_detection_ejections_active", 2)]);
    assert!(three.metric("outlier_detection_ejections_overflow")? > 0.0);
    Ok(())
}
