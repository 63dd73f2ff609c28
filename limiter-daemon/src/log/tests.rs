//! What is left out, and that it adds up.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tracing_subscriber::layer::SubscriberExt as _;

use super::format::Switch;
use super::sites::{Limiter, Sites, TOLD};
use crate::policy::plan::LogFormat;

const SECOND: u64 = 1_000_000_000;

#[derive(Clone, Debug, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Text {
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

/// Runs `work` with a log of `limit` lines a second whose clock it may set, in nanoseconds.
fn logging(limit: u32, work: impl FnOnce(&Sites, &AtomicU64, &Switch)) -> Vec<String> {
    let sites = Arc::new(Sites::new(limit));
    let now = Arc::new(AtomicU64::new(SECOND));
    let clock = Arc::clone(&now);
    let text = Text::default();
    let written = text.clone();
    let switch = Switch::new(LogFormat::Text, false);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(move || written.clone())
        .event_format(switch.clone());
    let limiter = Limiter::new(Arc::clone(&sites), move || clock.load(Ordering::Relaxed));
    let subscriber = tracing_subscriber::registry().with(limiter).with(lines);
    tracing::subscriber::with_default(subscriber, || work(&sites, &now, &switch));
    text.lines()
}

fn noise(number: u64) {
    tracing::warn!(number, "noise");
}

#[test]
fn each_place_has_a_bucket_and_what_is_left_out_adds_up() {
    let lines = logging(5, |sites, now, _| {
        for number in 0..100 {
            noise(number);
        }
        tracing::info!("another place");
        let left_out = sites.take_left_out();
        let counts: Vec<_> = left_out.iter().map(|site| site.count).collect();
        assert_eq!(counts, [95]);
        assert_eq!(left_out[0].target, "limiter_daemon::log::tests");
        assert!(left_out[0].line.is_some());
        assert_eq!(sites.take_left_out(), [], "it is told once");
        // Two tokens come back in 0.4 s.
        now.fetch_add(2 * SECOND / 5, Ordering::Relaxed);
        for number in 100..110 {
            noise(number);
        }
        assert_eq!(sites.take_left_out()[0].count, 8);
        let total: Vec<_> = sites.left_out().into_values().collect();
        assert_eq!(total, [103]);
    });
    let noise = lines.iter().filter(|line| line.contains("noise")).count();
    assert_eq!(noise, 7, "{lines:?}");
    assert_eq!(lines.len(), 8);
}

#[test]
fn what_no_client_can_cause_is_never_left_out() {
    let lines = logging(1, |sites, _, _| {
        for _ in 0..50 {
            tracing::info!(target: "audit", "blocked by hand");
            tracing::warn!(target: TOLD, "left out");
        }
        assert!(sites.left_out().is_empty());
    });
    assert_eq!(lines.len(), 100);
}

#[test]
fn a_limit_can_be_changed_while_logging() {
    let lines = logging(1, |sites, now, _| {
        for limit in [1, 2, 4, 5] {
            sites.set_limit(limit);
            now.fetch_add(SECOND, Ordering::Relaxed);
            for number in 0..10 {
                noise(number);
            }
        }
    });
    assert_eq!(lines.len(), 1 + 2 + 4 + 5, "{lines:?}");
}

#[test]
fn the_format_can_be_changed_while_logging() {
    let lines = logging(10, |_, _, switch| {
        noise(1);
        switch.set(LogFormat::Json);
        noise(2);
        switch.set(LogFormat::Text);
        noise(3);
    });
    assert!(lines[0].ends_with("noise number=1"), "{lines:?}");
    let json: serde_json::Value = serde_json::from_str(&lines[1]).unwrap();
    assert_eq!(json["fields"]["message"], "noise");
    assert_eq!(json["fields"]["number"], 2);
    assert!(lines[2].ends_with("noise number=3"), "{lines:?}");
}
