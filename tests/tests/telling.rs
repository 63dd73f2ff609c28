//! What the daemon tells of itself: `/config`, `limiterd explain` of a running daemon; and that it
//! notices when its policy files change, in each of the ways in which files change.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};
use tests::daemon::{ADMIN, Daemon, Policies, Process, binary, demo_backend, limiterd};
use tests::http_client::{count, get, gets};
use tests::netns::Netns;
use tests::policies::{GATEWAY, route, traffic};
use tests::volume::Volume;

const URL: &str = "http://127.0.0.1:8080/";

/// A limit for all requests, an hour.
fn hourly(requests: u32) -> String {
    let rule = format!("      - limit: {{requests: {requests}, unit: Hour}}\n");
    traffic("p", ("Gateway", "eg"), &rule)
}

fn policies(requests: u32) -> Result<Policies> {
    Policies::new(&[
        ("gateway.yaml", GATEWAY),
        ("route.yaml", &route("api", "/")),
        ("limits.yaml", &hourly(requests)),
    ])
}

/// The burst of the first limit of the first route.
fn burst(config: &serde_json::Value) -> Option<u64> {
    let rule = &config["plan"]["listeners"][0]["routes"][0]["rules"][0];
    rule["local_limits"][0]["default"]["burst"].as_u64()
}

#[test]
fn a_file_renamed_over_is_noticed_and_buckets_are_kept() -> Result<()> {
    let netns = Netns::new("watch")?;
    let _backend = demo_backend(&netns)?;
    let policies = policies(10)?;
    let daemon = Daemon::start(&netns, policies.path())?;
    let passed = |requests| netns.enter(|| Ok(count(&gets(URL, &[], requests)?, 200)));
    assert_eq!(passed(4)?, 4);
    let config = daemon.config(&netns)?;
    assert_eq!(burst(&config), Some(10));
    assert_eq!(config["last_load"]["trigger"], "start");
    assert_eq!(config["watching"], true);

    // 4 of 10 tokens are gone, 6 minutes each. Of a bucket of 6 tokens of 10 minutes that is 2.4.
    policies.write("limits.yaml", &hourly(6))?;
    daemon.file_change(&netns, |config| burst(config) == Some(6))?;
    assert_eq!(passed(10)?, 3);

    // What is wrong is told, and changes nothing: the last good version goes on.
    policies.write("limits.yaml", &hourly(7).replace("requests", "requets"))?;
    daemon.file_change(&netns, |config| config["last_load"]["kept"][0].is_string())?;
    let config = daemon.config(&netns)?;
    assert_eq!(burst(&config), Some(6));
    let kept = &config["last_load"]["kept"];
    assert_eq!(*kept, serde_json::json!(["BackendTrafficPolicy default/p"]));
    let findings = config["last_load"]["findings"]
        .as_array()
        .context("no list")?;
    let finding = findings
        .iter()
        .find(|finding| finding["severity"] == "error");
    let finding = finding.context("no error")?;
    assert_eq!(finding["line"], 9);
    assert_eq!(finding["remedy"], "did you mean `requests`?");
    let text = netns
        .enter(|| get(&format!("http://{ADMIN}/status")))?
        .text();
    let statuses: serde_json::Value = serde_json::from_str(&text)?;
    let policy = statuses.as_array().context("no list")?.iter();
    let policy = policy.filter(|status| status["kind"] == "BackendTrafficPolicy");
    let conditions = policy.map(|status| &status["ancestors"][0]["conditions"][0]);
    let conditions: Vec<_> = conditions.collect();
    assert_eq!(conditions.len(), 1, "{text}");
    assert_eq!(conditions[0]["type"], "Accepted", "{text}");
    assert_eq!(conditions[0]["status"], "False", "{text}");
    assert_eq!(passed(2)?, 0);

    policies.write("limits.yaml", &hourly(100))?;
    daemon.file_change(&netns, |config| burst(config) == Some(100))?;
    assert!(passed(10)? > 0);
    Ok(())
}

#[test]
fn the_swap_of_a_config_map_is_noticed() -> Result<()> {
    let netns = Netns::new("configmap")?;
    let _backend = demo_backend(&netns)?;
    let files = |requests: u32| {
        BTreeMap::from([
            ("gateway.yaml".to_owned(), GATEWAY.to_owned()),
            ("route.yaml".to_owned(), route("api", "/")),
            ("limits.yaml".to_owned(), hourly(requests)),
        ])
    };
    let mut volume = Volume::new(files(10))?;
    let daemon = Daemon::start(&netns, volume.path())?;
    for requests in [20, 30] {
        volume.write(files(requests))?;
        daemon.file_change(&netns, |config| burst(config) == Some(requests.into()))?;
    }
    assert_eq!(netns.enter(|| get(URL))?.status, 200);
    Ok(())
}

#[test]
fn a_directory_that_vanishes_keeps_its_policy_and_is_read_when_it_returns() -> Result<()> {
    let netns = Netns::new("vanish")?;
    let _backend = demo_backend(&netns)?;
    let place = Policies::new(&[])?;
    let dir = place.path().join("policy");
    let write = |requests: u32| -> Result<()> {
        let next = place.path().join("next");
        fs::create_dir(&next)?;
        fs::write(next.join("gateway.yaml"), GATEWAY)?;
        fs::write(next.join("route.yaml"), route("api", "/"))?;
        fs::write(next.join("limits.yaml"), hourly(requests))?;
        Ok(fs::rename(next, &dir)?)
    };
    write(10)?;
    let daemon = Daemon::start(&netns, &dir)?;
    fs::remove_dir_all(&dir)?;
    daemon.file_change(&netns, |config| {
        config["last_load"]["findings"][0].is_object()
    })?;
    assert_eq!(netns.enter(|| get(URL))?.status, 200);
    write(20)?;
    daemon.file_change(&netns, |config| burst(config) == Some(20))?;
    // It is watched as before.
    fs::write(dir.join("limits.yaml"), hourly(30))?;
    daemon.file_change(&netns, |config| burst(config) == Some(30))
}

#[test]
fn without_inotify_there_is_a_warning_and_sighup_works() -> Result<()> {
    let netns = Netns::new("nowatch")?;
    let policies = policies(10)?;
    // A user namespace has limits of its own.
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "sh", "-c"])
        .arg("echo 0 > /proc/sys/user/max_inotify_instances && exec \"$0\" run --config \"$1\"")
        .arg(binary())
        .arg(policies.path());
    let daemon = Daemon::ready(&netns, Process::spawn(&netns, command)?)?;
    let output = daemon.process.output();
    assert!(output.contains("send SIGHUP after each"), "{output}");
    assert_eq!(daemon.config(&netns)?["watching"], false);
    let page = daemon.metrics(&netns)?;
    assert_eq!(page.sum("limiterd_policy_watching", &[]), 0.0);
    policies.write("limits.yaml", &hourly(20))?;
    daemon.reload(&netns)?;
    let config = daemon.config(&netns)?;
    assert_eq!(burst(&config), Some(20));
    assert_eq!(config["last_load"]["trigger"], "signal");
    Ok(())
}

#[test]
fn a_running_daemon_explains_its_buckets_and_charges_nothing() -> Result<()> {
    let netns = Netns::new("explain")?;
    let _backend = demo_backend(&netns)?;
    let policies = Policies::new(&[
        ("gateway.yaml", GATEWAY),
        ("route.yaml", &route("api", "/")),
        (
            "limits.yaml",
            &traffic(
                "p",
                ("HTTPRoute", "api"),
                "      - clientSelectors: [{headers: [{name: x-user-id, type: Distinct}]}]
        limit: {requests: 3, unit: Hour}\n",
            ),
        ),
    ])?;
    let _daemon = Daemon::start(&netns, policies.path())?;
    let explain = |user: &str| -> Result<serde_json::Value> {
        let header = format!("x-user-id: {user}");
        let args = ["explain", "--admin", ADMIN, "GET", URL, "-H", &header];
        let output = netns.enter(|| limiterd(&[&args[..], &["--format", "json"]].concat()))?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        serde_json::from_slice(&output.stdout).context(errors)
    };
    let ask = || netns.enter(|| gets(URL, &[("x-user-id", "alice")], 1));
    for left in (0..3).rev() {
        ask()?;
        for _ in 0..2 {
            let said = explain("alice")?;
            let state = &said["policies"][0]["rules"][0]["state"];
            assert_eq!(state["remaining"], left, "{said}");
            assert_eq!(state["admits"], left > 0, "{said}");
        }
    }
    assert_eq!(ask()?[0].status, 429);
    let said = explain("alice")?;
    let answer = said["answer"].as_str().context("no answer")?;
    assert!(
        answer.starts_with("429: over the limit of default/p/rule/0"),
        "{answer}"
    );
    let said = explain("bob")?;
    assert_eq!(said["policies"][0]["rules"][0]["state"]["remaining"], 3);

    let text = netns.enter(|| limiterd(&["explain", "--admin", ADMIN, "GET", "nowhere"]))?;
    assert!(!text.status.success());
    let error = String::from_utf8_lossy(&text.stderr).into_owned();
    assert!(error.contains("`nowhere` is not a URL"), "{error}");
    Ok(())
}
