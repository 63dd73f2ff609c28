//! Nodes whose clocks disagree by minutes.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tests::daemon::binary;
use tests::netns::Netns;
use tests::policies::limited_host;
use tests::redis::{Redis, envoy_gateway};

use crate::fleet::bursts;
use crate::support::{Node, PATIENT};

/// The library that shifts the time of day which a program sees.
fn library() -> Result<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib")?;
    folders
        .filter_map(|folder| Some(folder.ok()?.path().join("faketime/libfaketimeMT.so.1")))
        .find(|file| file.is_file())
        .context("no libfaketime; `cargo xtask setup` installs it")
}

/// A node whose time of day is off by `shift` (as `+300`, in seconds).
fn node(shift: &str, store: &str, policies: &str) -> Result<Node> {
    let mut limiterd = Command::new(binary());
    limiterd
        .env("LD_PRELOAD", library()?)
        .env("FAKETIME", shift)
        .env("DONT_FAKE_MONOTONIC", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    Node::by(limiterd, Netns::new("node")?, store, policies)
}

#[test]
fn clocks_that_disagree_make_no_difference() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let limits = ["TokenBucket", "FixedWindow", "SlidingWindow"].map(|algorithm| {
        let limit = format!(
            "global: {{rules: [{{limit: {{requests: 100, unit: Day}}, limiterd: {{algorithm: {algorithm}}}}}]}}"
        );
        limited_host(&algorithm.to_lowercase(), &limit)
    });
    let store = envoy_gateway(&redis.url(), PATIENT);
    let nodes = ["-420", "+0", "+300"]
        .into_iter()
        .map(|shift| node(shift, &store, &limits.concat()))
        .collect::<Result<Vec<_>>>()?;
    for host in ["tokenbucket", "fixedwindow", "slidingwindow"] {
        let counts = bursts(&nodes, host, 50)?;
        let admitted: usize = counts.iter().map(|[admitted, ..]| admitted).sum();
        assert_eq!(admitted, 100, "{host}: {counts:?}");
    }
    // They do disagree, and tell their clients the same all the same.
    let mut dates = Vec::new();
    let mut told = Vec::new();
    for node in &nodes {
        let answer = node.scene.get("tokenbucket", "/", &[])?;
        ensure!(answer.status == 429, "{answer:?}");
        let date = httpdate::parse_http_date(answer.header("date"))?;
        dates.push(date);
        told.push(answer.header("retry-after").parse::<i64>()?);
    }
    let apart = [
        dates[1].duration_since(dates[0])?.as_secs(),
        dates[2].duration_since(dates[1])?.as_secs(),
    ];
    ensure!(apart[0] > 400 && apart[1] > 280, "{dates:?}");
    let spread = told.iter().max().zip(told.iter().min());
    let spread = spread.map(|(most, least)| most - least);
    ensure!(spread.is_some_and(|spread| spread < 120), "{told:?}");
    Ok(())
}
