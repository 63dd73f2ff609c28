//! The facts on a screen of 80 columns and 24 lines, whatever there is to tell: what is too long is
//! cut, what is too much is counted. `--json` has all of it.

use ratatui::text::Span;

use super::facts::{Backend, Facts, Kernel, Limiting, Store};
use super::judge::Condition;
use super::{State, count};
use crate::admin::listeners::ListenerView;
use crate::admin::node::{InterfaceView, PolicyView};
use crate::cli::paint::{Paint, Style};
use crate::cli::top::{si, time};

/// Columns.
pub(super) const WIDTH: usize = 80;
/// Columns of what a line is about.
const LABEL: usize = 11;
/// Conditions told, of two lines each.
const CONDITIONS: usize = 5;
/// Limits told.
const LIMITS: usize = 3;

/// The screen.
pub(super) fn tell(state: State, conditions: &[Condition], facts: &Facts, paint: Paint) -> String {
    let (word, style) = match state {
        State::Well => ("well", Style::Green),
        State::Degraded => ("degraded", Style::Yellow),
        State::NotReady | State::Unknown => ("not ready", Style::Red),
    };
    let up = time(facts.uptime_seconds);
    let readiness = facts.report.first().map_or("", String::as_str);
    let rest = format!(
        ": limiterd {} on {}, {readiness}, up {up}",
        facts.version, facts.name
    );
    let rest = cut(&rest, WIDTH - word.len());
    let mut lines = vec![format!("{}{rest}", paint.paint(style, word))];
    for condition in conditions.iter().take(CONDITIONS) {
        let message = cut(&condition.message, WIDTH - 2);
        let remedy = cut(&condition.remedy, WIDTH - 4);
        lines.push(format!("! {}", paint.paint(style, message)));
        lines.push(format!("  > {remedy}"));
    }
    if let Some(more) = conditions.len().checked_sub(CONDITIONS + 1) {
        lines.push(format!("! and {} more: --json has all", more + 1));
    }
    for (label, text) in body(facts) {
        let text = cut(&text, WIDTH - LABEL);
        let label = paint.paint(Style::Dim, format!("{label:<LABEL$}"));
        lines.push(format!("{label}{text}"));
    }
    lines.join("\n") + "\n"
}

/// `text` in so many columns, without what would move the cursor.
fn cut(text: &str, columns: usize) -> String {
    let plain: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if Span::raw(&plain).width() <= columns {
        return plain;
    }
    let mut used = 1;
    let kept = plain.chars().take_while(|c| {
        used += Span::raw(c.to_string()).width();
        used <= columns
    });
    let mut kept: String = kept.collect();
    kept.push('…');
    kept
}

fn body(facts: &Facts) -> Vec<(&'static str, String)> {
    let mut lines = vec![("policy", policy(&facts.policy))];
    lines.push(("", last_read(&facts.policy)));
    lines.push(("listeners", listeners(&facts.listeners)));
    let kernel = facts.kernel.as_ref();
    let none = || "none: no interface is configured".to_owned();
    lines.push(("kernel", kernel.map_or_else(none, self::kernel)));
    lines.push(("requests", requests(facts)));
    lines.extend(limiting(facts));
    lines.push(("backends", backends(&facts.backends)));
    lines.push(("store", stores(facts)));
    let blocks = &facts.blocks;
    lines.push((
        "blocked",
        format!(
            "{} by this node, {} by the fleet; {} offenders are known",
            blocks.node, blocks.fleet, facts.offenders
        ),
    ));
    if let Some(rls) = &facts.rls {
        let questions = rate(rls.questions_per_second);
        let over = rate(rls.over_limit_per_second);
        lines.push((
            "rls",
            format!(
                "{}: {}, {questions} questions/s, {over} hits/s over a limit",
                rls.address,
                count(rls.connections, "connection")
            ),
        ));
    }
    lines
}

fn policy(policy: &PolicyView) -> String {
    format!(
        "generation {} since {}: {} of {}",
        policy.generation,
        seconds(&policy.in_force_since),
        policy.fingerprint,
        policy.directory
    )
}

/// A time without its fractions of a second, which take a place that others need.
fn seconds(time: &str) -> String {
    match time.split_once('.') {
        Some((whole, _)) => format!("{whole}Z"),
        None => time.to_owned(),
    }
}

fn last_read(policy: &PolicyView) -> String {
    let last = &policy.last_read;
    let refused = if last.applied { "" } else { ", refused" };
    format!(
        "read {} ({}){refused}: {}, {}, {} kept",
        seconds(&last.at),
        last.trigger,
        count(last.errors as u64, "error"),
        count(last.warnings as u64, "warning"),
        last.kept.len()
    )
}

fn listeners(listeners: &[ListenerView]) -> String {
    let view = |one: &ListenerView| match one.listeners {
        0 | 1 => format!("{} {}", one.address, one.serves),
        many => format!("{} {} ({many})", one.address, one.serves),
    };
    let told: Vec<_> = listeners.iter().map(view).collect();
    told.join(", ")
}

fn kernel(kernel: &Kernel) -> String {
    let interface = |one: &InterfaceView| match &one.mode {
        Some(mode) => format!("{} {mode}", one.name),
        None => format!("{} OFF", one.name),
    };
    let interfaces: Vec<_> = kernel.interfaces.iter().map(interface).collect();
    format!(
        "{}; {} of {} places; {} packets/s, {} dropped; {} sentences",
        interfaces.join(", "),
        kernel.live,
        kernel.places,
        rate(kernel.packets_per_second),
        rate(kernel.dropped_per_second),
        kernel.sentences
    )
}

fn requests(facts: &Facts) -> String {
    let traffic = &facts.traffic;
    format!(
        "{}/s, {}/s limited, {}/s with 5xx; {}; {} of {} buckets",
        rate(traffic.requests_per_second),
        rate(traffic.limited_per_second),
        rate(traffic.server_errors_per_second),
        count(traffic.connections, "connection"),
        facts.buckets.live,
        facts.buckets.capacity
    )
}

fn limiting(facts: &Facts) -> Vec<(&'static str, String)> {
    let limiting = &facts.limiting;
    let line = |one: &Limiting| {
        let route = match one.route.as_str() {
            "" => String::new(),
            route => format!(" on {route}"),
        };
        let denied = rate(Some(one.denied_per_second));
        format!("{denied}/s by {}{route} ({})", one.rule, one.limit)
    };
    let mut told: Vec<_> = limiting.iter().take(LIMITS).map(line).collect();
    if told.is_empty() {
        let looked = facts.traffic.limited_per_second.is_some();
        told.push(if looked { "nothing now" } else { "-" }.to_owned());
    }
    let more = limiting.len().saturating_sub(LIMITS);
    if let (Some(last), 1..) = (told.last_mut(), more) {
        *last += &format!(", and {more} more");
    }
    let labels = std::iter::once("denied").chain(std::iter::repeat(""));
    labels.zip(told).collect()
}

fn backends(backends: &[Backend]) -> String {
    let open = backends.iter().filter(|one| !one.open.is_empty()).count();
    let sum = |of: fn(&Backend) -> u64| backends.iter().map(of).sum::<u64>();
    let endpoints = sum(|one| one.endpoints);
    let healthy = sum(|one| one.healthy);
    format!(
        "{}, {} open; {}, {healthy} healthy, {} ejected",
        backends.len(),
        count(open as u64, "breaker"),
        count(endpoints, "endpoint"),
        sum(|one| one.ejected)
    )
}

fn stores(facts: &Facts) -> String {
    if facts.stores.is_empty() {
        return "none, each node counts for itself".to_owned();
    }
    let view = |one: &Store| {
        let state = match one.state {
            "asked" => "asked",
            "probed" => "asked one request at a time",
            _ => "not asked: it fails",
        };
        let place = one.address.as_ref().unwrap_or(&one.name);
        format!("{place} {state}, {}", count(one.connections, "connection"))
    };
    let mut told: Vec<_> = facts.stores.iter().map(view).collect();
    if let Some(fleet) = &facts.fleet {
        let known = if fleet.connected {
            "alive"
        } else {
            "last seen alive"
        };
        told.push(format!("{} {known}", count(fleet.nodes, "node")));
    }
    told.join("; ")
}

fn rate(rate: Option<f64>) -> String {
    match rate {
        None => "-".to_owned(),
        Some(rate) => si(rate),
    }
}
