//! The dashboard in a real Chromium, while clients are served, limited and dropped.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use tests::browser::Browser;
use tests::daemon::{ADMIN, binary};
use tests::http_client::get;
use tests::over::Over;

use crate::support::Node;

const REASON: &str = "<img src=x onerror=alert(1)> & \"more\"";

/// Asks for all hosts until told to stop.
fn load(node: &Node, stop: &AtomicBool) -> Result<u64> {
    let mut answers = 0;
    while !stop.load(Ordering::Relaxed) {
        for name in ["local", "global", "treated", "tried"] {
            answers += node.ask(name, 5)?.len() as u64;
        }
    }
    Ok(answers)
}

/// Blocks the second client, which then tries to connect.
fn drop_somebody(node: &Node) -> Result<()> {
    let blocked = node.netns().enter(|| {
        let args = ["block", "10.77.2.2", "--for", "10m", "--reason", REASON];
        Ok(Command::new(binary()).args(args).output()?)
    })?;
    ensure!(blocked.status.success(), "{blocked:?}");
    let second = &node.topology.second;
    let url = format!("{}:8080", second.gateway_v4).parse()?;
    let tried = second.netns.enter(|| {
        let patience = std::time::Duration::from_millis(300);
        Ok(std::net::TcpStream::connect_timeout(&url, patience).err())
    })?;
    ensure!(tried.is_some(), "who is blocked was let in");
    Ok(())
}

/// Where pictures of the page are left, for who wants to see it.
fn picture(browser: &mut Browser, name: &str) -> Result<()> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("dashboard-{name}.png"));
    browser.picture(&path)
}

/// Whether what is written can be told from what it is written on: the contrast of the page's two
/// colours as WCAG counts it, and no element wider than the screen.
const READABLE: &str = "(() => {
    const light = (text) => {
        const [r, g, b] = text.match(/[0-9]+/g).map((c) => c / 255)
            .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const colours = (of) => { const style = getComputedStyle(of); return [light(style.color), light(getComputedStyle(of.closest('section, header, body, div.tile')).backgroundColor)]; };
    const wide = [...document.querySelectorAll('main > *, header, footer')]
        .filter((one) => one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
        .map((one) => one.id || one.innerText.slice(0, 20));
    const cards = [...document.querySelectorAll('section:not(.tiles) h2, .tile h2, td')];
    const contrast = cards.map((one) => { const [a, b] = colours(one); return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); });
    return { wide, least: Math.min(...contrast), across: document.documentElement.scrollWidth - document.documentElement.clientWidth, ground: getComputedStyle(document.body).backgroundColor };
})()";

#[test]
fn the_dashboard_shows_what_happens_on_any_screen() -> Result<()> {
    let node = Node::start()?;
    drop_somebody(&node)?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let loading = scope.spawn(|| load(&node, &stop));
        let seen = {
            let _then = Over(&stop);
            look(&node)
        };
        let answers = loading
            .join()
            .map_err(|_panic| anyhow::anyhow!("the load panicked"))??;
        ensure!(answers > 0, "there was no load");
        seen
    })
}

fn look(node: &Node) -> Result<()> {
    let mut browser = Browser::start(node.netns())?;
    browser.screen((1280, 900), false, false)?;
    browser.open(&format!("http://{ADMIN}/"))?;
    browser.until("Number(document.body.dataset.looks) >= 3")?;
    // Rates of what goes on.
    for tile in ["accepted", "limited"] {
        browser.until(&format!(
            "parseFloat(document.getElementById('now-{tile}').textContent) > 0"
        ))?;
    }
    browser.until("document.getElementById('now-latency').textContent.startsWith('< ')")?;
    assert_eq!(browser.text("state")?, "ready");
    assert_eq!(browser.text("trouble")?, "");
    for (id, words) in [
        (
            "routes",
            &["default/local", "default/global", "default/treated"][..],
        ),
        ("rules", &["default/local/rule/0", "local", "global", "3, "]),
        (
            "network",
            &["default/edge", "1000 connections", "sentenced"],
        ),
        (
            "sources",
            &[
                "10.77.2.2",
                "default/edge",
                "packets: sentenced",
                "10.77.1.2",
                "requests on default/local",
                "default/local/rule/0",
            ],
        ),
        ("backends", &["default/treated", "closed", "/100", "1/1"]),
        ("fleet", &["(here)", "yes"]),
        ("blocks", &["10.77.2.2/32", REASON, "all nodes"]),
        ("store", &["asked", "questions/s"]),
        ("policy", &["fingerprint", "in force since"]),
        ("chart-requests", &["accepted", "limited", "broken"]),
        ("chart-packets", &["passed", "dropped"]),
    ] {
        let text = browser.text(id)?;
        for word in words {
            assert!(text.contains(word), "{id}: {word} in\n{text}");
        }
    }
    let drawn = "[...document.querySelectorAll('#chart-requests polyline')].map((one) => one.getAttribute('points').split(' ').length)";
    let points = browser.value(drawn)?;
    let points = points.as_array().context("no lines")?;
    assert!(
        points.len() == 4 && points.iter().all(|count| count.as_u64() > Some(1)),
        "{points:?}"
    );
    // A unit of the drawing is a pixel, so that its letters are as they should be.
    let shape = "(() => { const svg = document.querySelector('#chart-requests svg'); return svg.viewBox.baseVal.width - svg.clientWidth; })()";
    assert_eq!(browser.value(shape)?, 0);
    // Others' words are text.
    assert_eq!(browser.value("document.querySelectorAll('img').length")?, 0);
    // The plan is opened, and what is in it.
    browser.value("document.querySelector('#plan').open = true; document.querySelector('#plan .tree details').open = true; true")?;
    browser.until("document.querySelector('#plan .tree').innerText.includes('interfaces')")?;

    let mut grounds = Vec::new();
    for (name, size, phone, dark) in [
        ("desk", (1280, 900), false, false),
        ("desk-dark", (1280, 900), false, true),
        ("phone", (390, 844), true, false),
        ("phone-dark", (390, 844), true, true),
        ("small-phone", (320, 568), true, false),
    ] {
        browser.screen(size, phone, dark)?;
        let looks = browser.value("Number(document.body.dataset.looks)")?;
        browser.until(&format!("Number(document.body.dataset.looks) > {looks}"))?;
        picture(&mut browser, name)?;
        let found = browser.value(READABLE)?;
        assert_eq!(browser.value(shape)?, 0, "{name}");
        assert_eq!(found["wide"], serde_json::json!([]), "{name}: {found}");
        assert_eq!(found["across"], 0, "{name}: {found}");
        assert!(found["least"].as_f64() > Some(4.5), "{name}: {found}");
        grounds.push(found["ground"].clone());
    }
    assert_eq!(grounds[0], grounds[2]);
    assert_ne!(grounds[0], grounds[1]);
    assert_eq!(browser.complaints, Vec::<String>::new());
    let home = format!("http://{ADMIN}/");
    let elsewhere: Vec<_> = browser
        .asked
        .iter()
        .filter(|url| !url.starts_with(&home) && !url.starts_with("data:"))
        .collect();
    assert_eq!(elsewhere, Vec::<&String>::new());

    // Paused, it asks no more.
    browser.value("document.getElementById('pause').click(); true")?;
    assert_eq!(browser.text("pause")?, "Go on");
    // A script that somebody got into the page is not run, and that is told.
    let injected = "(() => { const one = document.createElement('script'); one.textContent = 'window.taken = true'; document.body.append(one); return window.taken === true; })()";
    assert_eq!(browser.value(injected)?, false);
    browser.until("document.getElementById('trouble').textContent.includes('script-src')")?;
    Ok(())
}

#[test]
fn a_daemon_that_is_gone_is_told_of() -> Result<()> {
    let node = Node::start()?;
    let mut browser = Browser::start(node.netns())?;
    browser.open(&format!("http://{ADMIN}/dashboard"))?;
    browser.until("Number(document.body.dataset.looks) >= 1")?;
    node.stop()?;
    browser.until("document.getElementById('trouble').textContent.includes('does not answer')")?;
    assert_eq!(browser.text("state")?, "not reached");
    Ok(())
}

#[test]
fn the_page_may_run_nothing_but_its_own_script() -> Result<()> {
    let node = Node::start()?;
    let answer = node.admin("/")?;
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    let policy = answer.header("content-security-policy");
    for part in [
        "default-src 'none'",
        "script-src 'sha256-",
        "style-src 'sha256-",
        "connect-src 'self'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    let other = node
        .netns()
        .enter(|| get(&format!("http://{ADMIN}/no-such")))?;
    assert_eq!(other.status, 404);
    Ok(())
}
