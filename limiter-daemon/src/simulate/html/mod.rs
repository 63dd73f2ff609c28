//! The report as one page: no script, nothing from outside, readable in the dark and on a phone.

mod chart;

use maud::{DOCTYPE, Markup, PreEscaped, html as page};

use super::report::{
    Agreement, Comparison, LimitedClient, LineCounts, OnlyOne, PacketReport, PolicyReport, Ranking,
    Report,
};

const STYLE: &str = include_str!("style.css");

/// The report as an HTML page. What logs and policies say is escaped.
#[must_use]
pub fn html(report: &Report) -> String {
    let compared = report.against.is_some();
    let body = page! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                title { "limiterd simulate: " (report.policy.policy) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "limiterd simulate" }
                p { "Policy " b { (report.policy.policy) }
                    @if let Some(against) = &report.against { " against " b { (against.policy) } }
                }
                p {
                    @if let (Some(from), Some(to)) = (&report.from, &report.to) {
                        (from) " to " (to) ". "
                    }
                    (lines(&report.lines))
                }
                @for line in &report.lines.first_unreadable { p.note { "not read: " (line) } }
                @for note in &report.notes { p.note { (note) } }
                @if let Some(logged) = &report.logged { (agreement(logged)) }
                @if let (Some(compared), Some(against)) = (&report.comparison, &report.against) {
                    (comparison(compared, &report.policy.policy, &against.policy))
                }
                @if report.lines.requests > 0 {
                    (policy(&report.policy, report, compared))
                    @if let Some(against) = &report.against { (policy(against, report, compared)) }
                }
                @if let Some(found) = &report.packets { (packets(found)) }
            }
        }
    };
    body.into_string()
}

fn lines(lines: &LineCounts) -> String {
    let mut text = format!("{} requests on {} lines", lines.requests, lines.read);
    for (count, what) in [
        (lines.unreadable, "could not be read"),
        (lines.connections, "are of connections"),
        (lines.late, "requests came late and were decided late"),
    ] {
        if count > 0 {
            text.push_str(&format!("; {count} {what}"));
        }
    }
    text.push('.');
    text
}

fn agreement(logged: &Agreement) -> Markup {
    page! {
        p {
            "Of " (logged.requests) " decisions in the log " (logged.same) " are the same here; "
            (logged.only_log) " were limited only then, " (logged.only_simulated) " only here, "
            (logged.other_rule) " by another rule."
        }
    }
}

fn comparison(found: &Comparison, first: &str, second: &str) -> Markup {
    page! {
        section {
            h2 { "What differs" }
            div.cards {
                (card("limited by both", found.limited_by_both))
                (card(&format!("only by {first}"), found.only_policy.requests))
                (card(&format!("only by {second}"), found.only_against.requests))
            }
            (only(&found.only_policy, first))
            (only(&found.only_against, second))
        }
    }
}

fn only(found: &OnlyOne, name: &str) -> Markup {
    page! {
        @if found.requests > 0 {
            h3 { "Limited only by " (name) }
            table {
                thead { tr { th { "Rule" } th.n { "Requests" } } }
                tbody {
                    @for (rule, count) in &found.rules { tr { td { (rule) } td.n { (count) } } }
                }
            }
            (clients(&found.clients))
        }
    }
}

fn card(what: &str, count: u64) -> Markup {
    page! { div.card { b { (count) } span { (what) } } }
}

fn policy(found: &PolicyReport, report: &Report, compared: bool) -> Markup {
    let (from, to) = chart::range(&found.requests_over_time);
    page! {
        section {
            @if compared { h2 { (found.policy) } } @else { h2 { "Requests" } }
            div.cards {
                (card("requests", found.requests))
                (card("admitted", found.admitted))
                (card("limited (429)", found.limited))
                @if found.no_route > 0 { (card("no route (404)", found.no_route)) }
                @if found.bad_request > 0 { (card("bad path (400)", found.bad_request)) }
                @if found.broken > 0 { (card("broken policy (500)", found.broken)) }
                @if found.refused > 0 { (card("refused before", found.refused)) }
            }
            (chart::bars(&found.requests_over_time, &found.limited_over_time, ("requests", "limited")))
            h3 { "Rules" }
            table {
                thead { tr {
                    th { "Rule" } th { "Route" } th.n { "Admitted" } th.n { "Limited" }
                    th.n { "In shadow" } th { "First" } th { "Last" } th { "When" }
                } }
                tbody {
                    @for rule in &found.rules {
                        tr {
                            td {
                                (rule.rule)
                                @if !rule.candidate.is_empty() { " candidate " (rule.candidate) }
                                @if rule.reach == "global" { small { " global" } }
                            }
                            td { @if rule.route.is_empty() { "shared" } @else { (rule.route) } }
                            td.n { (rule.admitted) }
                            td.n { (rule.limited) }
                            td.n { (rule.shadow_limited) }
                            td { (rule.first.as_deref().unwrap_or("")) }
                            td { (rule.last.as_deref().unwrap_or("")) }
                            td { (chart::spark(&rule.over_time, from, to)) }
                        }
                    }
                }
            }
            @if report.lines.requests > 0 { (clients(&found.clients)) }
            @if !found.buckets.most.is_empty() {
                h3 { "Buckets" }
                table {
                    thead { tr { th { "Bucket" } th { "Rule" } th.n { "Limited" } th { "First" } th { "Last" } } }
                    tbody {
                        @for one in &found.buckets.most {
                            tr {
                                td { (one.bucket) } td { (one.rule) } td.n { (one.limited) }
                                td { (one.first) } td { (one.last) }
                            }
                        }
                    }
                }
                (rest(&found.buckets, "buckets"))
            }
        }
    }
}

fn clients(found: &Ranking<LimitedClient>) -> Markup {
    page! {
        @if !found.most.is_empty() {
            h3 { "Clients" }
            table {
                thead { tr { th { "Client" } th { "Rule" } th.n { "Limited" } th { "First" } th { "Last" } } }
                tbody {
                    @for one in &found.most {
                        tr {
                            td { (one.client) } td { (one.rule) } td.n { (one.limited) }
                            td { (one.first) } td { (one.last) }
                        }
                    }
                }
            }
            (rest(found, "pairs of client and rule"))
        }
    }
}

/// How many there are besides, and how exact the counts are.
fn rest<T>(found: &Ranking<T>, what: &str) -> Markup {
    page! {
        p.note {
            (found.most.len()) " of "
            @if found.missing > 0 { "more than " }
            (found.known) " " (what)
            @if found.missing > 0 { "; counts may be too low by up to " (found.missing) }
            "."
        }
    }
}

fn packets(found: &PacketReport) -> Markup {
    page! {
        section {
            h2 { "Packets" }
            div.cards {
                (card("packets", found.packets))
                (card("passed", found.passed))
                (card("dropped", found.dropped))
                @if found.shadow_dropped > 0 { (card("in shadow", found.shadow_dropped)) }
            }
            (chart::bars(&found.packets_over_time, &found.dropped_over_time, ("packets", "dropped")))
            h3 { "Reasons" }
            table {
                thead { tr { th { "Policy" } th.n { "Level" } th { "Reason" } th.n { "Packets" } } }
                tbody {
                    @for one in &found.reasons {
                        tr {
                            td { (one.policy.as_deref().unwrap_or("")) @if one.shadow { " (shadow)" } }
                            td.n { (one.level) }
                            td { (one.reason) @if one.dropped { b { " dropped" } } }
                            td.n { (one.packets) }
                        }
                    }
                }
            }
            @if !found.sources.most.is_empty() {
                h3 { "Sources" }
                table {
                    thead { tr { th { "Source" } th.n { "To port" } th.n { "Dropped" } th { "First" } th { "Last" } } }
                    tbody {
                        @for one in &found.sources.most {
                            tr {
                                td { (one.source) } td.n { (one.port) } td.n { (one.dropped) }
                                td { (one.first) } td { (one.last) }
                            }
                        }
                    }
                }
                (rest(&found.sources, "sources"))
            }
        }
    }
}
